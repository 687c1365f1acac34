"""Model directories on disk: write, digest, verify, and copy to a repository."""

from __future__ import annotations

import hashlib
import pickle
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from longshore import storage
from longshore.errors import DigestMismatch, ModelError, StorageError
from longshore.packaging.card import ModelCard
from longshore.packaging.mlserver import SETTINGS_FILE, mlserver_settings
from longshore.spec import ModelSource
from longshore.spec.checks import check_dns_label

__all__ = [
    "CARD_FILE",
    "EXPORT_FILE",
    "MODEL_FILE",
    "ONNX_FILE",
    "SAVED_MODEL_FILE",
    "SCRIPT_FILE",
    "TOKENIZER_FILE",
    "checked_file",
    "directory_digest",
    "package_model",
    "read_card",
    "save_files",
    "save_model",
    "save_onnx",
    "store",
    "verified_card",
    "verify",
]

CARD_FILE: Final = "model.json"
MODEL_FILE: Final = "model.joblib"
ONNX_FILE: Final = "model.onnx"
EXPORT_FILE: Final = "model.pt2"
SCRIPT_FILE: Final = "model.pt"
SAVED_MODEL_FILE: Final = "saved_model.pb"
TOKENIZER_FILE: Final = "tokenizer.json"

# joblib.load reads plain pickles too; the protocol is pinned so that a later default does not change digests
_PICKLE_PROTOCOL: Final = 5


def save_model(directory: Path, model: Any, card: ModelCard) -> str:
    """Write a model directory: whole, or not at all. MLServer loads it as it is (:mod:`longshore.packaging.mlserver`).

    Args:
        directory: Where to; what is there is replaced.
        model: A fitted scikit-learn estimator that takes a conformed DataFrame (see :mod:`longshore.packaging.frame`).
        card: Its card; ``files`` is filled in here.

    Returns:
        The directory's digest.

    Raises:
        StorageError: If it could not be written, a full disk among the reasons.
        ModelError: If the model cannot be pickled.
    """

    def write(work: Path) -> None:
        try:
            with (work / MODEL_FILE).open("wb") as stream:
                pickle.dump(model, stream, protocol=_PICKLE_PROTOCOL)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise ModelError(f"the model {type(model).__name__} cannot be stored: {error}") from error
        (work / SETTINGS_FILE).write_text(mlserver_settings(card, MODEL_FILE), encoding="utf-8")

    return save_files(directory, write, card)


def save_onnx(directory: Path, content: bytes, card: ModelCard) -> str:
    """Write the model directory of an ONNX file: whole, or not at all.

    Args:
        directory: Where to; what is there is replaced.
        content: The file's bytes.
        card: Its card, as :func:`longshore.training.describe_onnx` gives it; ``files`` is filled in here.

    Returns:
        The directory's digest.

    Raises:
        StorageError: If it could not be written.
    """
    return save_files(directory, lambda work: (work / ONNX_FILE).write_bytes(content), card)


def save_files(directory: Path, write: Callable[[Path], object], card: ModelCard) -> str:
    """Write a model directory of any files: whole, or not at all.

    Args:
        directory: Where to; what is there is replaced.
        write: Writes the model's files into the folder that it is given.
        card: Its card; ``files`` is filled in here.

    Returns:
        The directory's digest.

    Raises:
        StorageError: If it could not be written.
    """
    with storage.replace_directory(directory) as work:
        write(work)
        card = replace(card, files={name: _file_digest(path) for name, path in _files(work)})
        (work / CARD_FILE).write_text(card.to_json(), encoding="utf-8")
        return directory_digest(work)


def _stream_digest(stream: IO[bytes]) -> str:
    return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return _stream_digest(stream)


