"""Between rows as requests carry them, raw tables, and the frame that a model is trained on.

Training and serving go through the same functions, so a model always sees the same types:

==================  ==========================================================================
kind                column of a conformed frame
==================  ==========================================================================
number, integer     ``float64``, NaN where missing
boolean             ``float64``: 1.0, 0.0, NaN where missing
category, text      ``object`` of ``str``, NaN where missing
date                ``datetime64[us]``, UTC without a zone, NaT where missing (microseconds
                    rather than nanoseconds, so that a year such as 9999 has its place)
image               ``object`` of ``uint8`` arrays, height x width x channels, all of the column's
                    shape (:mod:`longshore.packaging.images`)
==================  ==========================================================================

Missing values are accepted in every column but pictures: the models impute them.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, date, datetime
from difflib import get_close_matches
from typing import Any, Final

import numpy as np
import pandas as pd

from longshore.errors import DataError, InputError
from longshore.packaging.card import Column, Signature, as_text
from longshore.packaging.images import image_text, read_image

__all__ = [
    "PLAIN_NUMBERS",
    "columns_to_frame",
    "conform",
    "frame_to_rows",
    "read_dates",
    "rows_to_frame",
]

_MAX_PROBLEMS: Final = 20
PLAIN_NUMBERS: Final = frozenset({int, float})
"""Types of numbers that need no closer look; a bool is none."""
_EXPECTED: Final = {
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "category": "a string",
    "text": "a string",
    "date": "an ISO 8601 date such as 2024-05-17 or 2024-05-17T08:30:00Z",
}

_OBJECTS: Final = frozenset({"category", "text", "image"})
_NANOSECOND_YEARS: Final = (1678, 2261)

Problem = tuple[int, str]


def rows_to_frame(
    signature: Signature,
    rows: Sequence[Mapping[str, Any] | Sequence[Any]],
    *,
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Turn the rows of a request into a conformed frame.

    Args:
        signature: The model's signature.
        rows: Mappings from column to value, or sequences of values; scalars as JSON has them, None for missing.
        columns: Columns of rows that are sequences; by default the signature's, in its order.

    Raises:
        InputError: If rows do not fit; it tells all that is wrong (rows are counted from 0, as the array in the
            request is), at most 20 problems.
    """
    if not rows:
        raise InputError("there are no rows: send at least one")
    return _to_frame(signature, *_by_column(signature, rows, columns))


def columns_to_frame(signature: Signature, values: Mapping[str, Sequence[Any] | np.ndarray]) -> pd.DataFrame:
    """Turn the columns of a request into a conformed frame.

    Args:
        signature: The model's signature.
        values: The values of each column, as many in each: scalars as JSON has them, None for missing, or an array of
            numbers, NaN for missing. Ignored columns may be among them.

    Raises:
        InputError: If there are no rows, or values do not fit; it tells all that is wrong, at most 20 problems.
    """
    if not any(len(column) for column in values.values()):
        raise InputError("there are no rows: send at least one")
    return _to_frame(signature, {name: values[name] for name in signature.names if name in values}, [])


def _to_frame(
    signature: Signature, values: Mapping[str, Sequence[Any] | np.ndarray], problems: list[Problem]
) -> pd.DataFrame:
    series = {}
    for column in signature.inputs:
        if column.name in values:
            raw = values[column.name]
            if isinstance(raw, np.ndarray) and column.kind not in ("number", "integer", "image"):
                raw = raw.tolist()
            array, wrong = _CONVERT[column.kind](column, raw)
            series[column.name] = _series(array, column)
            problems += [(row, f"row {row}, column {column.name!r}: {what}") for row, what in wrong]
    if problems:
        texts = [text for _, text in sorted(problems, key=lambda problem: problem[0])]
        if len(texts) > _MAX_PROBLEMS:
            texts = [*texts[:_MAX_PROBLEMS], f"and {len(texts) - _MAX_PROBLEMS} more problems"]
        raise InputError("; ".join(texts), texts)
    return pd.DataFrame(series, copy=False)


