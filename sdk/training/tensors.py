"""Batches of tensors, and what a network needs to know of a table before it can learn from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from longshore.packaging.card import Column, Feed, Signature
from longshore.packaging.feeds import FeedReader
from longshore.packaging.images import read_image
from longshore.training.examples import Part

if TYPE_CHECKING:
    from longshore.packaging.feeds import Tokenize

__all__ = ["Batches", "TablePlan", "plan_table"]

_KEPT_BYTES: Final = 2**29
"""Pictures that take no more than this, decoded, are decoded once."""


@dataclass(frozen=True, kw_only=True)
class TablePlan:
    """How the columns of a table become what a network's first layer sees.

    Numbers, booleans and dates are scaled to mean 0 and variance 1, with 0 where they are missing; columns that had
    missing values in training get another one that says so. Each category gets a column for each of its values, all 0
    where a value was not seen in training or is missing.

    Args:
        numbers: Places of the columns that are numbers.
        means: Their means.
        scales: Their standard deviations, 1 where there is none.
        flagged: Places, among ``numbers``, of those with missing values.
        categories: Place of each category, and its number of values.
    """

    numbers: tuple[int, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    flagged: tuple[int, ...]
    categories: tuple[tuple[int, int], ...]

    @property
    def width(self) -> int:
        """Number of values that the network sees of each row."""
        return len(self.numbers) + len(self.flagged) + sum(count for _, count in self.categories)


def plan_table(columns: Sequence[Column], values: np.ndarray) -> TablePlan:
    """The plan for a table.

    Args:
        columns: The columns.
        values: Those of the training rows ``[rows, columns]``, as :mod:`longshore.packaging.feeds` makes them.
    """
    numbers = [place for place, column in enumerate(columns) if column.categories is None]
    known = np.ma.masked_invalid(values[:, numbers])
    means, scales = known.mean(axis=0).filled(0.0), known.std(axis=0).filled(1.0)
    return TablePlan(
        numbers=tuple(numbers),
        means=tuple(float(mean) for mean in means),
        scales=tuple(float(scale) if scale > 0 else 1.0 for scale in scales),
        flagged=tuple(i for i, place in enumerate(numbers) if np.isnan(values[:, place]).any()),
        categories=tuple(
            (place, len(column.categories)) for place, column in enumerate(columns) if column.categories is not None
        ),
    )


class Batches:
    """The tensors of any rows of a part.

    Args:
        part: The rows.
        feeds: What the network takes.
        signature: The model's signature.
        tokenize: The tokenizer, if it takes token ids.
    """

    def __init__(
        self, part: Part, feeds: Sequence[Feed], signature: Signature, tokenize: Tokenize | None = None
    ) -> None:
        self.targets = part.targets
        self._order = [feed.name for feed in feeds]
        self._files = {feed.name: part.frame[feed.columns[0]].tolist() for feed in feeds if feed.datatype == "UINT8"}
        self._shapes = {feed.name: feed.shape for feed in feeds}
        plain = [feed for feed in feeds if feed.name not in self._files]
        self._arrays = FeedReader(plain, signature, tokenize)(part.frame)
        for name, files in self._files.items():
            if len(files) * math.prod(self._shapes[name]) <= _KEPT_BYTES:
                self._arrays[name] = self._decode(name, range(len(files)))

    def __len__(self) -> int:
        return len(self.targets)

    def __call__(self, rows: Sequence[int] | slice) -> dict[str, np.ndarray]:
        """The tensors of some rows, given by their numbers, by name in the network's order."""
        return {
            name: self._arrays[name][rows] if name in self._arrays else self._decode(name, rows) for name in self._order
        }

    def _decode(self, name: str, rows: Sequence[int] | slice) -> np.ndarray:
        files, shape = self._files[name], self._shapes[name]
        chosen = files[rows] if isinstance(rows, slice) else [files[row] for row in rows]
        return np.stack([read_image(file, shape) for file in chosen]) if chosen else np.zeros((0, *shape), np.uint8)
