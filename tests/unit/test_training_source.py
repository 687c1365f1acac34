"""A user's own code: run only from what was given, and only if it is what it should be."""

import hashlib
import io
import stat
import sys
import tarfile
import zipfile

import pytest

from longshore.errors import ConfigError, DigestMismatch, InvalidValue, ModelError, StorageError, TrainingError
from longshore.training.imports import import_path
from longshore.training.source import source_digest, source_modules

CODE = b"from pathlib import Path\nPLACE = Path(__file__)\n\ndef build():\n    return 'built'\n"


def build(path, network="mynets.build", digest=None):
    with source_modules(path, digest or source_digest(path), network) as found:
        builder = import_path("network", network, example="a.b")
        place = sys.modules[network.rpartition(".")[0]].__file__
        return found, builder(), place


@pytest.fixture
def single(tmp_path):
    # as Kubeflow names artifacts: without an ending
    (tmp_path / "source").write_bytes(CODE)
    return tmp_path / "source"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "code" / "mynets").mkdir(parents=True)
    (tmp_path / "code" / "mynets" / "__init__.py").write_bytes(b"from mynets.inner import build\n")
    (tmp_path / "code" / "mynets" / "inner.py").write_bytes(CODE)
    return tmp_path / "code"


@pytest.fixture
def zipped(tmp_path):
    with zipfile.ZipFile(tmp_path / "zipped", "w") as archive:
        archive.writestr("mynets.py", CODE)
    return tmp_path / "zipped"


@pytest.fixture
def tarred(tmp_path):
    with tarfile.open(tmp_path / "tarred", "w:gz") as archive:
        member = tarfile.TarInfo("mynets.py")
        member.size = len(CODE)
        archive.addfile(member, io.BytesIO(CODE))
    return tmp_path / "tarred"


@pytest.mark.parametrize("what", ["single", "folder", "zipped", "tarred"])
def test_code_is_run_from_a_copy_that_goes_afterwards(request, what, tmp_path):
    path = request.getfixturevalue(what)
    digest, built, place = build(path)
    assert (digest, built) == (source_digest(path), "built")
    assert not place.startswith(str(tmp_path))
    assert "mynets" not in sys.modules
    assert not any(entry.startswith(str(place.rpartition("/")[0])) for entry in sys.path)


def test_a_file_has_the_digest_that_sha256sum_prints(single):
    assert source_digest(single) == "sha256:" + hashlib.sha256(CODE).hexdigest()


def test_code_that_was_not_looked_at_is_not_run(single):
    with (
        pytest.raises(ConfigError, match=rf"source_digest='{source_digest(single)}'"),
        source_modules(single, None, "a.b"),
    ):
        pass
    with pytest.raises(InvalidValue, match="source_digest"), source_modules(single, "abc", "a.b"):
        pass


@pytest.mark.parametrize("what", ["single", "folder", "zipped", "tarred"])
def test_code_that_has_changed_is_not_run(request, what):
    path = request.getfixturevalue(what)
    other = "sha256:" + "0" * 64
    with pytest.raises(DigestMismatch, match="expected sha256:000"):
        build(path, digest=other)
    assert "mynets" not in sys.modules


def link(archive):
    member = tarfile.TarInfo("mynets.py")
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    archive.addfile(member)


def climbing(name):
    def add(archive):
        member = tarfile.TarInfo(name)
        member.size = len(CODE)
        archive.addfile(member, io.BytesIO(CODE))

    return add


@pytest.mark.parametrize(
    ("add", "says"),
    [
        (climbing("../mynets.py"), "leads out of it"),
        (climbing("a/../../mynets.py"), "leads out of it"),
        (climbing("/tmp/mynets.py"), "leads out of it"),
        (climbing("..\\mynets.py"), "leads out of it"),
        (climbing("C:mynets.py"), "leads out of it"),
        (link, "no plain file"),
    ],
)
def test_an_archive_that_climbs_out_is_refused(tmp_path, add, says):
    with tarfile.open(tmp_path / "source", "w") as archive:
        add(archive)
    before = sorted(tmp_path.parent.rglob("*"))
    with pytest.raises(TrainingError, match=says):
        build(tmp_path / "source")
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_a_zip_with_a_link_or_a_path_out_is_refused(tmp_path):
    entry = zipfile.ZipInfo("mynets.py")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    for name in (entry, "../mynets.py"):
        with zipfile.ZipFile(tmp_path / "source", "w") as archive:
            archive.writestr(name, "/etc/passwd")
        with pytest.raises(TrainingError, match=r"no plain file|leads out of it"):
            build(tmp_path / "source")


def test_a_small_archive_cannot_fill_the_disk(tmp_path):
    with zipfile.ZipFile(tmp_path / "source", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mynets.py", b"#" * (2**26 + 1))
    with pytest.raises(TrainingError, match="code is smaller"):
        build(tmp_path / "source")


def test_a_folder_with_links_is_refused(folder):
    (folder / "secret.py").symlink_to("/etc/passwd")
    with pytest.raises(ModelError, match="symbolic link"):
        build(folder, digest="sha256:" + "0" * 64)


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ("other.build", "the source has no module 'other'; it has mynets"),
        ("mynets.bild", "did you mean build"),
        ("build", "no import path|no module 'build'"),
    ],
)
def test_a_name_that_is_not_there_is_told(zipped, network, says):
    with pytest.raises(TrainingError, match=says):
        build(zipped, network)


def test_a_module_that_is_in_use_is_not_replaced(tmp_path):
    with zipfile.ZipFile(tmp_path / "source", "w") as archive:
        archive.writestr("json.py", CODE)
    with pytest.raises(TrainingError, match="another of that name is in use"):
        build(tmp_path / "source", "json.build")


def test_what_is_no_code_is_told(tmp_path):
    (tmp_path / "source").write_bytes(b"\x00\x01 no code")
    with pytest.raises(TrainingError, match="neither an archive nor Python"):
        build(tmp_path / "source")
    with pytest.raises(StorageError, match="cannot be read"):
        source_digest(tmp_path / "nowhere")


def test_code_that_fails_says_where(tmp_path):
    (tmp_path / "source").write_bytes(b"raise RuntimeError('broken on purpose')\n")
    with pytest.raises(TrainingError, match="importing mynets failed with RuntimeError: broken on purpose"):
        build(tmp_path / "source")
    assert "mynets" not in sys.modules
