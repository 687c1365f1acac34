"""The predictor behind every web framework: a loaded model, and what it has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longshore.packaging import LoadedModel, ModelCard, bin_counts, load_model, rows_to_frame
from longshore.serving.metrics import Metrics

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Prediction", "Predictor"]

Row = Mapping[str, Any] | Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Answers for the rows of one request.

    Args:
        values: A class or a number for each row.
        probabilities: For each row, a probability for each class in the order of the signature's classes; None if
            they were not asked for or the model has none.
    """

    values: list[Any]
    probabilities: list[list[float]] | None = None


class Predictor:
    """One model under one name.

    Args:
        model: The loaded model.
        name: Its name in request paths.
        digest: Digest of its directory.
        version: Its version in the registry.
        revision: The revision that serves it.
    """

    def __init__(
        self, model: LoadedModel, *, name: str, digest: str | None, version: str | None, revision: str
    ) -> None:
        self._model = model
        self.name, self.digest, self.version, self.revision = name, digest, version, revision
        self.metrics = Metrics(model=name, version=version, revision=revision, digest=digest)

    @classmethod
    def load(cls, model_dir: Path, *, name: str, digest: str | None, version: str | None, revision: str) -> Predictor:
        """Load a model directory; the digest is checked before anything in it is executed.

        The first prediction is made here, on the card's example: it is slow, and if the model cannot predict at
        all that is better known before it has traffic.

        Raises:
            ModelError: If the directory is no model, or not the one that was recorded.
        """
        predictor = cls(load_model(model_dir, digest), name=name, digest=digest, version=version, revision=revision)
        signature = predictor.card.signature
        predictor._answers(rows_to_frame(signature, predictor.card.example), probabilities=True)
        return predictor

    @property
    def card(self) -> ModelCard:
        """The model's card."""
        return self._model.card

    def predict(
        self, rows: Sequence[Row], *, columns: Sequence[str] | None = None, probabilities: bool = False
    ) -> Prediction:
        """Predict raw rows and count them for drift.

        Args:
            rows: Mappings from column to value, or sequences in the order of ``columns``.
            columns: Columns of rows that are sequences; by default those of the signature.
            probabilities: Whether to give the probability of each class as well.

        Raises:
            InputError: If rows do not fit the signature.
        """
        frame = rows_to_frame(self.card.signature, rows, columns=columns)
        prediction = self._answers(frame, probabilities=probabilities)
        self.metrics.count_bins(bin_counts(self.card.baseline, frame))
        return prediction

    def _answers(self, frame: Any, *, probabilities: bool) -> Prediction:
        values = _plain(self._model.predict(frame, conformed=True))
        shares = self._model.predict_proba(frame, conformed=True) if probabilities else None
        return Prediction(values=values, probabilities=None if shares is None else _plain(shares))


def _plain(array: np.ndarray) -> list[Any]:
    values: list[Any] = array.tolist()
    return values