def _files(directory: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(directory.rglob("*"), key=lambda p: p.relative_to(directory).as_posix()):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            continue
        if not stat.S_ISREG(mode):
            what = "a symbolic link" if stat.S_ISLNK(mode) else "a special file"
            raise ModelError(f"{path} is {what}: a model directory holds plain files only")
        yield path.relative_to(directory).as_posix(), path


def directory_digest(directory: Path) -> str:
    """Digest of a directory's content.

    It is SHA-256 over one line for each file, ``<sha256 in hex>  <relative path>``, sorted by path: what
    ``sha256sum`` prints for the sorted files.

    Raises:
        ModelError: If it holds anything but plain files and folders.
        StorageError: If it cannot be read.
    """
    _check_directory(directory)
    try:
        return _combine({name: _file_digest(path) for name, path in _files(directory)})
    except OSError as error:
        raise StorageError(f"{directory} could not be read: {error.strerror or error}") from error


def _combine(digests: dict[str, str]) -> str:
    lines = "".join(f"{digests[name].removeprefix('sha256:')}  {name}\n" for name in sorted(digests))
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


def _check_directory(directory: Path) -> None:
    if not directory.is_dir():
        raise ModelError(f"{directory} is not a directory: a model is a directory with {CARD_FILE} and {MODEL_FILE}")


def read_card(directory: Path) -> ModelCard:
    """The card of a model directory.

    Raises:
        ModelError: If there is no card or it cannot be understood.
    """
    _check_directory(directory)
    path = directory / CARD_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        there = ", ".join(sorted(p.name for p in directory.iterdir())) or "nothing"
        raise ModelError(
            f"{directory} has no {CARD_FILE} (it holds: {there}); longshore's train steps write it"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    return ModelCard.from_json(text, where=str(path))


def verify(directory: Path, digest: str | None = None) -> None:
    """Check that a model directory is what was recorded.

    Args:
        directory: The model directory.
        digest: Digest of the whole directory; None checks the files against the directory's own card only, which
            finds damage but no tampering.

    Raises:
        DigestMismatch: If a file or the whole has other content.
        ModelError: If a file is missing, is not in the card, or is a link.
    """
    verified_card(directory, digest)


def verified_card(directory: Path, digest: str | None) -> tuple[ModelCard, str]:
    """What :func:`verify` does; gives the card, and the digest that the directory has."""
    _check_directory(directory)
    try:
        actual = {name: _file_digest(path) for name, path in _files(directory)}
    except OSError as error:
        raise StorageError(f"{directory} could not be read: {error.strerror or error}") from error
    # the whole first: a card that was tampered with is not even parsed
    found = _combine(actual)
    if digest is not None and found != digest:
        raise DigestMismatch(str(directory), digest, found)
    card = read_card(directory)
    _check_names(directory, card)
    if missing := sorted(set(card.files) - set(actual)):
        raise ModelError(f"{directory} is incomplete: {', '.join(missing)} is in {CARD_FILE} but not there")
    if extra := sorted(set(actual) - set(card.files) - {CARD_FILE}):
        raise ModelError(f"{directory} holds files that {CARD_FILE} does not name: {', '.join(extra)}")
    for name, expected in card.files.items():
        if actual[name] != expected:
            raise DigestMismatch(str(directory / name), expected, actual[name])
    return card, found


def checked_file(directory: Path, card: ModelCard, name: str) -> bytes:
    """The very bytes that were checked, even if the file changes meanwhile.

    Raises:
        DigestMismatch: If it has changed.
        ModelError: If the card names no such file.
    """
    if name not in card.files:
        raise ModelError(f"{directory} has no {name}: its format is {card.format!r}, which cannot be loaded here")
    content = (directory / name).read_bytes()
    actual = "sha256:" + hashlib.sha256(content).hexdigest()
    if actual != card.files[name]:
        raise DigestMismatch(str(directory / name), card.files[name], actual)
    return content


def _check_names(directory: Path, card: ModelCard) -> None:
    for name in card.files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ModelError(f"{directory / CARD_FILE} names a file outside of the directory: {name}")


def package_model(source: ModelSource, repository: str, *, name: str, version: str) -> ModelSource:
    """Copy a model to its place in a repository, ``<repository>/<name>/<version>``.

    The copy is verified before and after. A version that is there already with the same content is left as it is.

    Args:
        source: The model; its digest is checked where it has one.
        repository: Path or URI of the repository.
        name: Name that the model gets.
        version: Version that it gets, a string of digits.

    Returns:
        The model at its new place, with its digest.

    Raises:
        DigestMismatch: If the files are not those that were recorded.
        ModelError: If other content is stored there under that version.
        StorageError: If the source cannot be read or the repository cannot be written.
    """
    result = replace(source, name=name, version=version)
    with tempfile.TemporaryDirectory(prefix="longshore-") as scratch:
        local = storage.fetch_directory(source.uri, Path(scratch))
        verify(local, source.digest)
        uri, digest = store(local, repository, name=name, version=version)
        return replace(result, uri=uri, digest=digest)


def store(local: Path, repository: str, *, name: str, version: str) -> tuple[str, str]:
    """Copy a model directory to its place in a repository; see :func:`package_model`.

    Args:
        local: The directory.
        repository: Path or URI of the repository.
        name: Name that the model gets.
        version: Version that it gets, a string of digits.

    Returns:
        Its URI there, and its digest.
    """
    check_dns_label("name", name)
    target = storage.join(repository, name, version)
    digest = directory_digest(local)
    with tempfile.TemporaryDirectory(prefix="longshore-") as scratch:
        if _is_stored(target):
            existing = directory_digest(storage.fetch_directory(target, Path(scratch, "existing")))
            if existing != digest:
                raise ModelError(
                    f"{target} already holds another model ({existing}, the new one is {digest}): "
                    "versions are never overwritten, give the model a new one"
                )
            return str(storage.local_path(target).absolute()) if storage.is_local(target) else target, digest
        uri = storage.copy_tree(local, target, last=CARD_FILE)
        verify(storage.fetch_directory(uri, Path(scratch, "copy")), digest)
        return uri, digest


def _is_stored(uri: str) -> bool:
    # the card is uploaded last: where it is, the rest is too
    try:
        with storage.open_read(storage.join(uri, CARD_FILE)):
            return True
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return False
        raise
