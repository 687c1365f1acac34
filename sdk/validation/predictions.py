"""What a model answered for rows whose true answer is known: the arrays that every score is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from longshore.errors import DataError, ModelError

__all__ = ["Label", "Predictions", "Task", "align", "classification", "regression"]

Task = Literal["classification", "regression"]
Label = str | int | float | bool
FloatArray = npt.NDArray[np.float64]
Array = npt.NDArray[Any]

_SHOWN: Final = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """True and predicted values of the same rows, in the same order.

    Build it with :func:`classification` or :func:`regression`, which check the arrays.

    Args:
        task: What the model does.
        actual: Classification: index into ``labels``. Regression: the true value.
        predicted: The model's answer, in the form of ``actual``.
        labels: Classes in the order of the columns of ``probabilities``; empty for regression.
        probabilities: One column per label, or None where the model gives none.
    """

    task: Task
    actual: Array
    predicted: Array
    labels: tuple[Label, ...] = ()
    probabilities: FloatArray | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.actual)

    @property
    def residuals(self) -> FloatArray:
        """True minus predicted value of each row (regression)."""
        return np.asarray(self.actual - self.predicted, dtype=np.float64)

    def take(self, rows: Array) -> Predictions:
        """The predictions of some rows, given as a boolean mask or as indices."""
        return replace(
            self,
            actual=self.actual[rows],
            predicted=self.predicted[rows],
            probabilities=None if self.probabilities is None else self.probabilities[rows],
        )


def classification(
    actual: Any,
    predicted: Any,
    probabilities: Any = None,
    *,
    classes: Sequence[Label] | None = None,
) -> Predictions:
    """Predictions of a classifier.

    Args:
        actual: The true label of each row.
        predicted: The predicted label of each row.
        probabilities: One row each, one column per class in the order of ``classes``.
        classes: The classes that the model knows; needed with ``probabilities``. Without it the labels that
            occur, sorted.

    Returns:
        The predictions. Labels which occur and which the model does not know follow its classes; the model gives
        them probability 0.

    Raises:
        DataError: If there are no rows, or true labels are missing.
        ModelError: If the model's answers are missing or not of the right shape.
    """
    true, guess = _vector(actual), _vector(predicted)
    _check_lengths(true, guess)
    true_codes, true_values = _factorize(true)
    guess_codes, guess_values = _factorize(guess)
    if (true_codes < 0).any():
        raise DataError(f"the true label is missing in {int((true_codes < 0).sum())} of {len(true)} rows")
    if (guess_codes < 0).any():
        raise ModelError(f"the model predicted no class in {int((guess_codes < 0).sum())} of {len(guess)} rows")
    known = tuple(_scalar(c) for c in classes or ())
    labels = known + _sorted({*true_values, *guess_values} - set(known))
    index = {label: i for i, label in enumerate(labels)}
    return Predictions(
        task="classification",
        actual=np.array([index[v] for v in true_values], dtype=np.intp)[true_codes],
        predicted=np.array([index[v] for v in guess_values], dtype=np.intp)[guess_codes],
        labels=labels,
        probabilities=_probabilities(probabilities, len(true), len(known), len(labels)),
    )


def regression(actual: Any, predicted: Any) -> Predictions:
    """Predictions of a regression model.

    Args:
        actual: The true value of each row.
        predicted: The predicted value of each row; values that are not finite make the scores undefined.

    Raises:
        DataError: If there are no rows, or true values are missing, infinite or not numbers.
        ModelError: If the model's answers are not numbers, or not one for each row.
    """
    true, guess = _vector(actual), _vector(predicted)
    _check_lengths(true, guess)
    try:
        true = true.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"the true values are not all numbers: {error}") from error
    try:
        guess = guess.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ModelError(f"the model's predictions are not all numbers: {error}") from error
    if bad := int((~np.isfinite(true)).sum()):
        raise DataError(f"the true value is missing or infinite in {bad} of {len(true)} rows")
    return Predictions(task="regression", actual=true, predicted=guess)


def align(one: Predictions, other: Predictions) -> tuple[Predictions, Predictions]:
    """Two classifiers' predictions over one common set of labels; regression comes back as it is."""
    labels = one.labels + tuple(label for label in other.labels if label not in one.labels)
    return _relabel(one, labels), _relabel(other, labels)


def _relabel(predictions: Predictions, labels: tuple[Label, ...]) -> Predictions:
    if predictions.labels == labels:
        return predictions
    position = np.array([labels.index(label) for label in predictions.labels], dtype=np.intp)
    probabilities = None
    if predictions.probabilities is not None:
        probabilities = np.zeros((predictions.rows, len(labels)))
        probabilities[:, position] = predictions.probabilities
    return replace(
        predictions,
        actual=position[predictions.actual],
        predicted=position[predictions.predicted],
        labels=labels,
        probabilities=probabilities,
    )


def _vector(values: Any) -> Array:
    # as objects, since numpy makes the word "nan" of what is missing in a list of strings
    array = values if isinstance(values, np.ndarray) else np.asarray(values, dtype=object)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ModelError(f"one value per row is needed, not an array of shape {array.shape}")
    return array


def _check_lengths(actual: Array, predicted: Array) -> None:
    if not len(actual):
        raise DataError("there are no rows to evaluate the model on")
    if len(actual) != len(predicted):
        raise ModelError(f"the model gave {len(predicted)} predictions for {len(actual)} rows")


def _factorize(values: Array) -> tuple[npt.NDArray[np.intp], list[Label]]:
    import pandas as pd

    codes, uniques = pd.factorize(values.astype(object))
    return codes, [_scalar(value) for value in uniques]


def _scalar(value: Any) -> Label:
    plain = value.item() if isinstance(value, np.generic) else value
    return plain if isinstance(plain, (str, int, float, bool)) else str(plain)


def _sorted(labels: set[Label]) -> tuple[Label, ...]:
    # numbers before text, so that labels of several types have an order too
    return tuple(sorted(labels, key=lambda v: (isinstance(v, str), 0 if isinstance(v, str) else v, str(v))))


def _probabilities(values: Any, rows: int, known: int, labels: int) -> FloatArray | None:
    if values is None:
        return None
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ModelError(f"the model's probabilities are not all numbers: {error}") from error
    if array.shape != (rows, known):
        raise ModelError(
            f"the model's probabilities have the shape {array.shape}; {rows} rows and {known} classes need "
            f"{(rows, known)}"
        )
    return np.hstack([array, np.zeros((rows, labels - known))])


def shown(labels: Sequence[object]) -> str:
    """A few labels for a message."""
    text = ", ".join(repr(label) for label in labels[:_SHOWN])
    return text if len(labels) <= _SHOWN else f"{text} and {len(labels) - _SHOWN} more"
