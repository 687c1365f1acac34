"""Counting what a model is asked by the bins of its training data, away from the requests."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd

from longshore.packaging import FeatureBins, array_bin_counts, bin_counts
from longshore.serving.metrics import ModelMetrics

__all__ = ["BinCounter"]

_ROWS: Final = 4096
"""Rows that are kept until somebody looks. Many at once are counted in little more time than one."""

_ROWS_OF_PICTURES: Final = 64
"""The same, where each is large."""


class BinCounter:
    """Counts rows by feature and bin. It can be used from several threads at once.

    Args:
        baseline: Bins of the features, as the model card has them.
        names: Columns of rows that come as arrays.
        counts: Where it counts.
    """

    def __init__(self, baseline: Sequence[FeatureBins], names: Sequence[str], counts: ModelMetrics) -> None:
        self._baseline, self._names, self._counts = baseline, names, counts
        self._lock = threading.Lock()
        # arrays of all columns, or for a table one for each
        self._kept: list[np.ndarray | list[np.ndarray]] = []
        pictures = any(bins.kind == "image" for bins in baseline)
        self._rows, self._limit = 0, _ROWS_OF_PICTURES if pictures else _ROWS
        # counted, and not told yet
        self._sums = self._zeros()

    def add(self, features: pd.DataFrame | np.ndarray) -> None:
        """Have rows counted, at once or later.

        Args:
            features: A conformed frame, or an array with its columns; it must not change any more.
        """
        if not self._baseline:
            return
        if isinstance(features, pd.DataFrame):
            # to put tables together, or to count each, would keep requests waiting for seconds now and then
            part: np.ndarray | list[np.ndarray] = [values.to_numpy() for _, values in features.items()]
        else:
            part = features
        with self._lock:
            self._kept.append(part)
            self._rows += len(features)
            due = self._rows >= self._limit
        if due:
            self._count()
        if not self._limit:
            self.flush()

    def flush(self) -> None:
        """Count what is kept, and tell."""
        self._count()
        with self._lock:
            sums, self._sums = self._sums, self._zeros()
        self._counts.count_bins({feature: numbers.tolist() for feature, numbers in sums.items()})

    def retire(self) -> None:
        """Nobody looks any more: what comes is counted at once."""
        self._limit = 0
        self.flush()

    def _count(self) -> None:
        with self._lock:
            kept, self._kept, self._rows = self._kept, [], 0
        found = list[Mapping[str, list[int]]]()
        if arrays := [part for part in kept if isinstance(part, np.ndarray)]:
            found.append(array_bin_counts(self._baseline, self._names, _joined(arrays)))
        if tables := [part for part in kept if isinstance(part, list)]:
            columns = [_joined(parts) for parts in zip(*tables, strict=True)]
            table = pd.DataFrame(dict(zip(self._names, columns, strict=True)), copy=False)
            found.append(bin_counts(self._baseline, table))
        with self._lock:
            for counted in found:
                for feature, numbers in counted.items():
                    self._sums[feature] += numbers

    def _zeros(self) -> Mapping[str, np.ndarray]:
        return {bins.name: np.zeros(bins.size, dtype=np.int64) for bins in self._baseline}


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
