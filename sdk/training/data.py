"""Tables in and out: CSV and Parquet from any URI, and the data sets that pipeline steps hand on."""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import hashlib
import io
import json
import lzma
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from longshore import storage
from longshore.errors import ConfigError, DataError, StorageError
from longshore.packaging.card import as_text
from longshore.training.columns import check_headers, parse_dates, require_column, settle_types

__all__ = ["read_dataset", "read_table", "table_digest", "write_table"]

_SEPARATORS: Final = (",", ";", "\t", "|")
_SAMPLE_LINES: Final = 50
_BOMS: Final = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_PARQUET_MAGIC: Final = b"PAR1"
_PANDAS_INDEX: Final = re.compile(r"__index_level_\d+__")
_DECIMAL_COMMA: Final = re.compile(r"(?:^|;)\s*\"?[-+]?\d+,\d+\"?\s*(?=;|$)", re.MULTILINE)
_MAX_FIELD: Final = 2**27
_DATE_PATTERNS: Final = (
    "ISO8601",
    *(
        day + time
        for day in ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y%m%d")
        for time in ("", " %H:%M", " %H:%M:%S")
    ),
)


def read_table(
    uri: str,
    *,
    format: str | None = None,  # noqa: A002 - the field's word
    separator: str | None = None,
    encoding: str | None = None,
    na_values: Sequence[str] = (),
    date_columns: Sequence[str] = (),
) -> pd.DataFrame:
    """Read a table and settle the types of its columns.

    Args:
        uri: Path or URI; ``.gz``, ``.bz2``, ``.xz`` and ``.zip`` are unpacked.
        format: ``csv`` or ``parquet``; by default Parquet if the content starts as such a file does, else CSV.
        separator: Of a CSV file; by default the one of comma, semicolon, tab and bar that divides its first lines best.
        encoding: Of a CSV file; by default told from a byte order mark, else UTF-8, else Windows-1252.
        na_values: Further words that stand for a missing value, beyond pandas' own (such as empty, ``NA``, ``null``).
        date_columns: Columns to read as dates, written in any of the usual ways, such as ``17.05.2024``, ``5/17/2024
            14:30`` or ``20240517``. Columns with nothing but ISO 8601 dates need not be named.

    Returns:
        The table, with the types of :func:`longshore.training.columns.settle_types`. In a CSV file, a column with
        numbers such as ``01234`` holds codes, and they stay strings.

    Raises:
        StorageError: If there is nothing to read.
        DataError: If it is no table: empty, without rows, undecodable, ragged, with empty or repeated headers.
        ConfigError: If an option is not valid.
    """
    if format not in (None, "csv", "parquet"):
        raise ConfigError(f"format = {format!r} is not known: use 'csv' or 'parquet'")
    with storage.open_read(uri) as stream:
        content = _unpack(uri, stream.read())
    if not content.strip():
        raise DataError(f"{uri} is empty")
    if format == "parquet" or (format is None and content.startswith(_PARQUET_MAGIC)):
        frame = _read_parquet(uri, content)
    else:
        frame = _read_csv(uri, content, separator, encoding, na_values)
    if frame.empty:
        raise DataError(f"{uri} has no rows, only the columns {', '.join(map(str, frame.columns))}")
    return _read_dates(uri, settle_types(frame), date_columns)


