"""Object storage: moto's S3 server in a process of its own, on a port that the kernel chooses."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from longshore import storage
from longshore.errors import StorageError
from longshore.packaging import load_model, package_model
from longshore.training import read_table
from longshore.validation import evaluate_stored


@pytest.fixture(scope="module")
def s3():
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        url = next(match[0] for line in process.stderr if (match := re.search(r"http://127\.0\.0\.1:\d+", line)))
        yield url
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


@pytest.fixture
def bucket(s3, monkeypatch):
    """A bucket of its own, and the environment in which s3fs finds it."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    filesystem = s3fs.S3FileSystem()
    filesystem.mkdir("models")
    yield "s3://models"
    filesystem.rm("models", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_table_is_read_from_a_bucket(bucket):
    import s3fs

    s3fs.S3FileSystem().pipe("models/data/mit Leerzeichen.csv", "größe;preis\n1,5;2\n2,5;3\n".encode())
    frame = read_table(f"{bucket}/data/mit Leerzeichen.csv")
    assert frame.to_dict("list") == {"größe": [1.5, 2.5], "preis": [2, 3]}
    with pytest.raises(StorageError, match=r"s3://models/data/none\.csv: no such file"):
        read_table(f"{bucket}/data/none.csv")
    with pytest.raises(StorageError, match="s3://no-such-bucket"):
        read_table("s3://no-such-bucket/x.csv")


def test_a_model_is_packaged_to_a_bucket_and_used_from_there(bucket, constant_models, tmp_path):
    packaged = package_model(constant_models(7), bucket, name="penguins", version="7")
    assert packaged.uri == "s3://models/penguins/7"
    fetched = storage.fetch_directory(packaged.uri, tmp_path)
    assert load_model(fetched, packaged.digest).card.signature.target == "body_mass_g"
    again = package_model(constant_models(7), bucket, name="penguins", version="7")
    assert again == packaged
    frame = read_table(str(Path(__file__).parents[2] / "examples" / "data" / "penguins.csv"))
    assert evaluate_stored(packaged, frame).metrics["mae"] > 0


def test_a_missing_directory_in_a_bucket_is_told(bucket, tmp_path):
    with pytest.raises(StorageError, match="s3://models/none"):
        storage.fetch_directory(f"{bucket}/none", tmp_path)
