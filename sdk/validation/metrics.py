"""The scores: plain functions of arrays, each with the definition that scikit-learn documents under its name.

They are written out here because the gate computes them over a thousand resamples at once: the functions of
confusion matrices work on a stack of matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from longshore.errors import ConfigError
from longshore.validation.predictions import Array, FloatArray, Predictions, Task

__all__ = [
    "COUNT_SCORES",
    "DEFAULT_METRIC",
    "METRICS",
    "MetricInfo",
    "auc",
    "confusion_matrix",
    "metric_info",
    "probability_fault",
    "row_losses",
    "score",
]


@dataclass(frozen=True, kw_only=True)
class MetricInfo:
    """A metric as people need to know it.

    Args:
        name: Name in thresholds, reports and metadata.
        task: The kind of model that it scores.
        higher_is_better: False for errors, whose threshold is an upper bound.
        meaning: One sentence for a report.
    """

    name: str
    task: Task
    higher_is_better: bool
    meaning: str


def _info(task: Task, higher: bool, **meanings: str) -> dict[str, MetricInfo]:
    return {
        name: MetricInfo(name=name, task=task, higher_is_better=higher, meaning=meaning)
        for name, meaning in meanings.items()
    }


METRICS: Final[Mapping[str, MetricInfo]] = MappingProxyType(
    {
        **_info(
            "classification",
            True,
            accuracy="Share of rows whose class was predicted rightly.",
            balanced_accuracy="Mean over the classes of the share of their rows that was found.",
            f1_macro="Mean over the classes of the harmonic mean of precision and recall.",
            precision_macro="Mean over the classes of the share of predictions of the class that were right.",
            recall_macro="Mean over the classes of the share of rows of the class that were found.",
            roc_auc="Chance that a row of the class is ranked above a row of another; mean over the classes.",
        ),
        **_info("classification", False, log_loss="Mean negative logarithm of the probability of the true class."),
        **_info(
            "regression",
            False,
            rmse="Root of the mean squared error, in units of the target.",
            mae="Mean absolute error, in units of the target.",
            mape="Mean absolute error as a share of the true value.",
        ),
        **_info("regression", True, r2="Share of the target's variance that the model explains."),
    }
)
"""All metrics by name."""

DEFAULT_METRIC: Final[Mapping[Task, str]] = MappingProxyType({"classification": "f1_macro", "regression": "rmse"})
"""What two models are compared by unless told otherwise: neither is fooled by one class being frequent."""


_SLACK: Final = 1e-3
"""By how much probabilities in single precision may miss the range from 0 to 1, and their sum 1."""


def metric_info(name: str, task: Task) -> MetricInfo:
    """The metric of that name.

    Raises:
        ConfigError: If there is none, or it does not score this kind of model.
    """
    known = [info.name for info in METRICS.values() if info.task == task]
    if name not in METRICS:
        raise ConfigError(f"{name!r} is not a metric; a {task} model is scored by {', '.join(known)}")
    if METRICS[name].task != task:
        raise ConfigError(f"{name!r} does not score a {task} model; use one of {', '.join(known)}")
    return METRICS[name]


def confusion_matrix(predictions: Predictions) -> Array:
    """Rows per true class (first axis) and predicted class (second axis), in the order of the labels."""
    size = len(predictions.labels)
    cells = predictions.actual * size + predictions.predicted
    return np.bincount(cells, minlength=size * size).reshape(size, size)


def _accuracy(matrix: Array) -> FloatArray:
    return _ratio(np.trace(matrix, axis1=-2, axis2=-1), matrix.sum(axis=(-2, -1)))


def _parts(matrix: Array) -> tuple[Array, Array, Array]:
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    return hits, matrix.sum(axis=-1), matrix.sum(axis=-2)


def _ratio(part: Array, whole: Array) -> FloatArray:
    shares = np.zeros(np.broadcast(part, whole).shape)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def _mean_where(values: FloatArray, where: Array) -> FloatArray:
    count = where.sum(axis=-1)
    total = np.where(where, values, 0.0).sum(axis=-1)
    means = np.full(np.shape(count), np.nan)
    np.divide(total, count, out=means, where=count > 0)
    return means


def _balanced_accuracy(matrix: Array) -> FloatArray:
    hits, actual, _ = _parts(matrix)
    return _mean_where(_ratio(hits, actual), actual > 0)


def _recall_macro(matrix: Array) -> FloatArray:
    hits, actual, predicted = _parts(matrix)
    return _mean_where(_ratio(hits, actual), actual + predicted > 0)


def _precision_macro(matrix: Array) -> FloatArray:
    hits, actual, predicted = _parts(matrix)
    return _mean_where(_ratio(hits, predicted), actual + predicted > 0)


def _f1_macro(matrix: Array) -> FloatArray:
    hits, actual, predicted = _parts(matrix)
    return _mean_where(_ratio(2 * hits, actual + predicted), actual + predicted > 0)


COUNT_SCORES: Final[Mapping[str, Callable[[Array], FloatArray]]] = MappingProxyType(
    {
        "accuracy": _accuracy,
        "balanced_accuracy": _balanced_accuracy,
        "f1_macro": _f1_macro,
        "precision_macro": _precision_macro,
        "recall_macro": _recall_macro,
    }
)
"""Metrics that are functions of the confusion matrix, over stacks of matrices of shape (..., classes, classes)."""


def auc(positive: Array, scores: FloatArray) -> float:
    """Area under the ROC curve of one class against the rest, ties counted half (Mann-Whitney U statistic).

    Returns:
        The area; NaN unless there are rows of both kinds.
    """
    good, bad = scores[positive], np.sort(scores[~positive])
    if not len(good) or not len(bad):
        return float("nan")
    below = np.searchsorted(bad, good, side="left") + np.searchsorted(bad, good, side="right")
    return float(below.sum() / (2.0 * len(good) * len(bad)))


def auc_columns(labels: int) -> range:
    """The columns of the probabilities whose areas are averaged: of two classes one says all."""
    return range(1, 2) if labels == 2 else range(labels)


def _roc_auc(predictions: Predictions, probabilities: FloatArray) -> float:
    areas = np.array([auc(predictions.actual == c, probabilities[:, c]) for c in auc_columns(len(predictions.labels))])
    areas = areas[~np.isnan(areas)]
    return float(areas.mean()) if len(areas) else float("nan")


def row_losses(name: str, predictions: Predictions) -> FloatArray:
    """The loss of each row of a metric that is a mean over rows; for ``rmse`` and ``r2`` the squared error."""
    if name == "log_loss":
        probabilities = predictions.probabilities
        if probabilities is None:
            raise ConfigError("log_loss needs a model that gives probabilities")
        chosen = probabilities[np.arange(predictions.rows), predictions.actual]
        return np.asarray(-np.log(np.clip(chosen, np.finfo(np.float64).eps, 1.0)), dtype=np.float64)
    with np.errstate(over="ignore"):  # told as an undefined metric
        if name == "mae":
            return np.abs(predictions.residuals)
        if name == "mape":
            return np.asarray(np.abs(predictions.residuals / predictions.actual), dtype=np.float64)
        return np.asarray(predictions.residuals**2, dtype=np.float64)


def probability_fault(predictions: Predictions) -> str | None:
    """Why the probabilities cannot be scored, or None if they can."""
    if predictions.probabilities is None:
        return "the model gives no probabilities"
    if bad := int((~np.isfinite(predictions.probabilities)).any(axis=1).sum()):
        return f"the model's probabilities are not finite in {bad} of {predictions.rows} rows"
    off = np.abs(predictions.probabilities.sum(axis=1) - 1.0) > _SLACK
    outside = ((predictions.probabilities < -_SLACK) | (predictions.probabilities > 1 + _SLACK)).any(axis=1)
    if bad := int((off | outside).sum()):
        return f"the model's probabilities do not add up to 1 in {bad} of {predictions.rows} rows"
    return None


def score(predictions: Predictions) -> tuple[dict[str, float], dict[str, str]]:
    """All metrics of a model.

    Returns:
        The metrics that are defined, all finite, and for the others the reason why they are not.
    """
    if predictions.task == "regression":
        return _score_regression(predictions)
    return _score_classification(predictions)


def _score_classification(predictions: Predictions) -> tuple[dict[str, float], dict[str, str]]:
    matrix = confusion_matrix(predictions)
    metrics = {name: float(function(matrix)) for name, function in COUNT_SCORES.items()}
    probabilities, fault = predictions.probabilities, probability_fault(predictions)
    if fault or probabilities is None:
        return metrics, dict.fromkeys(("roc_auc", "log_loss"), fault or "")
    metrics["log_loss"] = float(row_losses("log_loss", predictions).mean())
    area = _roc_auc(predictions, probabilities)
    if np.isnan(area):
        return metrics, {"roc_auc": "all rows are of one class"}
    return {**metrics, "roc_auc": area}, {}


def _score_regression(predictions: Predictions) -> tuple[dict[str, float], dict[str, str]]:
    bad = int((~np.isfinite(predictions.predicted)).sum())
    if bad:
        fault = f"the model's prediction is not a finite number in {bad} of {predictions.rows} rows"
        return {}, dict.fromkeys(("rmse", "mae", "mape", "r2"), fault)
    with np.errstate(over="ignore", invalid="ignore"):  # told as an undefined metric
        metrics, undefined = _score_finite(predictions)
    overflow = {name: "the errors are too large for a number" for name, v in metrics.items() if not np.isfinite(v)}
    return {name: v for name, v in metrics.items() if name not in overflow}, {**undefined, **overflow}


def _score_finite(predictions: Predictions) -> tuple[dict[str, float], dict[str, str]]:
    actual = predictions.actual
    squared = row_losses("rmse", predictions).mean()
    metrics = {"rmse": float(np.sqrt(squared)), "mae": float(row_losses("mae", predictions).mean())}
    undefined = {}
    # by the extremes, since rounding gives equal values a tiny variance
    variance = np.var(actual) if actual.min() < actual.max() else np.float64(0.0)
    if variance > 0:
        metrics["r2"] = float(1.0 - squared / variance)
    else:
        undefined["r2"] = "the target has the same value in all rows"
    if (actual == 0).any():
        undefined["mape"] = "the target is 0 in some rows, so an error has no share of it"
    else:
        metrics["mape"] = float(row_losses("mape", predictions).mean())
    return metrics, undefined
