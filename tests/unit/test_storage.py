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


@pytest.mark.parametrize("place", ["folder", "memory"])
def test_a_file_is_written_read_with_its_neighbours_and_deleted(tmp_path, memory, place):
    base = str(tmp_path / "é x") if place == "folder" else "memory://bucket/é x"
    storage.write_file(f"{base}/deep/b", b"2")
    storage.write_file(f"{base}/a", b"1")
    storage.write_file(f"{base}/a", b"3")
    assert list(storage.read_tree(base, lambda name: True)) == [("a", b"3"), ("deep/b", b"2")]
    assert list(storage.read_tree(base, lambda name: name.startswith("deep"))) == [("deep/b", b"2")]
    storage.delete_file(f"{base}/a")
    storage.delete_file(f"{base}/a")
    assert [name for name, _ in storage.read_tree(base, lambda name: True)] == ["deep/b"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    storage.write_file(str(tmp_path / "a"), b"old")

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"a could not be written: No space left"):
        storage.write_file(str(tmp_path / "a"), b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


def test_one_file_can_be_the_last_to_be_copied(tmp_path, memory, monkeypatch):
    for name in ("a", "card", "z"):
        (tmp_path / name).write_text(name)
    order, put = [], type(memory).put_file

    def noted(self, source, target, **options):
        order.append(target)
        return put(self, source, target, **options)

    monkeypatch.setattr(type(memory), "put_file", noted)
    storage.copy_tree(tmp_path, "memory://bucket/model", last="card")
    assert [path.rpartition("/")[2] for path in order] == ["a", "z", "card"]
