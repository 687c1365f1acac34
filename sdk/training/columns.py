"""What the columns of a table are: types settled once, kinds told from them, and the spread of their values."""

from __future__ import annotations

import datetime as dt
import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import numpy as np
import pandas as pd

from longshore.errors import DataError
from longshore.packaging.bins import bin_indices, measures
from longshore.packaging.card import MAX_CATEGORIES, Column, FeatureBins, Kind, Task, as_text
from longshore.packaging.frame import read_dates
from longshore.packaging.images import encode_image

__all__ = [
    "InferredColumns",
    "column_kind",
    "infer_columns",
    "infer_task",
    "make_bins",
    "require_column",
    "settle_types",
]

_ISO_DATE: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?)?\s?(Z|[+-]\d{2}:?\d{2})?", re.ASCII
)
_MAX_BINS: Final = 10
_MAX_BIN_CATEGORIES: Final = 20
_MAX_CLASSES_OF_NUMBERS: Final = 20
# a string column in which most values differ is an id or free text, however small the table
_ID_LIKE_SHARE: Final = 0.5
_ID_LIKE_MIN_DISTINCT: Final = 20

_log = logging.getLogger(__name__)


def settle_types(frame: pd.DataFrame) -> pd.DataFrame:
    """Bring each column to one of: ``int64``, ``float64``, ``bool``/``boolean``, ``datetime64[us]``, ``object`` of str.

    Strings that are all ISO 8601 dates become dates (UTC, without a zone); a column that mixes numbers and strings
    becomes strings; anything nested becomes its text. Pictures are ``object`` of bytes: files as they are, those of
    Hugging Face's data sets (``{"bytes": ..., "path": ...}``) too, and arrays of pixels as PNG.

    Args:
        frame: Any table; it is not changed.

    Raises:
        DataError: If a column name is empty or stands twice.
    """
    names = [str(name).strip() for name in frame.columns]
    check_headers(names, "the table")
    columns = {name: _settle(frame.iloc[:, position]) for position, name in enumerate(names)}
    return pd.DataFrame(columns, index=frame.index)


def check_headers(names: Sequence[str], where: str) -> None:
    """Refuse empty and repeated column names.

    Raises:
        DataError: Naming them.
    """
    empty = [str(position) for position, name in enumerate(names, start=1) if not name]
    if empty:
        raise DataError(
            f"{where}: column {', '.join(empty)} has no name in the header: name each column "
            "(pandas writes such a column for its index: use to_csv(..., index=False))"
        )
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise DataError(f"{where}: the header names {', '.join(map(repr, repeated))} more than once; rename them")


def _settle(series: pd.Series[Any]) -> pd.Series[Any]:
    dtype = series.dtype
    if isinstance(dtype, pd.DatetimeTZDtype):
        moments: pd.Series[Any] = series.dt.tz_convert("UTC").dt.tz_localize(None).astype("datetime64[us]")
        return moments
    if pd.api.types.is_bool_dtype(dtype) and not isinstance(dtype, pd.CategoricalDtype):
        return series.astype("boolean") if series.hasnans else series.astype("bool")
    if pd.api.types.is_datetime64_dtype(dtype):
        return series.astype("datetime64[us]")
    if pd.api.types.is_timedelta64_dtype(dtype):
        seconds: pd.Series[Any] = series.dt.total_seconds()
        return seconds
    if pd.api.types.is_integer_dtype(dtype):
        whole = not series.hasnans and (series.empty or int(series.max()) < 2**63)
        return series.astype("int64" if whole else "float64")
    if pd.api.types.is_float_dtype(dtype):
        return series.astype("float64")
    return _settle_objects(series.astype(object))


