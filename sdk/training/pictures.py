"""Pictures from a folder or an archive as a table."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final

import pandas as pd

from longshore import storage
from longshore.errors import DataError
from longshore.packaging.images import image_shape

__all__ = ["read_images"]

_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp"})
_SHOWN: Final = 5


def read_images(uri: str, *, label: str | None = "label") -> pd.DataFrame:
    """Read pictures, with the folder that each lies in as its label.

    Nothing is unpacked to disk: of an archive, only the content of its files is used, whatever their names say.

    Args:
        uri: Path or URI of a folder, searched with all its subfolders, or of a ``.zip``, ``.tar`` or ``.tar.gz``.
        label: Name of the column with the name of the folder; None for no such column.

    Returns:
        A row for each picture, in the order of their paths: ``file`` (its path below the folder), ``image`` (the
        file's bytes) and the label.

    Raises:
        StorageError: If there is nothing to read.
        DataError: If there are no pictures, a file is none, or one that needs a label lies in no folder.
    """
    rows, wrong = [], []
    for name, content in sorted(_contents(uri)):
        try:
            image_shape(content)
        except ValueError as error:
            wrong.append(f"{name}: {error}")
        rows.append({"file": name, "image": content, **({} if label is None else {label: _folder(uri, name)})})
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise DataError(f"{uri}: {len(wrong)} of {len(rows)} files cannot be used: {'; '.join(wrong[:_SHOWN])}{more}")
    if not rows:
        raise DataError(f"{uri} holds no pictures: their names end in {', '.join(sorted(_SUFFIXES))}")
    return pd.DataFrame(rows)


def _folder(uri: str, name: str) -> str:
    folder = PurePosixPath(name).parent.name
    if not folder:
        raise DataError(
            f"{uri}: {name} lies in no folder that would name its label: sort the pictures into a folder for each, or "
            "set label to null"
        )
    return folder


def _contents(uri: str) -> Iterator[tuple[str, bytes]]:
    if uri.lower().endswith((".zip", ".tar", ".tar.gz", ".tgz")):
        with storage.open_read(uri) as stream:
            content = stream.read()
        try:
            yield from _archived(content)
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
            raise DataError(f"{uri} is no archive that can be read: {error}") from error
        return
    yield from storage.read_tree(uri, _is_picture)


def _archived(content: bytes) -> Iterator[tuple[str, bytes]]:
    if content[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in filter(_is_picture, archive.namelist()):
                yield name, archive.read(name)
        return
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive.getmembers():
            stream = archive.extractfile(member) if member.isfile() and _is_picture(member.name) else None
            if stream is not None:
                yield member.name, stream.read()


def _is_picture(name: str) -> bool:
    path = PurePosixPath(name)
    # what macOS puts beside files in an archive is named like them
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in _SUFFIXES and not hidden
