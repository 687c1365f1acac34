"""Files behind URIs."""

import errno
import shutil

import fsspec
import pytest

from longshore import storage
from longshore.errors import InvalidValue, LongshoreError, MissingExtra, StorageError


def read(uri):
    with storage.open_read(uri) as stream:
        return stream.read()


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def test_reads_paths_and_uris(tmp_path, memory):
    (tmp_path / "mit Leerzeichen é.csv").write_bytes(b"a,b\n")
    memory.pipe("/bucket/x.csv", b"c,d\n")
    assert read(str(tmp_path / "mit Leerzeichen é.csv")) == b"a,b\n"
    assert read((tmp_path / "mit Leerzeichen é.csv").as_uri()) == b"a,b\n"
    assert read("memory://bucket/x.csv") == b"c,d\n"


@pytest.mark.parametrize("uri", ["nowhere.csv", "memory://nowhere.csv"])
def test_a_missing_file_is_named(uri, tmp_path, monkeypatch, memory):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match="nowhere.csv: no such file"):
        read(uri)


def test_a_relative_path_says_where_it_was_looked_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match=str(tmp_path)):
        read("data.csv")


def test_a_directory_is_no_file(tmp_path):
    with pytest.raises(StorageError, match="is a directory"):
        read(str(tmp_path))


def test_an_unknown_scheme_is_told():
    with pytest.raises(LongshoreError, match="nosuchscheme"):
        read("nosuchscheme://bucket/key")


def test_a_scheme_without_its_package_names_the_extra(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise ImportError("No module named 's3fs'", name="s3fs")

    monkeypatch.setattr(fsspec.core, "url_to_fs", refuse)
    with pytest.raises(MissingExtra, match=r"longshore\[s3\]"):
        read("s3://bucket/key")


@pytest.mark.parametrize("part", ["", ".", "..", "a/b", "a\\b", "a\0b"])
def test_join_refuses_segments_that_leave_the_place(part):
    with pytest.raises(InvalidValue):
        storage.join("s3://bucket", part)


def test_join_appends_segments():
    assert storage.join("s3://bucket/", "iris", "1") == "s3://bucket/iris/1"


def test_replace_directory_replaces_whole(tmp_path):
    target = tmp_path / "models" / "iris"
    for content in ("old", "new"):
        with storage.replace_directory(target) as work:
            (work / "model").write_text(content)
    assert (target / "model").read_text() == "new"
    assert [p.name for p in target.parent.iterdir()] == ["iris"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), ValueError("x")]
)
def test_replace_directory_leaves_the_old_content_on_any_error(tmp_path, error):
    target = tmp_path / "iris"
    with storage.replace_directory(target) as work:
        (work / "model").write_text("old")
    expected = StorageError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), storage.replace_directory(target) as work:
        (work / "model").write_text("half")
        raise error
    assert (target / "model").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["iris"]


def test_a_full_disk_is_told_in_its_own_words(tmp_path):
    with pytest.raises(StorageError, match="No space left"), storage.replace_directory(tmp_path / "iris"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_copy_tree_and_back(tmp_path, memory):
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "a").write_text("1")
    (source / "deep" / "b").write_text("2")
    for uri in (str(tmp_path / "target"), "memory://bucket/target"):
        storage.copy_tree(source, uri)
        scratch = tmp_path / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        found = storage.fetch_directory(uri, scratch)
        assert {p.relative_to(found).as_posix(): p.read_text() for p in found.rglob("*") if p.is_file()} == {
            "a": "1",
            "deep/b": "2",
        }


@pytest.mark.parametrize("uri", ["nowhere", "memory://nowhere"])
def test_a_missing_directory_is_named(uri, tmp_path, memory):
    with pytest.raises(StorageError, match="nowhere"):
        storage.fetch_directory(uri, tmp_path)