def _by_column(
    signature: Signature, rows: Sequence[Any], columns: Sequence[str] | None
) -> tuple[dict[str, list[Any]], list[Problem]]:
    names = signature.names
    if all(type(row) is dict for row in rows):
        allowed = {*names, *signature.ignored, signature.target}
        with contextlib.suppress(KeyError):
            values = {name: [row[name] for row in rows] for name in names}
            if all(len(row) == len(names) or row.keys() <= allowed for row in rows):
                return values, []
    return _by_column_checked(signature, rows, tuple(columns or names))


def _by_column_checked(
    signature: Signature, rows: Sequence[Any], columns: tuple[str, ...]
) -> tuple[dict[str, list[Any]], list[Problem]]:
    names, problems = signature.names, list[Problem]()
    allowed = {*names, *signature.ignored, signature.target}
    cells: list[Mapping[str, Any]] = []
    for number, row in enumerate(rows):
        cell: Mapping[str, Any] = {}
        if isinstance(row, Mapping):
            cell = row
        elif isinstance(row, Sequence) and not isinstance(row, (str, bytes)):
            if len(row) == len(columns):
                cell = dict(zip(columns, row, strict=True))
            else:
                problems.append(
                    (number, f"row {number} has {len(row)} values, {len(columns)} are needed: {_list(columns)}")
                )
        else:
            problems.append((number, f"row {number} is {_describe(row)}, not an object or an array"))
        cells.append(cell)
        if cell:
            problems += [(number, f"row {number}: {text}") for text in _name_problems(cell.keys(), names, allowed)]
        elif isinstance(row, Mapping):
            problems.append((number, f"row {number} is empty: it needs the columns {_list(names)}"))
    return {name: [cell.get(name) for cell in cells] for name in names}, problems


def _name_problems(present: Collection[str], names: Sequence[str], allowed: Collection[str]) -> list[str]:
    problems = [f"column {name!r} is missing" for name in names if name not in present]
    for name in present:
        if name not in allowed:
            close = get_close_matches(str(name), names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"the model takes {_list(names)}"
            problems.append(f"column {name!r} is unknown: {hint}")
    return problems


def _list(names: Sequence[str], limit: int = 30) -> str:
    shown = ", ".join(map(str, names[:limit]))
    return shown if len(names) <= limit else f"{shown}, and {len(names) - limit} more"


def _describe(value: Any) -> str:
    names = {bool: "a boolean", str: "a string", list: "an array", dict: "an object", type(None): "null"}
    text = repr(value)
    kind = names.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)
    return kind if value is None else f"{kind} ({text if len(text) <= 60 else text[:57] + '...'})"


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _numbers(column: Column, values: Any) -> tuple[Any, list[Problem]]:
    if isinstance(values, np.ndarray):
        return _array_of_numbers(column, values)
    # rows made of plain finite numbers, which is nearly all of them, are converted and checked in one go
    if set(map(type, values)) <= PLAIN_NUMBERS:
        try:
            array = np.array(values, dtype=np.float64)
        except OverflowError:
            pass
        else:
            if np.isfinite(array).all() and (column.kind == "number" or (array == np.floor(array)).all()):
                return array, []
    array, problems = np.full(len(values), np.nan), []
    for row, raw in enumerate(values):
        value = _plain(raw)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            problems.append((row, f"expected {_EXPECTED[column.kind]}, got {_describe(value)}"))
        elif isinstance(value, int) and abs(value) > sys.float_info.max:
            problems.append((row, "the number is too large: it must fit a 64-bit float"))
        elif not math.isfinite(value):
            problems.append((row, f"{_describe(value)} is not a finite number: use null for a missing value"))
        elif column.kind == "integer" and value != int(value):
            problems.append((row, f"expected a whole number, got {value!r}"))
        else:
            array[row] = value
    return array, problems


def _array_of_numbers(column: Column, values: np.ndarray) -> tuple[Any, list[Problem]]:
    array = values.astype(np.float64)
    if not np.isinf(array).any() and (column.kind == "number" or not (np.nan_to_num(array) % 1).any()):
        return array, []
    return _numbers(column, [None if math.isnan(value) else value for value in array.tolist()])


def _booleans(_column: Column, values: list[Any]) -> tuple[Any, list[Problem]]:
    array, problems = np.full(len(values), np.nan), []
    for row, raw in enumerate(values):
        value = _plain(raw)
        if isinstance(value, bool):
            array[row] = value
        elif value is not None:
            problems.append((row, f"expected true or false, got {_describe(value)}"))
    return array, problems