def _unpack(uri: str, content: bytes) -> bytes:
    suffix = PurePosixPath(urlsplit(uri).path if "://" in uri else uri).suffix.lower()
    try:
        if suffix == ".gz":
            return gzip.decompress(content)
        if suffix == ".bz2":
            return bz2.decompress(content)
        if suffix == ".xz":
            return lzma.decompress(content)
        if suffix == ".zip":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                names = [name for name in archive.namelist() if not name.endswith("/")]
                if len(names) != 1:
                    raise DataError(f"{uri} holds {len(names)} files, one table is needed: {', '.join(names[:10])}")
                return archive.read(names[0])
    except (OSError, EOFError, ValueError, RuntimeError, lzma.LZMAError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{uri} is not a valid {suffix} file: {error}") from error
    return content


def _read_parquet(uri: str, content: bytes) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{uri} is not a valid Parquet file: {error}") from error
    check_headers([name.strip() for name in table.column_names], uri)
    kept = [name for name in table.column_names if not _PANDAS_INDEX.fullmatch(name)]
    # pandas' own metadata would hide columns that were an index
    frame: pd.DataFrame = table.select(kept).to_pandas(ignore_metadata=True)
    return frame


def _read_csv(
    uri: str, content: bytes, separator: str | None, encoding: str | None, na_values: Sequence[str]
) -> pd.DataFrame:
    text = _decode(uri, content, encoding)
    if separator is None:
        separator = _sniff_separator(text)
    elif len(separator) != 1 or separator in '\r\n"':
        raise ConfigError(f"separator = {separator!r} is not valid: use one character, such as ';'")
    read: Any = partial(
        pd.read_csv,
        sep=separator,
        header=0,
        names=_check_lines(uri, text, separator),
        index_col=False,
        na_values=list(na_values),
        decimal="," if separator == ";" and _DECIMAL_COMMA.search(_sample(text)) else ".",
        low_memory=False,
        skipinitialspace=True,
    )
    try:
        frame: pd.DataFrame = read(io.StringIO(text))
        whole = [name for name in map(str, frame.columns) if _is_whole(frame[name])]
        if whole:
            texts = read(io.StringIO(text), usecols=whole, dtype=str)
            for name in whole:
                if texts[name].str.fullmatch(r"0\d+").any():
                    frame[name] = texts[name]
        return frame
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{uri} cannot be read as CSV: {error}") from error


def _is_whole(series: pd.Series[Any]) -> bool:
    present = series.dropna()
    return present.dtype.kind in "iuf" and not present.empty and bool((present % 1 == 0).all())


def _decode(uri: str, content: bytes, encoding: str | None) -> str:
    if encoding is None:
        encoding = next((name for bom, name in _BOMS if content.startswith(bom)), None)
    candidates = (encoding,) if encoding else ("utf-8", "cp1252")
    for name in candidates:
        try:
            text = content.decode(name)
        except LookupError as error:
            raise ConfigError(f"encoding = {name!r} is not known: use a name such as 'utf-8' or 'latin-1'") from error
        except UnicodeError:
            continue
        if "\0" not in text:
            return text
    raise DataError(
        f"{uri} is not text in {' or '.join(candidates)}: name its encoding, or its format if it is not CSV"
    )


def _sample(text: str) -> str:
    return "\n".join(text[: 2**16].splitlines()[:_SAMPLE_LINES])


def _sniff_separator(text: str) -> str:
    lines = _sample(text).splitlines()

    def score(separator: str) -> tuple[float, int]:
        widths = [len(row) for row in csv.reader(lines, delimiter=separator, skipinitialspace=True) if row]
        if not widths or widths[0] == 1:
            return (0.0, 0)
        return (sum(width == widths[0] for width in widths) / len(widths), widths[0])

    best = max(_SEPARATORS, key=score)
    return best if score(best)[1] else ","


def _check_lines(uri: str, text: str, separator: str) -> list[str]:
    # pandas fills short lines up without a word, so the widths are checked before
    csv.field_size_limit(_MAX_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=False)
    try:
        names = [name.strip() for name in next(row for row in reader if row)]
        check_headers(names, uri)
        for row in reader:
            if row and len(row) != len(names):
                raise DataError(
                    f"{uri}: line {reader.line_num} has {len(row)} values, but the header names {len(names)} columns "
                    f"(the separator is taken to be {separator!r})"
                )
    except csv.Error as error:
        raise DataError(f"{uri}: line {reader.line_num} cannot be read as CSV: {error}") from error
    return names


def _read_dates(uri: str, frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    for name in columns:
        require_column(frame, name, "date")
        if frame[name].dtype.kind != "M":
            frame[name] = _dates_in_any_pattern(uri, frame[name])
    return frame


def _dates_in_any_pattern(uri: str, series: pd.Series[Any]) -> pd.Series[Any]:
    texts = series.map(as_text, na_action="ignore").astype(object)
    present = series.notna().to_numpy()
    readings = [(pattern, parse_dates(texts, pattern)) for pattern in _DATE_PATTERNS]
    complete = [(pattern, dates) for pattern, dates in readings if dates[present].notna().all()]
    if not complete:
        best, dates = max(readings, key=lambda reading: int(reading[1].count()))
        position = int(np.flatnonzero(present & dates.isna().to_numpy())[0])
        raise DataError(
            f"{uri}: the date column {series.name!r} holds values that are not dates of one pattern: "
            f"the first that is not {best} is {texts.iloc[position]!r} in data row {position + 1}"
        )
    (first, dates), *others = complete
    for other, differing in others:
        if not differing.equals(dates):
            raise DataError(
                f"{uri}: the dates in the column {series.name!r}, such as {texts[present].iloc[0]!r}, can be read "
                f"as {first} and as {other}: write them as 2024-05-17"
            )
    return dates


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        work = Path(folder, path.name)
        yield work
        work.replace(path)


def write_table(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a data set as Parquet: whole, or not at all. Equal tables give equal bytes.

    Args:
        frame: The table; its types are settled first, its index is not kept.
        path: File to write.

    Raises:
        StorageError: If it could not be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(settle_types(frame), preserve_index=False).replace_schema_metadata(None)
    try:
        with _new_file(Path(path)) as work:
            pq.write_table(table, work, compression="zstd")
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error.strerror or error}") from error


def read_dataset(path: str | Path) -> pd.DataFrame:
    """Read a data set that :func:`write_table` wrote, or any other table that :func:`read_table` can read.

    Raises:
        StorageError: If there is no such file.
        DataError: If it is no table or has no rows.
    """
    return read_table(str(path))


def table_digest(frame: pd.DataFrame) -> str:
    """Digest of a table's content: names, types, and values in order; the same for CSV and Parquet of one table.

    It is SHA-256 over, for each column, a JSON line with its name and type, then the values: numbers and dates (in
    microseconds) as little-endian 64-bit words with one NaN for all missing ones, booleans as bytes (2 for missing),
    strings as a JSON array, pictures as the length of each (-1 for missing) and then their bytes.
    """
    digest = hashlib.sha256()
    settled = settle_types(frame)
    for name in settled.columns:
        kind, values = _canonical(settled[name])
        digest.update(json.dumps([name, kind, len(settled)]).encode() + b"\n")
        digest.update(values)
    return "sha256:" + digest.hexdigest()


def _canonical(series: pd.Series[Any]) -> tuple[str, bytes]:
    if pd.api.types.is_bool_dtype(series.dtype):
        return "boolean", series.astype("Int8").fillna(2).to_numpy(dtype=np.int8).tobytes()
    if series.dtype.kind == "M":
        return "date", series.to_numpy().astype("datetime64[us]").astype("<i8").tobytes()
    if series.dtype.kind == "i":
        return "integer", series.to_numpy(dtype="<i8").tobytes()
    if series.dtype.kind == "f":
        numbers = series.to_numpy(dtype="<f8").copy()
        numbers[np.isnan(numbers)] = np.nan
        return "number", numbers.tobytes()
    if any(isinstance(value, bytes) for value in series):
        files = [value if isinstance(value, bytes) else None for value in series]
        lengths = np.array([-1 if file is None else len(file) for file in files], dtype="<i8")
        return "image", lengths.tobytes() + b"".join(file or b"" for file in files)
    texts = [value if isinstance(value, str) else None for value in series]
    return "string", json.dumps(texts).encode()
