"""ROC and calibration curves, cut down to as many points as a person or a user interface can use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from longshore.validation.metrics import auc, probability_fault
from longshore.validation.predictions import Array, FloatArray, Label, Predictions

__all__ = ["Calibration", "RocCurve", "calibration_curve", "roc_curves"]

_POINTS: Final = 100
_CLASS_CURVES: Final = 6
_BINS: Final = 10


@dataclass(frozen=True, kw_only=True)
class RocCurve:
    """Trade-off between false alarms and hits of one class.

    Args:
        label: The class, or None for the average over all (class, row) pairs ("micro average").
        fpr: Rising false-positive rates, from 0 to 1.
        tpr: The true-positive rate at each.
        thresholds: Probability from which on a row is called positive; the first one, at which none is, is above
            all probabilities and finite, since infinity is not valid JSON.
        auc: Area under the curve before it was cut down.
    """

    label: Label | None
    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    thresholds: tuple[float, ...]
    auc: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How often what is called p percent likely does happen, in ten bins of equal width (empty ones left out).

    Args:
        label: The class whose probability it is, or None for the probability of whichever class was predicted.
        predicted: Mean probability per bin.
        observed: Share of the bin's rows in which it was so.
        counts: Rows per bin.
        error: Expected calibration error: mean distance of the two, weighted by rows (Naeini et al. 2015).
    """

    label: Label | None
    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    counts: tuple[int, ...]
    error: float


def roc_curves(predictions: Predictions) -> tuple[RocCurve, ...]:
    """The ROC curves of a classifier.

    Returns:
        Two classes: the curve of the second. More: the micro average, then the most frequent classes, six at most.
        Empty where probabilities cannot be used or only one class occurs.
    """
    probabilities = predictions.probabilities
    if probabilities is None or probability_fault(predictions) or len(np.unique(predictions.actual)) < 2:
        return ()
    hits = np.eye(len(predictions.labels), dtype=bool)[predictions.actual]
    if len(predictions.labels) == 2:
        return (_roc(predictions.labels[1], hits[:, 1], probabilities[:, 1]),)
    frequent = np.argsort(-hits.sum(axis=0), kind="stable")[:_CLASS_CURVES]
    chosen = sorted(int(c) for c in frequent if hits[:, c].any())
    return (
        _roc(None, hits.ravel(), probabilities.ravel()),
        *(_roc(predictions.labels[c], hits[:, c], probabilities[:, c]) for c in chosen),
    )


def _roc(label: Label | None, positive: Array, scores: FloatArray) -> RocCurve:
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(positive[order])
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # equal scores make one step
    tpr = np.append(0.0, hits[ends] / hits[-1])
    fpr = np.append(0.0, (ends + 1 - hits[ends]) / (len(ranked) - hits[-1]))
    thresholds = np.append(ranked[0] + 1.0, ranked[ends])
    kept = _thin(fpr, tpr)
    return RocCurve(
        label=label,
        fpr=_floats(fpr[kept]),
        tpr=_floats(tpr[kept]),
        thresholds=_floats(thresholds[kept]),
        auc=auc(positive, scores),
    )


def _thin(fpr: FloatArray, tpr: FloatArray) -> Array:
    """Indices of points spread evenly along the curve, both ends among them."""
    if len(fpr) <= _POINTS:
        return np.arange(len(fpr))
    along = fpr + tpr  # never falls, from 0 to 2
    return np.unique(np.searchsorted(along, np.linspace(0.0, along[-1], _POINTS)))


def calibration_curve(predictions: Predictions) -> Calibration | None:
    """Calibration of a classifier: of the second of two classes, or of the predicted class where there are more.

    Returns:
        The curve, or None where probabilities cannot be used.
    """
    probabilities = predictions.probabilities
    if probabilities is None or probability_fault(predictions):
        return None
    if len(predictions.labels) == 2:
        label, chance, happened = predictions.labels[1], probabilities[:, 1], predictions.actual == 1
    else:
        top = probabilities.argmax(axis=1)
        label, chance, happened = None, probabilities.max(axis=1), predictions.actual == top
    bins = np.minimum((chance * _BINS).astype(np.intp), _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    used = counts > 0
    predicted = np.bincount(bins, weights=chance, minlength=_BINS)[used] / counts[used]
    observed = np.bincount(bins, weights=happened, minlength=_BINS)[used] / counts[used]
    return Calibration(
        label=label,
        predicted=_floats(predicted),
        observed=_floats(observed),
        counts=tuple(int(n) for n in counts[used]),
        error=float(np.average(np.abs(predicted - observed), weights=counts[used])),
    )


def _floats(values: FloatArray) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
