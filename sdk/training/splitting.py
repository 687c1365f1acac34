"""A training and a test part of one table."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import pandas as pd

from longshore.errors import ConfigError, DataError
from longshore.training.columns import infer_task, require_column, settle_types

__all__ = ["METHODS", "split"]

METHODS: Final = ("auto", "random", "stratified", "time", "group")


def split(
    frame: pd.DataFrame,
    *,
    target: str,
    method: str = "auto",
    test_size: float = 0.2,
    seed: int = 0,
    time_column: str | None = None,
    group_column: str | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Divide a table into a training and a test part; rows keep their order within each.

    Args:
        frame: The table.
        target: Column to be predicted.
        method: ``random``; ``stratified``: each class has the same share in both parts; ``time``: the latest rows are
            the test part, rows of one time stay together; ``group``: rows of one group stay together; ``auto``: by
            time or group where such a column is named, else stratified where the target is a class with enough rows
            for both parts, else random.
        test_size: Share of rows in the test part, between 0 and 1; rows that stay together can shift it.
        seed: Seed of the shuffle.
        time_column: Column that orders the rows, dates or numbers.
        group_column: Column whose equal values stay together.

    Returns:
        The training part and the test part, each with at least one row.

    Raises:
        ConfigError: If the arguments do not go together.
        DataError: If a column is not there, or the table cannot be divided in that way.
    """
    method = _check(frame, target, method, test_size, time_column, group_column)
    rows = len(frame)
    count = min(max(1, round(rows * test_size)), rows - 1)
    rng = np.random.default_rng(seed)
    if method == "time":
        test = _by_time(frame, str(time_column), count)
    elif method == "group":
        test = _by_group(frame, str(group_column), count, rng)
    elif method == "stratified" or (method == "auto" and _can_stratify(frame[target], count)):
        test = _stratified(frame[target], count, rng)
    else:
        test = np.zeros(rows, dtype=bool)
        test[rng.permutation(rows)[:count]] = True
    return frame[~test].reset_index(drop=True), frame[test].reset_index(drop=True)


def _check(
    frame: pd.DataFrame,
    target: str,
    method: str,
    test_size: float,
    time_column: str | None,
    group_column: str | None,
) -> str:
    if method not in METHODS:
        raise ConfigError(f"method = {method!r} is not known: use one of {', '.join(METHODS)}")
    if isinstance(test_size, bool) or not isinstance(test_size, (int, float)) or not 0 < test_size < 1:
        raise ConfigError(f"test_size = {test_size!r} is not valid: use a share between 0 and 1, such as 0.2")
    named = {"time": time_column, "group": group_column}
    if method == "auto":
        if time_column and group_column:
            raise ConfigError("time_column and group_column are both given: name one, or say which by method")
        method = next((way for way, column in named.items() if column), "auto")
    for way, column in named.items():
        if way == method and not column:
            raise ConfigError(f"method {method!r} needs {way}_column: the column that {_ROLE[way]}")
        if way != method and column:
            raise ConfigError(f"{way}_column = {column!r} is of no use to the method {method!r}: leave it out")
        if column:
            require_column(frame, column, way)
    require_column(frame, target, "target")
    if len(frame) < 2:
        raise DataError(f"a table of {len(frame)} rows cannot be divided into a training and a test part")
    return method


_ROLE: Final = {"time": "orders the rows", "group": "says which rows stay together"}


def _by_time(frame: pd.DataFrame, column: str, count: int) -> np.ndarray:
    times: Any = settle_types(frame[[column]])[column]
    if times.isna().any():
        raise DataError(f"{int(times.isna().sum())} rows have no value in the time column {column!r}: drop them first")
    if times.dtype.kind not in "Mif":
        raise DataError(
            f"the time column {column!r} holds neither dates nor numbers, such as {times.iloc[0]!r}: "
            "name it in date_columns when the table is loaded"
        )
    values = times.to_numpy()
    boundary = np.sort(values)[len(values) - count]
    test = values >= boundary
    if test.all():
        test = values > boundary
    if not test.any():
        raise DataError(f"all rows have the same time in {column!r} ({times.iloc[0]}): they cannot be divided by it")
    return np.asarray(test)


def _by_group(frame: pd.DataFrame, column: str, count: int, rng: np.random.Generator) -> np.ndarray:
    codes, groups = pd.factorize(frame[column], use_na_sentinel=True)
    if (codes < 0).any():
        raise DataError(f"{int((codes < 0).sum())} rows have no value in the group column {column!r}: drop them first")
    if len(groups) < 2:
        raise DataError(f"the group column {column!r} has one group only ({groups[0]!r}); at least two are needed")
    sizes = np.bincount(codes)
    order = rng.permutation(len(groups))
    # the number of whole groups whose rows come nearest to the wanted count, and never all of them
    taken = int(np.argmin(np.abs(np.cumsum(sizes[order])[:-1] - count))) + 1
    return np.isin(codes, order[:taken])


def _class_codes(target: pd.Series[Any]) -> tuple[np.ndarray, Any]:
    codes, classes = pd.factorize(target, sort=False, use_na_sentinel=True)
    return np.asarray(codes), classes


def _can_stratify(target: pd.Series[Any], count: int) -> bool:
    settled = settle_types(target.to_frame())[target.name]
    if settled.count() == 0 or settled.dtype.kind == "M" or infer_task(settled) != "classification":
        return False
    codes, classes = _class_codes(target)
    sizes = np.bincount(codes[codes >= 0])
    return bool(sizes.min() >= 2 and len(classes) <= min(count, len(target) - count))


def _stratified(target: pd.Series[Any], count: int, rng: np.random.Generator) -> np.ndarray:
    codes, classes = _class_codes(target)
    sizes = np.bincount(codes[codes >= 0], minlength=len(classes))
    if len(classes) == 0:
        raise DataError(f"the target column {target.name!r} has no value at all")
    if alone := [str(classes[code]) for code in np.flatnonzero(sizes < 2)]:
        raise DataError(
            f"the class {', '.join(map(repr, alone))} of {target.name!r} has one row only, which cannot be in both "
            "parts: bring more rows, drop the class, or use method 'random'"
        )
    if len(classes) > min(count, len(target) - count):
        raise DataError(
            f"{target.name!r} has {len(classes)} classes, too many for a test part of {count} and a training part of "
            f"{len(target) - count} rows: use another test_size, or method 'random'"
        )
    test = np.zeros(len(target), dtype=bool)
    for code, wanted in enumerate(_shares(sizes, count / len(target))):
        members = np.flatnonzero(codes == code)
        test[rng.permutation(members)[:wanted]] = True
    # rows without a target can neither train nor test; they stay in the training part, which counts and drops them
    return test


def _shares(sizes: np.ndarray, share: float) -> list[int]:
    # largest remainder: each class gets its whole number, the largest fractions get what is left
    exact = sizes * share
    wanted = np.clip(np.floor(exact).astype(int), 1, sizes - 1)
    left = math.floor(exact.sum() + 0.5) - int(wanted.sum())
    for code in np.argsort(np.floor(exact) - exact, kind="stable"):
        if left <= 0:
            break
        if wanted[code] < sizes[code] - 1:
            wanted[code] += 1
            left -= 1
    return [int(number) for number in wanted]
