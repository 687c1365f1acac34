"""Counting the values of a table in the bins of the training data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pandas as pd

from longshore.packaging.card import FeatureBins

__all__ = ["array_bin_counts", "bin_counts", "bin_indices", "measures"]


def bin_counts(baseline: Sequence[FeatureBins], frame: pd.DataFrame) -> dict[str, list[int]]:
    """How many rows of a conformed frame fall in each bin of each feature.

    Args:
        baseline: Bins of the features, as the model card has them.
        frame: A conformed frame.

    Returns:
        A list of counts by feature, as long as the feature's ``counts``.
    """
    return {
        bins.name: np.bincount(bin_indices(bins, frame[bins.name]), minlength=bins.size).tolist() for bins in baseline
    }


def array_bin_counts(baseline: Sequence[FeatureBins], names: Sequence[str], array: np.ndarray) -> dict[str, list[int]]:
    """What :func:`bin_counts` gives, in a tenth of the time.

    Args:
        baseline: Bins of the features, as the model card has them.
        names: The columns.
        array: Their values ``[n, columns]``: numbers, NaN for missing ones.
    """
    columns, places = np.ascontiguousarray(array.T), {name: index for index, name in enumerate(names)}
    is_below, found = np.empty(len(array), dtype=bool), dict[str, list[int]]()
    for bins in baseline:
        values = columns[places[bins.name]]
        if bins.ordered:
            # to compare all with an edge is faster than to look each up among the edges
            below = [int(np.count_nonzero(np.less(values, edge, out=is_below))) for edge in bins.edges]
            missing = int(np.count_nonzero(np.isnan(values, out=is_below)))
            found[bins.name] = [high - low for low, high in pairwise((0, *below, len(values) - missing))] + [missing]
        else:
            found[bins.name] = np.bincount(bin_indices(bins, pd.Series(values)), minlength=bins.size).tolist()
    return found


def bin_indices(bins: FeatureBins, series: pd.Series[Any]) -> np.ndarray:
    """The bin of each value of a conformed column; for single values see :func:`longshore.packaging.card.bin_index`.

    Args:
        bins: Bins of the column.
        series: The column, as :func:`conform` or :func:`rows_to_frame` gives it.

    Returns:
        Indices into ``bins.counts``.
    """
    last = bins.size - 1
    if bins.ordered:
        values = measures(bins.kind, series)
        return np.where(np.isnan(values), last, np.searchsorted(bins.edges, values, side="right"))
    if bins.kind == "boolean":
        numbers = series.to_numpy(dtype=np.float64)
        known = {"True": 1.0, "False": 0.0}
        result = np.where(np.isnan(numbers), last, len(bins.categories))
        for index, category in enumerate(bins.categories):
            result[numbers == known[category]] = index
        return result
    index_of = {category: index for index, category in enumerate(bins.categories)}
    other = len(bins.categories)
    return np.array(
        [index_of.get(value, other) if isinstance(value, str) else last for value in series.to_numpy()], dtype=np.intp
    )


def _seconds(series: pd.Series[Any]) -> np.ndarray:
    moments = series.to_numpy().astype("datetime64[us]")
    return np.where(np.isnat(moments), np.nan, moments.astype(np.int64) / 1e6)


def _numbers_of(series: pd.Series[Any]) -> np.ndarray:
    return series.to_numpy(dtype=np.float64)


def _lengths(series: pd.Series[Any]) -> np.ndarray:
    return np.array([len(value) if isinstance(value, str) else np.nan for value in series.to_numpy()], dtype=np.float64)


def _brightness(series: pd.Series[Any]) -> np.ndarray:
    return np.array([value.mean() for value in series.to_numpy()], dtype=np.float64)


_MEASURES: Final[Mapping[str, Callable[[pd.Series[Any]], np.ndarray]]] = {
    "date": _seconds,
    "text": _lengths,
    "image": _brightness,
}
"""What of a value is counted in bins that are intervals, where it is not the value itself."""


def measures(kind: str, series: pd.Series[Any]) -> np.ndarray:
    """The numbers by which the values of a conformed column are put in order.

    Args:
        kind: Kind of the column.
        series: Its values.

    Returns:
        Unix seconds of dates, lengths of texts, mean brightness of pictures, numbers as they are; NaN where missing.
    """
    return _MEASURES.get(kind, _numbers_of)(series)
