"""A user's own code as an artifact: a Python file, a folder or an archive; run only if it is what it should be."""

from __future__ import annotations

import hashlib
import io
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from longshore.errors import ConfigError, DigestMismatch, StorageError, TrainingError
from longshore.packaging.model import directory_digest
from longshore.spec.checks import check_digest

__all__ = ["source_digest", "source_modules"]

_MOST_BYTES: Final = 2**26
_MOST_FILES: Final = 10_000


def source_digest(path: Path) -> str:
    """Digest of code: of a file its SHA-256, of a folder that of :func:`longshore.packaging.directory_digest`.

    Raises:
        StorageError: If there is nothing to read.
    """
    if path.is_dir():
        return directory_digest(path)
    return "sha256:" + hashlib.sha256(_read(path)).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error


@contextmanager
def source_modules(path: Path, digest: str | None, network: str) -> Iterator[str]:
    """Have the modules of an artifact be there to be imported, as long as the block lasts.

    Nothing is run here, and nothing but what was checked can be run later: a copy is imported that nobody else can
    change.

    Args:
        path: A Python file, a folder of modules and packages, or a ``.zip``, ``.tar`` or ``.tar.gz`` with them; what it
            is is told by its content, as artifacts have no endings.
        digest: What :func:`source_digest` has to give.
        network: The import path that will be asked for; a single file is the module that it begins with.

    Yields:
        The digest.

    Raises:
        ConfigError: If no digest is given.
        DigestMismatch: If the content is another.
        TrainingError: If an archive holds what it may not, or there is no such module, or one is loaded already.
    """
    if digest is None:
        raise ConfigError(
            f"the source {path} is not run without its digest: look at it, and if you trust it give "
            f"source_digest={source_digest(path)!r}"
        )
    check_digest("source_digest", digest)
    root = network.partition(".")[0]
    with tempfile.TemporaryDirectory(prefix="longshore-") as scratch:
        private = Path(scratch)
        if (found := _copy(path, private, root, digest)) != digest:
            raise DigestMismatch(f"the source {path}", digest, found)
        entries = sorted(private.iterdir())
        names = {entry.name.removesuffix(".py") for entry in entries if entry.is_dir() or entry.suffix == ".py"}
        if root not in names:
            raise TrainingError(
                f"network = {network!r}: the source has no module {root!r}; it has {', '.join(sorted(names)) or 'none'}"
            )
        if loaded := sorted(names & {name.partition(".")[0] for name in sys.modules}):
            raise TrainingError(f"the source has a module {loaded[0]!r}, and another of that name is in use: rename it")
        sys.path.insert(0, scratch)
        try:
            yield digest
        finally:
            sys.path.remove(scratch)
            for name in [name for name in sys.modules if name.partition(".")[0] in names]:
                del sys.modules[name]


def _copy(path: Path, target: Path, module: str, digest: str) -> str:
    """Copy the modules to ``target``, if they are what they should be; gives the digest of what was copied."""
    if path.is_dir():
        # what it yields is plain files, and no links to what lies elsewhere
        if (found := directory_digest(path)) == digest:
            shutil.copytree(path, target, dirs_exist_ok=True, symlinks=True)
            found = directory_digest(target)
        return found
    content = _read(path)
    found = "sha256:" + hashlib.sha256(content).hexdigest()
    if found == digest:
        for name, part in _contents(path, content, module):
            place = target / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(part)
    return found


def _contents(path: Path, content: bytes, module: str) -> Iterator[tuple[str, bytes]]:
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            links = [entry.filename for entry in entries if (entry.external_attr >> 16) & 0o170000 == 0o120000]
            _check(path, [(entry.filename, entry.file_size) for entry in entries], links)
            yield from ((entry.filename, archive.read(entry)) for entry in entries if not entry.is_dir())
        return
    if tarfile.is_tarfile(io.BytesIO(content)):
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            members = archive.getmembers()
            links = [member.name for member in members if not (member.isfile() or member.isdir())]
            _check(path, [(member.name, member.size) for member in members], links)
            for member in members:
                stream = archive.extractfile(member) if member.isfile() else None
                if stream is not None:
                    yield member.name, stream.read()
        return
    try:
        compile(content, str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise TrainingError(f"the source {path} is neither an archive nor Python: {error}") from error
    yield f"{module}.py", content


def _check(path: Path, entries: list[tuple[str, int]], links: list[str]) -> None:
    for name, _ in entries:
        parts = PurePosixPath(name).parts
        if PurePosixPath(name).is_absolute() or ".." in parts or "\\" in name or ":" in name:
            raise TrainingError(f"the source {path} holds the path {name!r}, which leads out of it: it is not unpacked")
    if links:
        raise TrainingError(f"the source {path} holds {links[0]!r}, which is no plain file: it is not unpacked")
    size = sum(size for _, size in entries)
    if len(entries) > _MOST_FILES or size > _MOST_BYTES:
        raise TrainingError(
            f"the source {path} holds {len(entries)} files of {size} bytes together: code is smaller than {_MOST_BYTES}"
        )
