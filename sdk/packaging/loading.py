"""Loading the model of a directory.

Loading a model runs code that the file holds (scikit-learn's is a pickle). The digest is checked first, but a digest
only shows that a file is the one that was recorded: load models from places that you trust.
"""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from longshore.errors import DataError, MissingExtra, ModelError
from longshore.packaging.card import ModelCard
from longshore.packaging.model import (
    EXPORT_FILE,
    MODEL_FILE,
    ONNX_FILE,
    SAVED_MODEL_FILE,
    SCRIPT_FILE,
    TOKENIZER_FILE,
    checked_file,
    verified_card,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from longshore.packaging.feeds import FeedReader

__all__ = ["LoadedModel", "extras_of", "load_model"]

_OPTIONAL_LIBRARIES: Final = {
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "onnxruntime": "onnx",
    "torch": "torch",
    "tensorflow": "tensorflow",
}

_log = logging.getLogger(__name__)


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
    card, found = verified_card(directory, digest)
    _check_libraries(directory, card)
    if card.format == "torchserve":
        return _packaged(directory, card, found)
    return LoadedModel(model=_load(directory, card), card=card, directory=directory, digest=found)


def _packaged(directory: Path, card: ModelCard, digest: str | None) -> LoadedModel:
    """The model in an archive for TorchServe: whoever has such a package needs no TorchServe to serve it."""
    from longshore.packaging.torchserve import model_within

    with tempfile.TemporaryDirectory(prefix="longshore-") as scratch:
        loaded = load_model(model_within(directory, card, Path(scratch)))
    return replace(loaded, directory=directory, digest=digest)


def _load(directory: Path, card: ModelCard) -> Any:
    if card.format == "tensorflow":
        from longshore.packaging.savedmodel import load_saved_model

        files = {name: checked_file(directory, card, name) for name in (SAVED_MODEL_FILE, *card.files)}
        return load_saved_model(files, card, str(directory))
    if card.format == "pytorch":
        from longshore.packaging.pytorch import load_pytorch

        name = SCRIPT_FILE if SCRIPT_FILE in card.files else EXPORT_FILE
        content = checked_file(directory, card, name)
        return load_pytorch(content, name, card, _reader(directory, card), f"{directory}/{name}")
    if card.format == "onnx":
        from longshore.packaging.onnx import load_onnx

        content = checked_file(directory, card, ONNX_FILE)
        return load_onnx(content, card, f"{directory}/{ONNX_FILE}", _reader(directory, card) if card.feeds else None)
    return _unpickle(directory / MODEL_FILE, checked_file(directory, card, MODEL_FILE))


def _reader(directory: Path, card: ModelCard) -> FeedReader:
    from longshore.packaging.feeds import FeedReader, load_tokenizer

    tokenize = None
    if TOKENIZER_FILE in card.files:
        content = checked_file(directory, card, TOKENIZER_FILE)
        tokenize = load_tokenizer(content, f"{directory}/{TOKENIZER_FILE}")
    return FeedReader(card.feeds, card.signature, tokenize)


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


def extras_of(card: ModelCard) -> tuple[str, ...]:
    """The extras of longshore that bring what a model is of, beside what every server has."""
    return tuple(extra for package, extra in _OPTIONAL_LIBRARIES.items() if package in card.libraries)


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
