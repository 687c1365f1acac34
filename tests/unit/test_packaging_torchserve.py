"""What TorchServe reads, and what it is not to unpack."""

import json
import re
import stat
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from longshore.errors import InvalidValue, MissingExtra, ModelError
from longshore.packaging import (
    Column,
    Signature,
    Workers,
    load_model,
    package_torchserve,
    read_card,
    rows_to_frame,
    save_files,
)
from longshore.packaging.archive import handler_of, inspect_archive, unpack_model
from longshore.packaging.torchserve import config_properties, model_config, properties_text
from longshore.packaging.torchserve_process import last_error, last_warning, read_properties, traceback_in, worker_died


def java(text):
    """Properties as ``java.util.Properties.load`` reads them."""
    assert text.isascii()
    found = {}
    for line in text.splitlines():
        key, value = re.fullmatch(r"((?:[^\\=]|\\.)*)=(.*)", line).groups()
        found[unescaped(key)] = unescaped(value)
    return found


def unescaped(text):
    units = re.sub(r"\\u([0-9a-f]{4})", lambda match: chr(int(match[1], 16)), text)
    plain = re.sub(r"\\(.)", lambda match: {"n": "\n", "t": "\t", "r": "\r"}.get(match[1], match[1]), units)
    return plain.encode("utf-16", "surrogatepass").decode("utf-16")


SAFE = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\\\x0c"), max_size=20)


@given(st.dictionaries(st.text("abc =:#!é", min_size=1), SAFE))
def test_properties_come_back_as_they_were(properties):
    assert java(properties_text(properties)) == properties


def test_a_backslash_and_a_line_break_stay_within_their_value():
    assert properties_text({"a": "x\ny=\\z", "b": True, "c": {"d": 1}}) == 'a=x\\ny=\\\\z\nb=true\nc={"d":1}\n'


def test_by_itself_it_listens_on_loopback_and_asks_for_tokens():
    found = java(config_properties({"iris": {"3": "iris-3.mar", "10": "iris-10.mar"}}, Workers(max_workers=2)))
    assert found["inference_address"] == "http://127.0.0.1:8080"
    assert "disable_token_authorization" not in found
    assert "enable_model_api" not in found
    assert found["load_models"] == "iris-3.mar,iris-10.mar"
    models = json.loads(found["models"])
    assert {version: one["defaultVersion"] for version, one in models["iris"].items()} == {"3": False, "10": True}
    assert models["iris"]["3"] == {
        "defaultVersion": False,
        "marName": "iris-3.mar",
        "minWorkers": 1,
        "maxWorkers": 2,
        "batchSize": 1,
        "maxBatchDelay": 10,
        "responseTimeout": 120,
        "startupTimeout": 120,
    }


def test_inside_kserves_runtime_it_listens_where_the_wrapper_looks():
    found = java(config_properties({"iris": {"3": "iris-3.mar"}}, Workers(), layout="kserve"))
    assert found["inference_address"] == found["management_address"] == "http://0.0.0.0:8085"
    assert found["model_store"] == "/mnt/models/model-store"
    assert found["disable_token_authorization"] == "true"
    snapshot = json.loads(found["model_snapshot"])
    assert (snapshot["name"], snapshot["modelCount"]) == ("startup.cfg", 1)
    assert snapshot["models"]["iris"]["3"]["marName"] == "iris-3.mar"
    assert "models" not in found


def test_properties_can_be_others():
    models = {"iris": {"3": "iris-3.mar", "4": "iris-4.mar"}}
    text = config_properties(models, Workers(), defaults={"iris": "3"}, grpc_inference_port=None, enable_model_api=True)
    found = java(text)
    assert "grpc_inference_port" not in found
    assert found["enable_model_api"] == "true"
    assert json.loads(found["models"])["iris"]["3"]["defaultVersion"] is True
    with pytest.raises(InvalidValue, match="layout"):
        config_properties(models, Workers(), layout="docker")


