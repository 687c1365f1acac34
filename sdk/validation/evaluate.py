"""Score a model on rows that it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from longshore.errors import ConfigError, DataError, ModelError
from longshore.spec import to_plain
from longshore.validation.curves import Calibration, RocCurve, calibration_curve, roc_curves
from longshore.validation.metrics import DEFAULT_METRIC, confusion_matrix, score
from longshore.validation.predictions import Array, Label, Predictions, Task, classification, regression, shown

if TYPE_CHECKING:
    import pandas as pd

    from longshore.packaging import LoadedModel

__all__ = ["Confusion", "Evaluation", "SliceScore", "evaluate", "evaluate_predictions", "predict"]

_SLICE_VALUES: Final = 10
_SLICE_RANGES: Final = 4
_FEW_ROWS: Final = 30
_PICTURES: Final = 1000
"""Pictures that are decoded at a time."""


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Which class was taken for which.

    Args:
        labels: The classes.
        matrix: Row i, column j: rows of class i that were predicted as class j.
    """

    labels: tuple[Label, ...]
    matrix: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class SliceScore:
    """Scores of the rows that have one value, or a range of values, in a column.

    Args:
        column: The column.
        value: The value as text, such as ``"Biscoe"``, ``"3.5 to 4.2"``, ``"(missing)"`` or ``"(other)"``.
        rows: Number of rows.
        metrics: Metrics that are defined for them.
    """

    column: str
    value: str
    rows: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All that was measured of one model on one set of rows.

    Args:
        task: What the model does.
        target: The column that it predicts.
        rows: Rows that were scored.
        metrics: Finite numbers by name (:data:`longshore.validation.metrics.METRICS`).
        undefined: For each metric that could not be computed, why.
        confusion: Classification only.
        roc: Classification with probabilities: the curve to show first, then one per class
            (:func:`longshore.validation.curves.roc_curves`).
        calibration: Classification with probabilities.
        slices: Scores by the columns that were asked for.
        notes: What a reader should know of the rows, such as how many were left out and why.
        predictions: The arrays that everything was computed from; the gate compares models by them.
    """

    task: Task
    target: str
    rows: int
    metrics: Mapping[str, float]
    undefined: Mapping[str, str]
    confusion: Confusion | None
    roc: tuple[RocCurve, ...]
    calibration: Calibration | None
    slices: tuple[SliceScore, ...]
    notes: tuple[str, ...]
    predictions: Predictions = field(repr=False, compare=False)

    @property
    def primary(self) -> str:
        """The metric that stands for the model where there is room for one."""
        return DEFAULT_METRIC[self.task]

    def to_dict(self) -> dict[str, Any]:
        """The numbers as JSON can hold them, without the predictions of single rows."""
        return {name: to_plain(getattr(self, name)) for name in self.__dataclass_fields__ if name != "predictions"}


def evaluate(model: LoadedModel, frame: pd.DataFrame, *, target: str, slices: Sequence[str] = ()) -> Evaluation:
    """Let a model predict and score it.

    Args:
        model: A model directory that was loaded.
        frame: Test rows with the target column. Rows whose target is missing are left out and noted.
        target: Column with the true answer.
        slices: Columns to score separately by: values of categories (the ten most frequent), ranges of numbers.

    Raises:
        ConfigError: If a slice is not a column.
        DataError: If the target is not a column, no row has it, the columns do not fit the model, or none of
            the labels is one that the model knows.
        ModelError: If the model's answers have a wrong form.
    """
    # a column that the model itself needs is told as such by predict
    _check_columns(frame, target, [name for name in slices if name not in model.card.signature.names])
    present = frame[target].notna()
    kept = frame.loc[present]
    predictions = predict(model, kept, target=target)
    notes = []
    if missing := int((~present).sum()):
        notes.append(f"{missing} of {len(frame)} rows were left out: {target!r} is missing in them.")
    return evaluate_predictions(
        predictions,
        target=target,
        slices={name: kept[name] for name in slices},
        notes=(*notes, *_unknown_labels(model, predictions)),
    )


def predict(model: LoadedModel, frame: pd.DataFrame, *, target: str) -> Predictions:
    """A model's answers for rows whose target is known; see :func:`evaluate` for the errors."""
    from longshore.packaging import conform

    if frame.empty:
        raise DataError(f"no row has a value in {target!r}: there is nothing to evaluate the model on")
    signature = model.card.signature
    pictures = any(column.kind == "image" for column in signature.inputs)
    step = _PICTURES if pictures else len(frame)
    answers = []
    for start in range(0, len(frame), step):
        inputs = conform(signature, frame[start : start + step])
        answers.append((model.predict(inputs, conformed=True), model.predict_proba(inputs, conformed=True)))
    predicted = np.concatenate([labels for labels, _ in answers])
    shares = None if answers[0][1] is None else np.concatenate([part for _, part in answers if part is not None])
    actual = frame[target].to_numpy()
    if signature.task == "regression":
        return regression(actual, predicted)
    classes = signature.classes
    if classes is None:
        raise ModelError("the model card of a classifier must list its classes, and this one does not")
    predictions = classification(actual, predicted, shares, classes=classes)
    if (predictions.actual >= len(classes)).all():
        found = [label for label in predictions.labels if label not in classes]
        raise DataError(
            f"none of the values of {target!r} is a class that the model knows: there are {shown(found)}, "
            f"the model predicts {shown(classes)}"
        )
    return predictions


