"""Model directories on disk: write, digest, verify, load, and copy to a repository.

Loading a model runs code that the file holds (it is a pickle). The digest is checked first, but a digest only
shows that a file is the one that was recorded: load models from places that you trust.
"""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import stat
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Final

from longshore import storage
from longshore.errors import DataError, DigestMismatch, MissingExtra, ModelError, StorageError
from longshore.packaging.card import ModelCard
from longshore.spec import ModelSource
from longshore.spec.checks import check_dns_label

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = [
    "CARD_FILE",
    "MODEL_FILE",
    "LoadedModel",
    "directory_digest",
    "load_model",
    "package_model",
    "read_card",
    "save_model",
    "save_onnx",
    "verify",
]

CARD_FILE: Final = "model.json"
MODEL_FILE: Final = "model.joblib"

_ONNX_FILE: Final = "model.onnx"
_OPTIONAL_LIBRARIES: Final = {"xgboost": "xgboost", "lightgbm": "lightgbm", "onnxruntime": "onnx"}

# joblib.load reads plain pickles too; the protocol is pinned so that a later default does not change digests
_PICKLE_PROTOCOL: Final = 5

_log = logging.getLogger(__name__)


def save_model(directory: Path, model: Any, card: ModelCard) -> str:
    """Write a model directory: whole, or not at all.

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
    with storage.replace_directory(directory) as work:
        path = work / MODEL_FILE
        try:
            with path.open("wb") as stream:
                pickle.dump(model, stream, protocol=_PICKLE_PROTOCOL)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise ModelError(f"the model {type(model).__name__} cannot be stored: {error}") from error
        return _complete(work, path, card)


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
    with storage.replace_directory(directory) as work:
        path = work / _ONNX_FILE
        path.write_bytes(content)
        return _complete(work, path, card)


def _complete(work: Path, path: Path, card: ModelCard) -> str:
    """Write the card beside the model's file; gives the digest of both."""
    card = replace(card, files={path.name: _file_digest(path)})
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
    _verified_card(directory, digest)


def _verified_card(directory: Path, digest: str | None) -> tuple[ModelCard, str]:
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