@pytest.mark.parametrize(
    "changes",
    [{"min_workers": 0}, {"min_workers": 2, "max_workers": 1}, {"batch_size": 0}, {"max_batch_delay_seconds": -1}],
)
def test_workers_that_cannot_be_are_refused(changes):
    with pytest.raises(InvalidValue, match=f"Workers.{list(changes)[-1]}"):
        Workers(**changes)


def test_the_archives_configuration_has_the_digest():
    content = yaml.safe_load(model_config(Workers(batch_size=4), "sha256:" + "0" * 64))
    assert content["handler"] == {"digest": "sha256:" + "0" * 64}
    assert (content["batchSize"], content["jobQueueSize"]) == (4, 100)


def signature(*columns):
    return Signature(inputs=columns, task="regression", target="t", classes=None)


PHOTO = Column(name="photo", kind="image", nullable=False, shape=(2, 2, 1))
WORDS = Column(name="words", kind="text", nullable=False)


@pytest.mark.parametrize(("columns", "handler"), [((PHOTO,), "image"), ((WORDS,), "text"), ((PHOTO, WORDS), "tabular")])
def test_the_handler_is_told_by_the_columns(columns, handler):
    assert handler_of(signature(*columns)) == handler


def archive(path, *entries, manifest=None):
    with zipfile.ZipFile(path, "w") as made:
        if manifest is not None:
            made.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        for entry in entries:
            made.writestr(entry, "content")
    return path


GOOD = {"model": {"modelName": "iris", "modelVersion": "3", "handler": "handler.py"}}


def test_an_archive_says_what_it_is(tmp_path):
    info = inspect_archive(archive(tmp_path / "a.mar", "handler.py", "model/model.pt2", manifest=GOOD))
    assert (info.name, info.version, info.handler) == ("iris", "3", "handler.py")
    assert info.files == ("MAR-INF/MANIFEST.json", "handler.py", "model/model.pt2")


def link():
    entry = zipfile.ZipInfo("model/link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("../evil.py", "leads out of it"),
        ("model/../../evil.py", "leads out of it"),
        ("/etc/evil.py", "leads out of it"),
        ("..\\evil.py", "leads out of it"),
        ("C:evil.py", "leads out of it"),
        (link(), "holds the link 'model/link'"),
    ],
)
def test_an_archive_that_climbs_out_is_refused(tmp_path, entry, says):
    with pytest.raises(ModelError, match=says):
        inspect_archive(archive(tmp_path / "a.mar", entry, manifest=GOOD))


def test_an_archive_that_would_fill_the_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("longshore.packaging.archive._MOST_BYTES", 10)
    with pytest.raises(ModelError, match="would take more than 10 bytes"):
        inspect_archive(archive(tmp_path / "a.mar", "handler.py", manifest=GOOD))


@pytest.mark.parametrize("manifest", [None, {}, {"model": {"modelName": "iris"}}, [1]])
def test_what_is_no_model_archive_is_told(tmp_path, manifest):
    with pytest.raises(ModelError, match=r"MANIFEST.json is missing or says too little"):
        inspect_archive(archive(tmp_path / "a.mar", "handler.py", manifest=manifest))
    (tmp_path / "b.mar").write_bytes(b"text")
    with pytest.raises(ModelError, match="no archive that TorchServe can read"):
        inspect_archive(tmp_path / "b.mar")


def test_what_it_takes_is_told_before_anything_is_stored(constant_models, tmp_path, monkeypatch):
    def package(**options):
        package_torchserve(constant_models(1), str(tmp_path), name="iris", version="1", **options)

    with pytest.raises(InvalidValue, match="requirements"):
        package(requirements=["numpy; import os"])
    with pytest.raises(InvalidValue, match="requirements"):
        package(requirements=["--index-url=evil"])
    with pytest.raises(InvalidValue, match="layout"):
        package(layout="docker")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"longshore\[torchserve\]"):
        package()
    assert list(tmp_path.iterdir()) == []