def _settle_objects(series: pd.Series[Any]) -> pd.Series[Any]:
    present = series[series.notna()]
    types = set(map(type, present))
    if not types:
        return pd.Series(np.nan, index=series.index, dtype="float64")
    if types <= {bool, np.bool_}:
        return series.astype("boolean")
    if (pictures := _pictures(present, types)) is not None:
        return pictures.reindex(series.index)
    if all(issubclass(t, (int, float, Decimal, np.number)) and t is not bool for t in types):
        numbers = pd.to_numeric(series.astype("float64") if Decimal in types else series)
        return _settle(numbers) if numbers.dtype != object else series.astype("float64")
    if all(issubclass(t, dt.date) for t in types) or (
        types == {str} and all(_ISO_DATE.fullmatch(text.strip()) for text in present)
    ):
        dates = parse_dates(series)
        if dates[present.index].notna().all():
            return dates
    return pd.Series(
        [np.nan if missing else as_text(value) for value, missing in zip(series, series.isna(), strict=True)],
        index=series.index,
        dtype=object,
    )


def _pictures(present: pd.Series[Any], types: set[type]) -> pd.Series[Any] | None:
    """Pictures as the bytes of their files; None if they are no pictures."""
    if types <= {bytes, bytearray}:
        return present.map(bytes).astype(object)
    if types == {dict} and all(isinstance(value.get("bytes"), bytes) for value in present):
        return present.map(lambda value: value["bytes"]).astype(object)
    if types == {np.ndarray} and all(value.dtype == np.uint8 and value.ndim in (2, 3) for value in present):
        return present.map(encode_image).astype(object)
    return None


def parse_dates(series: pd.Series[Any], pattern: str = "ISO8601") -> pd.Series[Any]:
    """Read values as dates: UTC without a zone; NaT where that fails.

    Args:
        series: Strings or dates.
        pattern: As ``datetime.strptime`` takes it, or ``ISO8601``.
    """
    texts = [
        value.isoformat() if isinstance(value, dt.date) else value.strip() if isinstance(value, str) else None
        for value in (None if missing else value for value, missing in zip(series, series.isna(), strict=True))
    ]
    return pd.Series(read_dates(texts, pattern), index=series.index)


def require_column(frame: pd.DataFrame, name: str, role: str) -> None:
    """Refuse a column name that the table does not have.

    Args:
        frame: The table.
        name: The column.
        role: What it is for, such as ``target``.

    Raises:
        DataError: Saying which columns there are.
    """
    if name not in frame.columns:
        raise DataError(
            f"the {role} column {name!r} is not in the table, which has: {', '.join(map(str, frame.columns))}"
        )


def column_kind(series: pd.Series[Any]) -> Kind:
    """Kind of a column whose type is settled.

    Strings are a ``category`` up to 200 distinct values, and ``text`` beyond, or where most values differ; bytes are
    pictures.
    """
    dtype = series.dtype
    if dtype.kind == "O" and any(isinstance(value, bytes) for value in series.dropna().head(1)):
        return "image"
    if pd.api.types.is_bool_dtype(dtype):
        return "boolean"
    if pd.api.types.is_datetime64_dtype(dtype):
        return "date"
    if pd.api.types.is_integer_dtype(dtype):
        return "integer"
    if pd.api.types.is_float_dtype(dtype):
        return "number"
    distinct = series.nunique()
    id_like = distinct > _ID_LIKE_MIN_DISTINCT and distinct > _ID_LIKE_SHARE * series.count()
    return "text" if distinct > MAX_CATEGORIES or id_like else "category"


@dataclass(frozen=True, kw_only=True)
class InferredColumns:
    """The columns to learn from.

    Args:
        columns: In the order of the table.
        left_out: Why each other column is left out, by name; the target is not among them.
    """

    columns: tuple[Column, ...]
    left_out: dict[str, str]


