"""Files behind URIs: everything that longshore reads from or writes to a store goes through here.

A path without a scheme and ``file://`` are the local file system and need no package beyond the core; any other
scheme is fsspec's, with the package that fsspec asks for (``longshore[s3]``, ``[gcs]``, ``[azure]``).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import unquote, urlsplit

from longshore.errors import InvalidValue, MissingExtra, StorageError
from longshore.spec.checks import check_uri

__all__ = [
    "copy_file",
    "copy_tree",
    "delete_file",
    "fetch_directory",
    "is_local",
    "join",
    "local_path",
    "open_read",
    "read_tree",
    "replace_directory",
    "write_file",
]

_EXTRAS: Final = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "azure", "az": "azure", "abfss": "azure"}


def is_local(uri: str) -> bool:
    """Whether ``uri`` names the local file system."""
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> Path:
    """The path of a local URI.

    Raises:
        InvalidValue: If the URI is not a local one.
    """
    if not is_local(uri):
        raise InvalidValue("uri", uri, "a path on this machine is needed here")
    if uri.startswith("file://"):
        return Path(unquote(urlsplit(uri).path))
    return Path(uri).expanduser()


def join(uri: str, *parts: str) -> str:
    """Append path segments to a path or URI; a segment that would leave it is refused."""
    for part in parts:
        if not part or part in (".", "..") or "/" in part or "\\" in part or "\0" in part:
            raise InvalidValue("path segment", part, "use one plain name")
    return "/".join([uri.rstrip("/"), *parts])


def _filesystem(uri: str) -> tuple[Any, str]:
    import fsspec

    check_uri("uri", uri)
    scheme = uri.partition("://")[0]
    try:
        fs, path = fsspec.core.url_to_fs(uri)
    except ImportError as error:
        package = (getattr(error, "name", None) or str(error)).partition(" ")[0]
        raise MissingExtra(f"{scheme}:// storage", package, _EXTRAS.get(scheme, scheme)) from error
    except ValueError as error:
        raise StorageError(f"{uri}: {error}") from error
    return fs, path


@contextmanager
def open_read(uri: str) -> Iterator[IO[bytes]]:
    """Open a file for reading bytes.

    Raises:
        StorageError: If it does not exist or cannot be read.
    """
    try:
        if is_local(uri):
            with local_path(uri).open("rb") as stream:
                yield stream
            return
        fs, path = _filesystem(uri)
        with fs.open(path, "rb") as stream:
            yield stream
    except FileNotFoundError as error:
        raise StorageError(f"{uri}: no such file{_seen_from(uri)}") from error
    except IsADirectoryError as error:
        raise StorageError(f"{uri} is a directory, a file is needed") from error
    except PermissionError as error:
        raise StorageError(f"{uri}: not allowed to read it ({error.strerror or error})") from error


def write_file(uri: str, content: bytes) -> None:
    """Write a file so that it appears whole or not at all, also if the machine dies meanwhile.

    Raises:
        StorageError: If it could not be written; what was there before still is.
    """
    try:
        if not is_local(uri):
            fs, path = _filesystem(uri)
            # object stores show an object once all of it is there
            fs.pipe_file(path, content)
            return
        target = local_path(uri)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=f".{target.name}.", dir=target.parent, delete=False) as stream:
            work = Path(stream.name)
            try:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
                work.replace(target)
            except BaseException:
                work.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise StorageError(f"{uri} could not be written: {error.strerror or error}") from error


def copy_file(source: Path, target_uri: str) -> None:
    """Copy a file of any size, so that it appears whole or not at all, and others may read it.

    Raises:
        StorageError: If it could not be written; what was there before still is.
    """
    try:
        if not is_local(target_uri):
            fs, path = _filesystem(target_uri)
            fs.put_file(str(source), path)
            return
        target = local_path(target_uri)
        descriptor, work = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(descriptor)
        try:
            shutil.copyfile(source, work)
            Path(work).chmod(0o644)
            Path(work).replace(target)
        except BaseException:
            Path(work).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError(f"{target_uri} could not be written: {error.strerror or error}") from error


def delete_file(uri: str) -> None:
    """Delete a file, if it is there.

    Raises:
        StorageError: If it could not be deleted.
    """
    try:
        if is_local(uri):
            local_path(uri).unlink(missing_ok=True)
            return
        fs, path = _filesystem(uri)
        fs.rm_file(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"{uri} could not be deleted: {error.strerror or error}") from error


def read_tree(uri: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """The files of a directory and all its subdirectories: path below the directory, and content.

    Args:
        uri: The directory.
        wanted: Given the path below it, says whether to read a file.

    Raises:
        StorageError: If there is no such directory, or a file cannot be read.
    """
    try:
        if is_local(uri):
            base = local_path(uri)
            if not base.is_dir():
                raise StorageError(f"{uri}: no such directory{_seen_from(uri)}")
            for path in sorted(base.rglob("*")):
                name = path.relative_to(base).as_posix()
                if wanted(name) and path.is_file():
                    yield name, path.read_bytes()
            return
        fs, root = _filesystem(uri)
        root = root.rstrip("/")
        found = fs.find(root)
        if not found:
            raise StorageError(f"{uri}: nothing is stored there")
        for path in sorted(found):
            name = path.lstrip("/").removeprefix(root.lstrip("/")).lstrip("/")
            if wanted(name):
                yield name, fs.cat_file(path)
    except OSError as error:
        raise StorageError(f"{uri} could not be read: {error.strerror or error}") from error


def _seen_from(uri: str) -> str:
    if not is_local(uri) or local_path(uri).is_absolute():
        return ""
    return f" (a relative path is looked up from {Path.cwd()})"


@contextmanager
def replace_directory(target: Path) -> Iterator[Path]:
    """Write a directory so that it appears whole or not at all.

    Yields a fresh folder beside ``target``. When the block ends without an error the folder takes the
    target's name; on any error, a full disk or Ctrl-C among them, the folder is removed and what stood at
    ``target`` before still stands there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield work
        work.chmod(0o755)
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
            target.rename(old / "content")
            work.rename(target)
            shutil.rmtree(old)
        else:
            work.rename(target)
    except OSError as error:
        raise StorageError(f"{target} could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def fetch_directory(uri: str, scratch: Path) -> Path:
    """A local directory with the content of ``uri``: itself where it is local, else a copy under ``scratch``.

    Raises:
        StorageError: If there is no such directory.
    """
    if is_local(uri):
        path = local_path(uri)
        if not path.is_dir():
            raise StorageError(f"{uri}: no such directory{_seen_from(uri)}")
        return path
    fs, remote = _filesystem(uri)
    target = scratch / "fetched"
    try:
        fs.get(remote.rstrip("/") + "/", f"{target}/", recursive=True)
    except FileNotFoundError as error:
        raise StorageError(f"{uri}: nothing is stored there") from error
    except OSError as error:
        raise StorageError(f"{uri} could not be read: {error}") from error
    return target


def copy_tree(source: Path, target_uri: str, *, last: str | None = None) -> str:
    """Copy a local directory to a path or URI and return that place as a URI.

    Args:
        source: The directory.
        target_uri: Where to.
        last: A file of it that is copied after all others, so that where it is the rest is too.

    Raises:
        StorageError: If it could not be written; a local target is then as it was before.
    """
    if is_local(target_uri):
        target = local_path(target_uri).absolute()
        with replace_directory(target) as work:
            shutil.copytree(source, work, dirs_exist_ok=True)
        return str(target)
    fs, path = _filesystem(target_uri)
    try:
        names = sorted(p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file())
        for name in sorted(names, key=lambda name: name == last):
            fs.put_file(str(source / name), f"{path.rstrip('/')}/{name}")
    except OSError as error:
        raise StorageError(f"{target_uri} could not be written: {error}") from error
    return target_uri