def _strings(column: Column, values: list[Any]) -> tuple[Any, list[Problem]]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    if set(map(type, values)) == {str}:
        return array, []
    problems = []
    for row, raw in enumerate(values):
        value = _plain(raw)
        if value is None:
            array[row] = np.nan
        elif isinstance(value, str):
            array[row] = str(value)
        elif isinstance(value, (int, float)) and as_text(value) in (column.categories or ()):
            # a column that mixes numbers and strings is trained as strings, yet clients send it as it is
            array[row] = as_text(value)
        else:
            problems.append((row, f"expected a string, got {_describe(value)}"))
    return array, problems


def _dates(_column: Column, values: list[Any]) -> tuple[Any, list[Problem]]:
    usable: list[Any] = [value if isinstance(value, (str, date)) else None for value in values]
    parsed = _parse_dates(usable)
    problems = [
        (row, f"expected {_EXPECTED['date']}, got {_describe(value)}")
        for row, value in enumerate(values)
        if value is not None and pd.isna(parsed[row])
    ]
    return parsed, problems


def _parse_dates(values: Sequence[Any]) -> Any:
    # NaT calls itself a date
    texts = [value.isoformat() if isinstance(value, date) and pd.notna(value) else value for value in values]
    return read_dates(texts)


def read_dates(texts: Sequence[str | None], pattern: str = "ISO8601") -> Any:
    """Read texts as dates.

    Args:
        texts: The texts; None for a missing one.
        pattern: As ``datetime.strptime`` takes it, or ``ISO8601``.

    Returns:
        An array of ``datetime64[us]``, UTC without a zone; NaT where there is no date.
    """
    series: pd.Series[Any] = pd.Series(list[Any](texts), dtype=object)
    parsed = pd.to_datetime(series, format=pattern, utc=True, errors="coerce")
    moments = parsed.dt.tz_localize(None).to_numpy().astype("datetime64[us]")
    for row in np.flatnonzero(np.isnat(moments)).tolist():
        moments[row] = _far_date(texts[row], pattern)
    return moments


def _far_date(text: str | None, pattern: str) -> np.datetime64:
    """A date of years that pandas before 3 does not have, as it counts nanoseconds; NaT for all others."""
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        read = datetime.fromisoformat(text or "") if pattern == "ISO8601" else datetime.strptime(text or "", pattern)
        if not _NANOSECOND_YEARS[0] <= read.year <= _NANOSECOND_YEARS[1]:
            return np.datetime64(read.astimezone(UTC).replace(tzinfo=None) if read.tzinfo else read, "us")
    return np.datetime64("NaT", "us")


def _images(column: Column, values: Any) -> tuple[Any, list[Problem]]:
    array, problems = np.empty(len(values), dtype=object), []
    for row, value in enumerate(values):
        try:
            array[row] = read_image(value, column.shape or ())
        except ValueError as error:
            problems.append((row, str(error)))
    return array, problems


_CONVERT: Final[Mapping[str, Callable[[Column, Any], tuple[Any, list[Problem]]]]] = {
    "number": _numbers,
    "integer": _numbers,
    "boolean": _booleans,
    "category": _strings,
    "text": _strings,
    "date": _dates,
    "image": _images,
}


def _series(array: Any, column: Column) -> pd.Series[Any]:
    # without a dtype pandas 3 would turn strings into its own string type
    return pd.Series(array, dtype=object if column.kind in _OBJECTS else None, copy=False)


