"""Neural networks with the interface of the models that are trained from tables.

A network answers with one tensor: ``predict_proba`` ``[rows, classes]``, or ``predict`` ``[rows]`` of a regression.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from longshore.errors import ModelError
from longshore.packaging.card import ModelCard
from longshore.packaging.feeds import FeedReader

if TYPE_CHECKING:
    import pandas as pd

    Run = Callable[[Mapping[str, np.ndarray]], Any]

__all__ = ["PROBABILITIES", "VALUE", "NetworkClassifier", "NetworkRegressor", "as_model"]

PROBABILITIES: Final = "predict_proba"
VALUE: Final = "predict"

_ROWS: Final = 256
"""At most so many rows go through a network at once: what lies between its layers can be many times as large."""


class NetworkRegressor:
    """A network that answers with a number for each row.

    Args:
        run: Given the tensors, gives the network's answer.
        reader: Makes the tensors.
        where: The model, for messages.
    """

    def __init__(self, run: Run, reader: FeedReader, where: str) -> None:
        self._run, self._reader, self._where = run, reader, where

    def predict(self, features: pd.DataFrame | np.ndarray) -> np.ndarray:
        """A number for each row of a conformed frame, or of an array with its columns."""
        return self._answer(features, (len(features),))

    def _answer(self, features: pd.DataFrame | np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        parts = [self._run(self._reader(features[start : start + _ROWS])) for start in range(0, len(features), _ROWS)]
        answer = np.asarray(parts[0] if len(parts) == 1 else np.concatenate(parts), dtype=np.float64)
        if answer.shape != shape:
            raise ModelError(
                f"{self._where} answers {shape[0]} rows with the shape {list(answer.shape)}, and not {list(shape)}"
            )
        return answer


class NetworkClassifier(NetworkRegressor):
    """A network that answers with a probability for each class.

    Args:
        run: Given the tensors, gives the network's answer.
        reader: Makes the tensors.
        where: The model, for messages.
        classes: The labels, in the network's order.
    """

    def __init__(self, run: Run, reader: FeedReader, where: str, classes: Any) -> None:
        super().__init__(run, reader, where)
        self._classes = np.array(classes)
        self._last: tuple[Any, np.ndarray] | None = None

    def predict(self, features: pd.DataFrame | np.ndarray) -> np.ndarray:
        """The likeliest label for each row of a conformed frame, or of an array with its columns."""
        shares = self._answer(features, (len(features), len(self._classes)))
        self._last = features, shares
        labels: np.ndarray = self._classes[shares.argmax(axis=1)]
        return labels

    def predict_proba(self, features: pd.DataFrame | np.ndarray) -> np.ndarray:
        """A probability for each row and class."""
        # whoever wants both asks for the labels first, and the network is not to be run twice for it
        last, self._last = self._last, None
        if last is not None and last[0] is features:
            return last[1]
        return self._answer(features, (len(features), len(self._classes)))


def as_model(run: Run, reader: FeedReader, card: ModelCard, where: str) -> NetworkRegressor:
    """The model around a network.

    Args:
        run: Given the tensors, gives the network's answer.
        reader: Makes the tensors.
        card: The model's card.
        where: The model, for messages.
    """
    if card.task == "regression":
        return NetworkRegressor(run, reader, where)
    return NetworkClassifier(run, reader, where, card.signature.classes)