def infer_columns(
    frame: pd.DataFrame, target: str, *, exclude: Collection[str] = (), required: bool = True
) -> InferredColumns:
    """Tell what can be learned from.

    Left out, and logged, are columns without any value, strings of which nearly each row has its own (ids, free
    text), as a model could only learn the rows by heart, and pictures.

    Args:
        frame: A table with settled types.
        target: Column to be predicted.
        exclude: Columns that the user does not want to be learned from.
        required: Whether there has to be one.

    Raises:
        DataError: If ``exclude`` names a column that is not there, or nothing is left.
    """
    for name in exclude:
        require_column(frame, name, "excluded")
    columns, left_out = [], {}
    for name in map(str, frame.columns):
        if name == target:
            continue
        series = frame[name]
        reason = "excluded" if name in exclude else _why_left_out(series)
        if reason:
            left_out[name] = reason
            if reason != "excluded":
                _log.warning("The column %r is left out: %s.", name, reason)
            continue
        kind = column_kind(series)
        categories = tuple(sorted(series.dropna().unique())) if kind == "category" else None
        columns.append(Column(name=name, kind=kind, nullable=bool(series.isna().any()), categories=categories))
    if required and not columns:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items()) or "there is no other column"
        raise DataError(f"there is no column to learn from besides the target {target!r} ({reasons})")
    return InferredColumns(columns=tuple(columns), left_out=left_out)


def _why_left_out(series: pd.Series[Any]) -> str | None:
    present = series.count()
    if present == 0:
        return "all its values are missing"
    kind = column_kind(series)
    if kind == "image":
        return "it holds pictures, which train_torch and train_tensorflow learn from"
    if kind == "text" and series.nunique() > _ID_LIKE_SHARE * present:
        return f"it looks like an id or free text ({series.nunique()} different values in {present} rows)"
    return None


def infer_task(target: pd.Series[Any]) -> Task:
    """What kind of target a settled column is.

    Strings and booleans are classes. Numbers are classes if they are whole and at most 20 different ones, each
    standing for at least two rows on average; else they are quantities.

    Raises:
        DataError: If the column holds dates.
    """
    kind = column_kind(target)
    if kind == "date":
        raise DataError(f"the target column {target.name!r} holds dates: turn it into a number or a class to predict")
    if kind in ("category", "text", "boolean"):
        return "classification"
    present = target.dropna().to_numpy(dtype=np.float64)
    distinct = len(np.unique(present))
    whole = bool(np.isfinite(present).all() and (present == np.floor(present)).all())
    few = distinct <= _MAX_CLASSES_OF_NUMBERS and 2 * distinct <= len(present)
    return "classification" if whole and few else "regression"


def make_bins(column: Column, series: pd.Series[Any]) -> FeatureBins:
    """Bins of a conformed column and how many rows fall in each.

    Numbers, dates and the brightness of pictures are cut at their deciles, or between their distinct values where there
    are at most ten; so is the length of texts that nearly all differ.

    Args:
        column: The column.
        series: Its conformed values.
    """
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    if column.kind in ("number", "integer", "date", "image") or _is_free_text(column, series):
        edges = _edges(measures(column.kind, series))
    elif column.kind == "boolean":
        categories = ("False", "True")
    else:
        frequent = sorted(series.value_counts().items(), key=lambda item: (-item[1], str(item[0])))
        categories = tuple(sorted(str(value) for value, _ in frequent[:_MAX_BIN_CATEGORIES]))
    size = len(edges or categories) + 2
    empty = FeatureBins(name=column.name, kind=column.kind, edges=edges, categories=categories, counts=(0,) * size)
    counts = np.bincount(bin_indices(empty, series), minlength=size)
    return FeatureBins(
        name=column.name, kind=column.kind, edges=edges, categories=categories, counts=tuple(map(int, counts))
    )


def _is_free_text(column: Column, series: pd.Series[Any]) -> bool:
    return column.kind == "text" and series.nunique() > _ID_LIKE_SHARE * series.count()


def _edges(measured: np.ndarray) -> tuple[float, ...]:
    values = measured[~np.isnan(measured)]
    distinct = np.unique(values)
    if len(distinct) <= _MAX_BINS:
        return tuple(map(float, distinct[1:]))
    quantiles = np.unique(np.quantile(values, np.arange(1, _MAX_BINS) / _MAX_BINS, method="higher"))
    return tuple(float(edge) for edge in quantiles if edge > distinct[0])