def test_the_model_in_a_package_can_be_loaded_without_torchserve(constant_models, tmp_path):
    """What longshore's own server does with one."""
    model = Path(constant_models(7).uri)

    def write(work):
        (work / "model-store").mkdir()
        with zipfile.ZipFile(work / "model-store" / "penguins-7.mar", "w") as content:
            content.writestr("MAR-INF/MANIFEST.json", json.dumps(GOOD))
            content.writestr("handler.py", "raise SystemExit('is not run')")
            for path in model.iterdir():
                content.write(path, f"model/{path.name}")

    card = read_card(model)
    digest = save_files(tmp_path / "package", write, replace(card, format="torchserve"))
    loaded = load_model(tmp_path / "package", digest)
    assert (loaded.card, loaded.digest, loaded.directory) == (card, digest, tmp_path / "package")
    frame = rows_to_frame(card.signature, card.example)
    assert set(loaded.predict(frame, conformed=True)) == {7.0}


def test_an_archive_without_a_model_of_longshores_is_for_torchserve_only(tmp_path):
    path = archive(tmp_path / "a.mar", "handler.py", "modelling.py", manifest=GOOD)
    with pytest.raises(ModelError, match="only TorchServe can serve it"):
        unpack_model(path, tmp_path / "model")


WORKER = "2026-11-29T00:10:24,937 [INFO ] W-9000-m_3-stdout MODEL_LOG - "
LOG = [
    f"{WORKER}Traceback (most recent call last):",
    f'{WORKER}  File "worker.py", line 1, in <module>',
    f"{WORKER}KeyError: 'first'",
    "2026-11-29T00:10:25,000 [WARN ] main o.p.s.W - Backend worker process died.",
    f"{WORKER}Backend worker process died.",
    f"{WORKER}Traceback (most recent call last):",
    f"{WORKER}    raise LookupError('no weights')",
    f"{WORKER}LookupError: no weights",
]


def test_torchserves_logs_tell_the_workers_last_words(tmp_path):
    assert traceback_in(LOG).splitlines() == [
        "Traceback (most recent call last):",
        "    raise LookupError('no weights')",
        "LookupError: no weights",
    ]
    # the last one is not whole yet
    assert traceback_in(LOG[:-1]) is None
    # after an error of this kind a worker ends with another that says nothing
    ends = [f"{WORKER}Traceback (most recent call last):", f"{WORKER}RuntimeError: 500 - Unknown exception"]
    assert traceback_in([*LOG, *ends]).endswith("LookupError: no weights")
    assert traceback_in(ends).endswith("Unknown exception")
    # the worker died before all was read, and TorchServe or the next worker goes on in its place
    torchserve = "2026-11-29T00:10:36,211 [INFO ] epoll-5-1 o.p.s.W - 9000 Worker disconnected. WORKER_STARTED"
    following = f"{WORKER}s_name_part0=/tmp/.ts.sock, s_name_part1=9000, pid=73"
    assert traceback_in([*LOG[:-1], torchserve]) is None
    assert traceback_in([*LOG[5:-1], following]) is None
    assert traceback_in([*LOG, *LOG[5:-1], following]) == traceback_in(LOG)
    assert traceback_in([*LOG[:-1], torchserve, LOG[-1]]) == traceback_in(LOG)
    other = WORKER.replace("W-9000", "W-9001")
    assert traceback_in([*LOG[:-1], f"{other}Torch worker started.", LOG[-1]]) == traceback_in(LOG)
    assert last_error(tmp_path) is None
    assert not worker_died(tmp_path)
    (tmp_path / "ts_log.log").write_text("\n".join(LOG))
    assert last_error(tmp_path) == "LookupError: no weights"
    assert worker_died(tmp_path)
    assert last_warning(["[INFO ] a", "[ERROR] b", "[INFO ] c"]) == "[ERROR] b"
    assert last_warning([]) == "it said nothing"


def test_properties_are_read_as_far_as_the_launcher_reads_them():
    text = config_properties({"iris": {"3": "iris-3.mar"}}, Workers())
    assert read_properties(f"# a comment=1\n\n{text}")["load_models"] == "iris-3.mar"
    assert "# a comment" not in read_properties("# a comment=1\n")
