"""Rows as tensors of the Open Inference Protocol, and its answers as predictions.

Rows that are mappings become a tensor for each column, of shape ``[n, 1]``: longshore's server takes that, and servers
with pandas in them (MLServer, KServe's own) do where the request's ``content_type`` is ``pd``. Rows that are sequences
of numbers become one tensor of shape ``[n, columns]``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from longshore.errors import InputError

__all__ = ["Row", "Rows", "Tensor", "as_rows", "as_tensors", "without_gaps"]

Row = Mapping[str, Any] | Sequence[Any]
Rows = Sequence[Row]

_MATRIX: Final = "input-0"
_NUMBERS: Final = frozenset({int, float})


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor of the Open Inference Protocol.

    Args:
        name: Its name: a column's, where there is one for each.
        datatype: ``BOOL``, ``INT64``, ``FP64`` or ``BYTES``.
        shape: Number of rows and of columns.
        data: The values, row by row; None for a missing one.
    """

    name: str
    datatype: str
    shape: tuple[int, int]
    data: list[Any]


def as_rows(table: Any) -> list[Row]:
    """Rows of plain values, as JSON has them.

    Args:
        table: A sequence of rows, a pandas DataFrame or a two-dimensional array. NaN, NaT and NA are missing values,
            and dates become ISO 8601 texts.

    Raises:
        InputError: If a value is infinite, or of a type that no model takes.
    """
    if hasattr(table, "to_dict") and hasattr(table, "columns"):
        table = table.to_dict("records")
    elif hasattr(table, "tolist"):
        table = table.tolist()
    return [_plain_row(index, row) for index, row in enumerate(table)]


def _plain_row(index: int, row: Any) -> Row:
    if isinstance(row, Mapping):
        return {str(name): _plain(value, f"row {index}, column {name!r}") for name, value in row.items()}
    if isinstance(row, str) or not hasattr(row, "__iter__"):
        raise InputError(f"row {index} is {row!r}: use a mapping from column to value, or a sequence of values")
    return [_plain(value, f"row {index}, value {position}") for position, value in enumerate(row)]


def _plain(value: Any, where: str) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(entry, where) for entry in value]
    if _is_missing(value):
        return None
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float) and math.isinf(value):
        raise InputError(f"{where} is infinite: send a finite number, or None for a missing one")
    if isinstance(value, (int, float)):
        return value
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise InputError(f"{where} is a {type(value).__name__}: send a number, a text, a boolean, a date or None")


def _is_missing(value: Any) -> bool:
    try:
        return bool(value != value)  # noqa: PLR0124 - only NaN and NaT differ from themselves
    except TypeError:
        # pandas.NA cannot tell
        return True


def as_tensors(rows: Rows) -> list[Tensor]:
    """The tensors of one request.

    Args:
        rows: Rows of plain values, all mappings or all sequences.

    Raises:
        InputError: If rows do not fit together, or a column has values of several types.
    """
    if all(isinstance(row, Mapping) for row in rows):
        return [
            Tensor(name=name, datatype=_datatype(f"column {name!r}", data), shape=(len(data), 1), data=data)
            for name, data in _columns(rows)
        ]
    widths = {None if isinstance(row, Mapping) else len(row) for row in rows}
    if len(widths) != 1:
        raise InputError("the rows have different columns: send mappings from column to value, or sequences as long")
    data = [value for row in rows for value in row]
    return [Tensor(name=_MATRIX, datatype=_datatype("the table", data), shape=(len(rows), len(rows[0])), data=data)]


def _columns(rows: Sequence[Any]) -> Iterator[tuple[str, list[Any]]]:
    for name in dict.fromkeys(name for row in rows for name in row):
        yield name, [row.get(name) for row in rows]


def _datatype(what: str, values: Sequence[Any]) -> str:
    types = {type(value) for value in values if value is not None}
    if types <= _NUMBERS:
        # a missing value is NaN where there is no null
        return "INT64" if types == {int} and None not in values else "FP64"
    if len(types) == 1 and (kind := {str: "BYTES", bool: "BOOL"}.get(types.pop())) is not None:
        return kind
    raise InputError(f"{what} has values of several types: send numbers, texts or booleans, and None for a missing one")


def without_gaps(rows: Rows) -> list[list[int]]:
    """Which rows to send together where a tensor of texts or booleans cannot have a gap: their indices, in groups."""
    if not all(isinstance(row, Mapping) for row in rows):
        return [list(range(len(rows)))]
    gapped = {
        name: [value is None for value in data]
        for name, data in _columns(rows)
        if None in data and not {type(value) for value in data if value is not None} <= _NUMBERS
    }
    groups: dict[tuple[bool, ...], list[int]] = {}
    for index in range(len(rows)):
        groups.setdefault(tuple(gaps[index] for gaps in gapped.values()), []).append(index)
    return list(groups.values())
