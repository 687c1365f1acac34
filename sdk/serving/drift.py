"""Counting what a model is asked by the bins of its training data, away from the requests."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from longshore.packaging import FeatureBins, bin_counts
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
        self._kept: list[pd.DataFrame | np.ndarray] = []
        pictures = any(bins.kind == "image" for bins in baseline)
        self._rows, self._limit = 0, _ROWS_OF_PICTURES if pictures else _ROWS

    def add(self, features: pd.DataFrame | np.ndarray) -> None:
        """Have rows counted, at once or later.

        Args:
            features: A conformed frame, or an array with its columns; it must not change any more.
        """
        if not self._baseline:
            return
        with self._lock:
            self._kept.append(features)
            self._rows += len(features)
            due = self._rows >= self._limit
        if due:
            self.flush()

    def flush(self) -> None:
        """Count what is kept."""
        with self._lock:
            kept, self._kept, self._rows = self._kept, [], 0
        arrays = [part for part in kept if isinstance(part, np.ndarray)]
        frames = [part for part in kept if isinstance(part, pd.DataFrame)]
        if arrays:
            frames.append(pd.DataFrame(np.concatenate(arrays), columns=list(self._names), copy=False))
        for frame in frames:
            self._counts.count_bins(bin_counts(self._baseline, frame))

    def retire(self) -> None:
        """Nobody looks any more: what comes is counted at once."""
        self._limit = 0
        self.flush()