def _check_names(directory: Path, card: ModelCard) -> None:
    for name in card.files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ModelError(f"{directory / CARD_FILE} names a file outside of the directory: {name}")


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A verified model, ready to predict.

    Args:
        model: The fitted estimator, or what has its ``predict`` and, for probabilities, ``predict_proba``.
        card: Its card.
        directory: Where it was loaded from.
        digest: Digest that the directory had then.
    """

    model: Any
    card: ModelCard
    directory: Path
    digest: str | None = None

    def predict(self, frame: pd.DataFrame | np.ndarray, *, conformed: bool = False) -> np.ndarray:
        """Predict one value for each row.

        Args:
            frame: Rows with the model's columns; the target and ignored columns may be present.
            conformed: The frame comes from :func:`longshore.packaging.frame.conform` or ``rows_to_frame``, which
                then is not done again; or it is an array, of a model that takes those
                (:func:`longshore.packaging.arrays.take_arrays`).

        Returns:
            Labels as in the training data, or numbers.

        Raises:
            DataError: If there are no rows, or columns or values do not fit the signature.
        """
        result: np.ndarray = self.model.predict(frame if conformed else self._conform(frame))
        return result

    def predict_proba(self, frame: pd.DataFrame | np.ndarray, *, conformed: bool = False) -> np.ndarray | None:
        """Probabilities, a column for each of ``card.signature.classes``; None where the model has none.

        Args:
            frame: As for :meth:`predict`.
            conformed: As for :meth:`predict`.

        Raises:
            DataError: If there are no rows, or columns or values do not fit the signature.
        """
        if self.card.task != "classification" or not hasattr(self.model, "predict_proba"):
            return None
        result: np.ndarray = self.model.predict_proba(frame if conformed else self._conform(frame))
        return result

    def _conform(self, frame: pd.DataFrame | np.ndarray) -> pd.DataFrame:
        import pandas as pd

        from longshore.packaging.frame import conform

        if not isinstance(frame, pd.DataFrame):
            raise DataError(f"a table with the model's columns is needed, not {type(frame).__name__}")
        if frame.empty:
            raise DataError("there are no rows to predict")
        return conform(self.card.signature, frame)


def load_model(directory: Path, digest: str | None = None) -> LoadedModel:
    """Verify a model directory and load it.

    Args:
        directory: The model directory.
        digest: The recorded digest; give it wherever it is known.

    Raises:
        DigestMismatch: If the content is not what was recorded; nothing of it has been run then.
        MissingExtra: If a library that the model needs is not installed.
        ModelError: If the directory is incomplete or the model cannot be loaded.
    """
    card, found = _verified_card(directory, digest)
    _check_libraries(directory, card)
    name = _ONNX_FILE if card.format == "onnx" else MODEL_FILE
    if name not in card.files:
        raise ModelError(f"{directory} has no {name}: its format is {card.format!r}, which cannot be loaded here")
    path = directory / name
    # the very bytes that were checked are loaded, even if the file changes meanwhile
    content = path.read_bytes()
    actual = "sha256:" + hashlib.sha256(content).hexdigest()
    if actual != card.files[name]:
        raise DigestMismatch(str(path), card.files[name], actual)
    if card.format == "onnx":
        from longshore.packaging.onnx import load_onnx

        return LoadedModel(model=load_onnx(content, card, str(path)), card=card, directory=directory, digest=found)
    return LoadedModel(model=_unpickle(path, content), card=card, directory=directory, digest=found)


def _unpickle(path: Path, content: bytes) -> Any:
    import joblib

    try:
        with warnings.catch_warnings():
            # _check_libraries has told it in clearer words
            warnings.filterwarnings("ignore", module="sklearn", message="Trying to unpickle")
            return joblib.load(io.BytesIO(content))
    except ModuleNotFoundError as error:
        raise ModelError(f"{path} needs the module {error.name!r}, which is not installed here") from error
    except Exception as error:
        raise ModelError(
            f"{path} could not be loaded ({type(error).__name__}: {error}): "
            "the versions of its libraries in model.json and those installed here may be too far apart"
        ) from error


def _check_libraries(directory: Path, card: ModelCard) -> None:
    for package, extra in _OPTIONAL_LIBRARIES.items():
        if package in card.libraries and find_spec(package) is None:
            raise MissingExtra(f"the model {directory}", package, extra)
    recorded = card.libraries.get("scikit-learn")
    if recorded is None:
        return
    import sklearn

    if sklearn.__version__ != recorded:
        _log.warning(
            "The model %s was trained with scikit-learn %s and is loaded with %s: "
            "predictions may differ; install the same version to be safe.",
            directory,
            recorded,
            sklearn.__version__,
        )


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
    check_dns_label("name", name)
    target = storage.join(repository, name, version)
    result = replace(source, uri=target, name=name, version=version)
    with tempfile.TemporaryDirectory(prefix="longshore-") as scratch:
        local = storage.fetch_directory(source.uri, Path(scratch, "source"))
        verify(local, source.digest)
        digest = directory_digest(local)
        if _is_stored(target):
            existing = directory_digest(storage.fetch_directory(target, Path(scratch, "existing")))
            if existing != digest:
                raise ModelError(
                    f"{target} already holds another model ({existing}, the new one is {digest}): "
                    "versions are never overwritten, give the model a new one"
                )
            uri = str(storage.local_path(target).absolute()) if storage.is_local(target) else target
        else:
            uri = storage.copy_tree(local, target)
            verify(storage.fetch_directory(uri, Path(scratch, "copy")), digest)
        return replace(result, uri=uri, digest=digest)


def _is_stored(uri: str) -> bool:
    # the card sorts last, so it is uploaded last: where it is, the rest is too
    try:
        with storage.open_read(storage.join(uri, CARD_FILE)):
            return True
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return False
        raise
