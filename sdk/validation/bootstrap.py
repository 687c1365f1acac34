"""The paired bootstrap: how much of the difference of two models is due to which rows happened to be tested.

Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 13 (percentile interval) and 16: the test rows
are drawn again with replacement, both models are scored on the same draw, and the spread of the differences is the
spread to expect from other test rows. Pairing removes what is hard or easy for both models alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from longshore.validation.metrics import COUNT_SCORES, METRICS, auc_columns, row_losses
from longshore.validation.predictions import Array, FloatArray, Predictions, align

__all__ = ["interval", "paired_gains"]

_CELLS: Final = 2_000_000
"""Numbers held at once: a thousand resamples of large tables are worked through in parts."""


def paired_gains(
    metric: str, candidate: Predictions, champion: Predictions, *, resamples: int, seed: int
) -> FloatArray:
    """By how much the candidate is better than the champion, in each resample of the rows.

    Args:
        metric: A metric that is defined for both.
        candidate: Predictions of one model.
        champion: Predictions of the other for the same rows.
        resamples: Number of resamples.
        seed: Same seed, same resamples.

    Returns:
        One gain per resample, positive where the candidate is better; NaN where a resample leaves the metric undefined.
    """
    candidate, champion = align(candidate, champion)
    rng = np.random.default_rng(seed)
    if metric in COUNT_SCORES:
        scores = _count_scores(metric, candidate, champion, resamples, rng)
    elif metric == "roc_auc":
        scores = _areas(candidate, champion, resamples, rng)
    else:
        scores = _mean_scores(metric, candidate, champion, resamples, rng)
    sign = 1.0 if METRICS[metric].higher_is_better else -1.0
    return np.asarray(sign * (scores[0] - scores[1]) + 0.0, dtype=np.float64)  # no -0.0, which reads as a loss


def interval(gains: FloatArray, confidence: float) -> tuple[float, float] | None:
    """Percentile interval of the gains that are defined; None if that is not even half of them."""
    defined = gains[np.isfinite(gains)]
    if len(defined) * 2 < len(gains):
        return None
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(defined, [tail, 1.0 - tail])
    return float(low), float(high)


def _chunks(rows: int, resamples: int) -> Iterator[int]:
    size = max(1, _CELLS // rows)
    for start in range(0, resamples, size):
        yield min(size, resamples - start)


def _count_scores(
    metric: str, candidate: Predictions, champion: Predictions, resamples: int, rng: np.random.Generator
) -> FloatArray:
    # Rows with equal (true, candidate's, champion's) class are interchangeable, so drawing how often each such triple
    # occurs is the same as drawing rows, and does not depend on their number.
    size = len(candidate.labels)
    triples = (candidate.actual * size + candidate.predicted) * size + champion.predicted
    distinct, counts = np.unique(triples, return_counts=True)
    actual, ours, theirs = distinct // size**2, distinct // size % size, distinct % size
    parts = []
    for chunk in _chunks(max(len(distinct), size * size), resamples):
        drawn = rng.multinomial(len(triples), counts / counts.sum(), size=chunk)
        both = (_matrices(drawn, actual * size + predicted, size) for predicted in (ours, theirs))
        parts.append([COUNT_SCORES[metric](matrices) for matrices in both])
    return np.concatenate(parts, axis=1)


def _matrices(drawn: Array, cells: Array, size: int) -> Array:
    matrices = np.zeros((size * size, len(drawn)), dtype=np.int64)
    np.add.at(matrices, cells, drawn.T)
    return matrices.T.reshape(len(drawn), size, size)


def _mean_scores(
    metric: str, candidate: Predictions, champion: Predictions, resamples: int, rng: np.random.Generator
) -> FloatArray:
    losses = [row_losses(metric, p) for p in (candidate, champion)]
    centred = candidate.actual - candidate.actual.mean()
    parts = []
    for chunk in _chunks(candidate.rows, resamples):
        drawn = rng.integers(0, candidate.rows, size=(chunk, candidate.rows))
        means = np.stack([loss[drawn].mean(axis=1) for loss in losses])
        if metric == "rmse":
            means = np.sqrt(means)
        elif metric == "r2":
            variance = centred[drawn].var(axis=1)
            # by the extremes, since rounding gives equal values a tiny variance
            varied = centred[drawn].min(axis=1) < centred[drawn].max(axis=1)
            means = 1.0 - np.divide(means, variance, out=np.full_like(means, np.nan), where=varied)
        parts.append(means)
    return np.concatenate(parts, axis=1)


def _areas(candidate: Predictions, champion: Predictions, resamples: int, rng: np.random.Generator) -> FloatArray:
    rows, columns = candidate.rows, auc_columns(len(candidate.labels))
    rankings = [[_ranking(model, column) for column in columns] for model in (candidate, champion)]
    parts = []
    for chunk in _chunks(rows, resamples):
        drawn = rng.integers(0, rows, size=(rows, chunk)) * chunk + np.arange(chunk)
        weights = np.bincount(drawn.ravel(), minlength=rows * chunk).astype(np.int32).reshape(rows, chunk)
        areas = [np.stack([_weighted_area(weights, *one) for one in ranking], axis=1) for ranking in rankings]
        parts.append([_mean_defined(values) for values in areas])
    return np.concatenate(parts, axis=1)


def _ranking(predictions: Predictions, column: int) -> tuple[Array, Array, Array, Array]:
    """The positive rows; the others by rising score; for each positive how many are below, and not above, it."""
    if predictions.probabilities is None:
        raise ValueError("roc_auc is compared only where it is defined")
    scores = predictions.probabilities[:, column]
    good, bad = np.flatnonzero(predictions.actual == column), np.flatnonzero(predictions.actual != column)
    bad = bad[np.argsort(scores[bad], kind="stable")]
    below, level = (np.searchsorted(scores[bad], scores[good], side=side) for side in ("left", "right"))
    return good, bad, below, level


def _weighted_area(weights: Array, good: Array, bad: Array, below: Array, level: Array) -> FloatArray:
    """Area under the ROC curve for each column of row weights; NaN where one kind of row was not drawn."""
    drawn_below = np.zeros((len(bad) + 1, weights.shape[1]), dtype=np.int32)
    np.cumsum(weights[bad], axis=0, out=drawn_below[1:])
    pairs = np.einsum("rb,rb->b", weights[good], drawn_below[below] + drawn_below[level], dtype=np.float64)
    total = 2.0 * weights[good].sum(axis=0) * drawn_below[-1]
    areas = np.full(len(total), np.nan)
    np.divide(pairs, total, out=areas, where=total > 0)
    return areas


def _mean_defined(areas: FloatArray) -> FloatArray:
    defined = ~np.isnan(areas)
    count = defined.sum(axis=1)
    total = np.where(defined, areas, 0.0).sum(axis=1)
    means = np.full(len(count), np.nan)
    np.divide(total, count, out=means, where=count > 0)
    return means
