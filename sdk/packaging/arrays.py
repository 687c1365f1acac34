"""Models that can be given an array of numbers in place of a table.

Building a table of a request's rows, and what scikit-learn checks about one, takes several times as long as a small
model does.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from longshore.packaging.frame import PLAIN_NUMBERS, rows_to_frame

if TYPE_CHECKING:
    from longshore.packaging.card import Signature
    from longshore.packaging.loading import LoadedModel

__all__ = ["MatrixReader", "take_arrays"]

_NUMERIC: Final = frozenset({"number", "integer", "boolean"})
_NAMES: Final = "feature_names_in_"
_TRANSFORMERS: Final = "transformers_"
_REMEMBERED: Final = (_NAMES, _TRANSFORMERS)


class MatrixReader:
    """Reads rows of plain numbers into one array, for models that take one.

    Args:
        signature: The model's signature, with columns that are numbers only.
    """

    def __init__(self, signature: Signature) -> None:
        names = signature.names
        self._names, self._width = names, len(names)
        self._cells: Callable[[Any], Any] = itemgetter(*names)
        if len(names) == 1:
            # given one name it gives no tuple
            self._cells = _one(names[0])
        self._whole = [index for index, column in enumerate(signature.inputs) if column.kind == "integer"]
        self._plain = all(column.kind in ("number", "integer") for column in signature.inputs)

    def rows(self, rows: Sequence[Any]) -> np.ndarray | None:
        """The rows as ``float64`` of shape ``[n, columns]``; None where :func:`rows_to_frame` has to look closer."""
        if not self._plain or not rows:
            return None
        width = self._width
        if type(rows[0]) is dict:
            if not all(type(row) is dict and len(row) == width for row in rows):
                return None
            try:
                rows = [self._cells(row) for row in rows]
            except KeyError:
                return None
        elif not all(type(row) is list and len(row) == width for row in rows):
            return None
        if not {type(value) for row in rows for value in row} <= PLAIN_NUMBERS:
            return None
        try:
            return self._checked(np.array(rows, dtype=np.float64))
        except OverflowError:
            return None

    def tensor(self, values: Sequence[Any] | np.ndarray, shape: tuple[int, int]) -> np.ndarray | None:
        """The values of one tensor, row by row, likewise."""
        if not self._plain or not shape[0]:
            return None
        if isinstance(values, np.ndarray):
            if values.dtype.kind not in "fiu":
                return None
            # what cannot be written is part of a body, which nobody shall have to keep for a few rows of it
            return self._checked(values.reshape(shape).astype(np.float64, copy=not values.flags.writeable))
        if not set(map(type, values)) <= PLAIN_NUMBERS:
            return None
        try:
            return self._checked(np.array(values, dtype=np.float64).reshape(shape))
        except OverflowError:
            return None

    def table(self, table: Mapping[str, Any]) -> np.ndarray | None:
        """Arrays of numbers by column, likewise."""
        arrays = [table[name] for name in self._names if isinstance(table.get(name), np.ndarray)]
        if not self._plain or len(arrays) != len(self._names) or not len(arrays[0]):
            return None
        if any(array.dtype.kind not in "fiu" for array in arrays):
            return None
        return self._checked(np.stack(arrays, axis=1).astype(np.float64))

    def _checked(self, matrix: np.ndarray) -> np.ndarray | None:
        if not np.isfinite(matrix).all():
            return None
        if self._whole and (matrix[:, self._whole] % 1).any():
            return None
        return matrix


def _one(name: str) -> Callable[[Any], Any]:
    return lambda row: (row[name],)


def take_arrays(loaded: LoadedModel) -> MatrixReader | None:
    """Have a model take arrays from now on, if its columns are numbers and it gives the same answers.

    Estimators that have seen a table remember its names and warn about what has none, and a ColumnTransformer looks
    its columns up by name, so this copy is made to go by position. Whether that changes anything is tried with the
    card's example.

    Args:
        loaded: The model. If this gives a reader, only arrays are to be given to it afterwards.

    Returns:
        What reads rows for it; None, and a model as it was, if it needs tables.
    """
    signature = loaded.card.signature
    if not signature.inputs or not all(column.kind in _NUMERIC for column in signature.inputs):
        return None
    frame = rows_to_frame(signature, loaded.card.example)
    table = _answers(loaded, frame)
    before = [
        (part, name, vars(part)[name]) for part in _parts(loaded.model) for name in _REMEMBERED if name in vars(part)
    ]
    for part, name, value in before:
        if name == _TRANSFORMERS:
            setattr(part, name, [(*others, _places(columns, part)) for *others, columns in value])
    for part, name, _ in before:
        if name == _NAMES:
            delattr(part, name)
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("error")
        array = _answers(loaded, frame.to_numpy(dtype=np.float64))
        if all(np.array_equal(one, other) for one, other in zip(table, array, strict=True)):
            return MatrixReader(signature)
    for part, name, value in before:
        setattr(part, name, value)
    return None


def _places(columns: Any, part: Any) -> Any:
    """Columns of a ColumnTransformer by position in place of by name."""
    names = list(getattr(part, _NAMES, ()))
    if isinstance(columns, str):
        return names.index(columns)
    if isinstance(columns, (list, tuple, np.ndarray)) and all(isinstance(column, str) for column in columns):
        return [names.index(column) for column in columns]
    return columns


def _answers(loaded: LoadedModel, features: Any) -> list[np.ndarray]:
    found = (loaded.predict(features, conformed=True), loaded.predict_proba(features, conformed=True))
    return [np.asarray(one) for one in found if one is not None]


def _parts(model: Any) -> Iterator[Any]:
    """A model, and the estimators that it is made of."""
    seen, waiting = set[int](), [model]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, (list, tuple)):
            waiting += part
        elif isinstance(part, dict):
            waiting += part.values()
        elif hasattr(part, "__dict__") and hasattr(type(part), "get_params"):
            yield part
            waiting += vars(part).values()
