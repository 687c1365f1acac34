"""Tables of pictures from folders and archives."""

import io
import tarfile
import zipfile

import fsspec
import numpy as np
import pytest

from longshore.errors import DataError, StorageError
from longshore.packaging.images import encode_image
from longshore.training import read_images

FILES = {
    f"{label}/{number}.png": encode_image(np.full((2, 2), number, np.uint8))
    for label in ("cat", "dog")
    for number in (1, 2)
}
NOISE = {"readme.txt": b"x", "cat/.hidden.png": b"x", "__MACOSX/cat/._1.png": b"x"}


@pytest.fixture
def folder(tmp_path):
    for name, content in {**FILES, **NOISE}.items():
        path = tmp_path / "pictures é" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "pictures é"


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    for name, content in {**FILES, **NOISE}.items():
        fs.pipe(f"/bucket/pictures/{name}", content)
    yield "memory://bucket/pictures"
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


@pytest.fixture
def zipped(tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for name, content in {**FILES, **NOISE}.items():
            archive.writestr(name, content)
    return tmp_path / "p.zip"


@pytest.fixture
def tarred(tmp_path):
    with tarfile.open(tmp_path / "p.tar.gz", "w:gz") as archive:
        for name, content in {**FILES, **NOISE}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return tmp_path / "p.tar.gz"


@pytest.mark.parametrize("place", ["folder", "memory", "zipped", "tarred"])
def test_a_row_for_each_picture_with_its_folder_as_label(request, place):
    frame = read_images(str(request.getfixturevalue(place)))
    assert frame["file"].tolist() == sorted(FILES)
    assert frame["image"].tolist() == [FILES[name] for name in sorted(FILES)]
    assert frame["label"].tolist() == ["cat", "cat", "dog", "dog"]


def test_the_label_is_named_or_left_out(folder):
    assert list(read_images(folder.as_uri(), label="kind")) == ["file", "image", "kind"]
    assert list(read_images(str(folder), label=None)) == ["file", "image"]


def test_nothing_of_an_archive_is_written_anywhere(tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("../../cat/1.png", FILES["cat/1.png"])
        archive.writestr("dog/1.png", FILES["dog/1.png"])
    before = sorted(tmp_path.parent.rglob("*"))
    assert read_images(str(tmp_path / "p.zip"))["label"].tolist() == ["dog"]
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_what_is_wrong_is_told(folder, tmp_path):
    (folder / "cat" / "broken.jpg").write_bytes(b"text")
    with pytest.raises(DataError, match=r"1 of 5 files cannot be used: cat/broken.jpg: expected a picture"):
        read_images(str(folder))
    (folder / "cat" / "broken.jpg").write_bytes(FILES["cat/1.png"])
    (folder / "loose.png").write_bytes(FILES["cat/1.png"])
    with pytest.raises(DataError, match=r"loose.png lies in no folder"):
        read_images(str(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pictures: their names end in .bmp"):
        read_images(str(tmp_path / "empty"))
    with pytest.raises(StorageError, match="no such directory"):
        read_images(str(tmp_path / "nowhere"))
    with pytest.raises(StorageError, match="nothing is stored there"):
        read_images("memory://bucket/nowhere")
    (tmp_path / "bad.zip").write_bytes(b"PK but no archive")
    with pytest.raises(DataError, match="no archive that can be read"):
        read_images(str(tmp_path / "bad.zip"))
