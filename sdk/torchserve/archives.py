"""Where a server finds an archive."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from longshore import storage
from longshore.errors import ConfigError, LongshoreError, ModelError, StorageError
from longshore.packaging.torchserve import STORE
from longshore.spec import ModelSource

__all__ = ["archive_digest", "archive_of", "placed"]


def archive_of(package: Path) -> Path:
    """The archive in a package.

    Raises:
        ModelError: If there is none, or more than one.
    """
    found = sorted((package / STORE).glob("*.mar"))
    if len(found) != 1:
        raise ModelError(f"{package / STORE} holds {len(found)} archives, one is needed")
    return found[0]


def archive_digest(archive: Path) -> str:
    """SHA-256 of a file."""
    with archive.open("rb") as stream:
        return _digest_of(stream)


def _digest_of(stream: IO[bytes]) -> str:
    return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


@contextmanager
def placed(model: ModelSource, archive: Path, store: str | None, archive_url: str | None) -> Iterator[str]:
    """Where the server finds the archive; what was copied for nothing is deleted again."""
    if archive_url is not None:
        yield archive_url
    elif store is not None:
        target = storage.join(store, archive.name)
        made = _copy(archive, target)
        try:
            yield archive.name
        except BaseException:
            if made:
                with contextlib.suppress(LongshoreError):
                    storage.delete_file(target)
            raise
    elif model.uri.startswith(("http://", "https://")):
        yield storage.join(model.uri, STORE, archive.name)
    elif storage.is_local(model.uri):
        yield archive.absolute().as_uri()
    else:
        raise ConfigError(
            f"TorchServe does not read {model.uri}: say where its model store is (store), so that the archive is "
            "copied there, or at which http URL it finds the archive (archive_url)"
        )


def _copy(archive: Path, target: str) -> bool:
    """Whether there was none of that name."""
    try:
        with storage.open_read(target) as stream:
            there = _digest_of(stream)
    except StorageError:
        storage.copy_file(archive, target)
        return True
    if there != archive_digest(archive):
        raise ModelError(f"{target} is there with other content: versions are never overwritten, package a new one")
    return False