def frame_to_rows(signature: Signature, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as JSON can hold them: what :func:`rows_to_frame` takes.

    Args:
        signature: The model's signature.
        frame: A table with the signature's columns; others are left out.

    Returns:
        A mapping per row; dates as ISO 8601, pictures as PNG files in base64, missing values as None.

    Raises:
        DataError: If columns are missing or hold other values than the signature says.
    """
    conformed = conform(signature, frame)
    columns = {column.name: _plain_values(column, conformed[column.name]) for column in signature.inputs}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _plain_values(column: Column, series: pd.Series[Any]) -> list[Any]:
    convert: dict[str, Callable[[Any], Any]] = {
        "integer": int,
        "boolean": bool,
        "date": lambda value: value.isoformat(),
        "image": image_text,
    }
    to_plain = convert.get(column.kind, lambda value: value)
    return [None if missing else to_plain(value) for value, missing in zip(series, series.isna(), strict=True)]


def conform(signature: Signature, frame: pd.DataFrame) -> pd.DataFrame:
    """Bring a table to the columns and types that a model is trained on.

    The target and the ignored columns may be present; they are dropped.

    Args:
        signature: The model's signature.
        frame: The table; it is not changed.

    Returns:
        A frame with exactly the signature's columns, in its order, and the table's index.

    Raises:
        DataError: If columns are missing or unknown, or hold values of another kind.
    """
    names, allowed = signature.names, {*signature.names, *signature.ignored, signature.target}
    present = list(frame.columns)
    problems = _name_problems(present, names, allowed)
    problems += [f"column {name!r} is there more than once" for name in names if present.count(name) > 1]
    if problems:
        raise DataError(f"the table does not have the model's columns: {'; '.join(problems)}")
    return pd.DataFrame({c.name: _conform_column(c, frame[c.name]) for c in signature.inputs}, index=frame.index)


def _conform_column(column: Column, series: pd.Series[Any]) -> pd.Series[Any]:
    if column.kind in ("number", "integer"):
        return _conform_number(column, series)
    if column.kind == "boolean":
        return _conform_boolean(column, series)
    if column.kind == "date":
        return _conform_date(column, series)
    if column.kind == "image":
        return _conform_image(column, series)
    return _conform_string(series)


def _refuse(column: Column, series: pd.Series[Any], bad: Any) -> DataError:
    bad = np.asarray(bad, dtype=bool)
    position = int(np.flatnonzero(bad)[0])
    return DataError(
        f"column {column.name!r} should hold {_EXPECTED[column.kind]} in each row; {int(bad.sum())} of {len(series)} "
        f"values do not, the first is {_plain(series.iloc[position])!r} in row {position}"
    )


def _conform_number(column: Column, series: pd.Series[Any]) -> pd.Series[Any]:
    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        raise _refuse(column, series, series.notna())
    missing = series.isna().to_numpy(dtype=bool)
    numbers = pd.to_numeric(series, errors="coerce").astype("float64")
    array = numbers.to_numpy()
    bad = ~missing & ~np.isfinite(array)
    if column.kind == "integer":
        bad |= ~missing & (array != np.floor(array))
    if bad.any():
        raise _refuse(column, series, bad)
    return numbers


def _conform_boolean(column: Column, series: pd.Series[Any]) -> pd.Series[Any]:
    if pd.api.types.is_bool_dtype(series.dtype) and not series.hasnans:
        return series.astype("float64")
    known = {True: 1.0, False: 0.0, "True": 1.0, "False": 0.0, "true": 1.0, "false": 0.0}
    return _checked(column, series, series.astype(object).map(known).astype("float64"))


def _checked(column: Column, series: pd.Series[Any], result: pd.Series[Any]) -> pd.Series[Any]:
    bad = result.isna() & series.notna()
    if bad.any():
        raise _refuse(column, series, bad)
    return result


def _conform_date(column: Column, series: pd.Series[Any]) -> pd.Series[Any]:
    if isinstance(series.dtype, np.dtype) and series.dtype.kind == "M":
        return series.astype("datetime64[us]")
    texts = [value if isinstance(value, (str, date)) else None for value in series]
    return _checked(column, series, pd.Series(_parse_dates(texts), index=series.index))


def _conform_string(series: pd.Series[Any]) -> pd.Series[Any]:
    missing = series.isna()
    values = [np.nan if gone else as_text(_plain(value)) for value, gone in zip(series, missing, strict=True)]
    return pd.Series(values, index=series.index, dtype=object)


def _conform_image(column: Column, series: pd.Series[Any]) -> pd.Series[Any]:
    values = [None if gone else value for value, gone in zip(series, series.isna(), strict=True)]
    array, problems = _images(column, values)
    if problems:
        row, what = problems[0]
        raise DataError(
            f"column {column.name!r} should hold a picture in each row; {len(problems)} of {len(series)} do not, the "
            f"first in row {row}: {what}"
        )
    return pd.Series(array, index=series.index, dtype=object)