def evaluate_predictions(
    predictions: Predictions,
    *,
    target: str,
    slices: Mapping[str, pd.Series] | None = None,
    notes: Sequence[str] = (),
) -> Evaluation:
    """Score predictions, from whatever model they are.

    Args:
        predictions: From :func:`longshore.validation.classification` or :func:`~longshore.validation.regression`.
        target: Name of what is predicted.
        slices: Columns to score separately by, with one value for each row of the predictions.
        notes: Kept in the result.
    """
    metrics, undefined = score(predictions)
    classifier = predictions.task == "classification"
    return Evaluation(
        task=predictions.task,
        target=target,
        rows=predictions.rows,
        metrics=metrics,
        undefined=undefined,
        confusion=_confusion(predictions) if classifier else None,
        roc=roc_curves(predictions) if classifier else (),
        calibration=calibration_curve(predictions) if classifier else None,
        slices=tuple(one for name, values in (slices or {}).items() for one in _slice(predictions, name, values)),
        notes=(*notes, *_few_rows(predictions)),
        predictions=predictions,
    )


def _check_columns(frame: pd.DataFrame, target: str, slices: Sequence[str]) -> None:
    columns = ", ".join(repr(str(c)) for c in frame.columns)
    if target not in frame.columns:
        raise DataError(f"the test rows have no column {target!r}; there are {columns}")
    for name in slices:
        if name not in frame.columns:
            raise ConfigError(f"cannot score by {name!r}: it is not a column; there are {columns}")


def _unknown_labels(model: LoadedModel, predictions: Predictions) -> list[str]:
    classes = model.card.signature.classes
    if classes is None:
        return []
    counts = np.bincount(predictions.actual, minlength=len(predictions.labels))
    return [
        f"The class {label!r} (test rows: {count}) was never seen in training, so its rows count as wrong."
        for label, count in zip(predictions.labels[len(classes) :], counts[len(classes) :], strict=True)
        if count
    ]


def _few_rows(predictions: Predictions) -> list[str]:
    if predictions.rows >= _FEW_ROWS:
        return []
    return [f"Only {predictions.rows} rows: the scores are little more than a guess."]


def _confusion(predictions: Predictions) -> Confusion:
    matrix = confusion_matrix(predictions)
    return Confusion(labels=predictions.labels, matrix=tuple(tuple(int(n) for n in row) for row in matrix))


def _slice(predictions: Predictions, column: str, values: pd.Series) -> list[SliceScore]:
    codes, names = _groups(values)
    found = []
    for code, name in enumerate(names):
        part = predictions.take(codes == code)
        if part.rows:
            found.append(SliceScore(column=column, value=name, rows=part.rows, metrics=score(part)[0]))
    return found


def _groups(values: pd.Series) -> tuple[Array, list[str]]:
    """Group of each row, and the names of the groups; the last one is for missing values."""
    import pandas as pd

    measured = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    dated = pd.api.types.is_datetime64_any_dtype(values)
    if (measured or dated) and values.nunique() > _SLICE_VALUES:
        # an infinite number has no place among quantiles and is grouped with what is missing
        finite = values.replace([np.inf, -np.inf], np.nan) if measured else values
        ranges, edges = pd.qcut(finite, _SLICE_RANGES, labels=False, retbins=True, duplicates="drop")
        names = [f"{low} to {high}" for low, high in pairwise(_bounds(edges))]
        codes = ranges.fillna(-1).to_numpy(dtype=np.intp)
    else:
        texts = values.astype(object).map(_plain_text, na_action="ignore")
        frequent = texts.value_counts().index[:_SLICE_VALUES]
        names = [*sorted(frequent, key=_natural), "(other)"]
        codes = pd.Index(names[:-1]).get_indexer(pd.Index(texts))
        codes = np.where((codes < 0) & texts.notna().to_numpy(), len(names) - 1, codes)
    return np.where(codes < 0, len(names), codes), [*names, "(missing)"]


def _plain_text(value: object) -> str:
    return f"{value:.17g}" if isinstance(value, float) and value.is_integer() else str(value)


def _natural(text: str) -> tuple[bool, float, str]:
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text


def _bounds(edges: Any) -> list[str]:
    """Bounds of ranges, as briefly as tells them apart."""
    patterns = ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S") if hasattr(edges[0], "strftime") else (".4g", ".6g", ".10g")
    written = ([format(edge, pattern) for edge in edges] for pattern in patterns)
    return next((texts for texts in written if len(set(texts)) == len(texts)), [str(edge) for edge in edges])
