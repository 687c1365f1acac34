"""What training has in common, whatever is trained."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any, Final, get_args

import numpy as np
import pandas as pd

from longshore.errors import ConfigError, DataError, TrainingError
from longshore.packaging.card import Label, Signature, Task, as_text
from longshore.packaging.frame import frame_to_rows
from longshore.training.columns import require_column

__all__ = [
    "as_labels",
    "check_target",
    "check_task_and_seed",
    "classes_of",
    "example_rows",
    "plain_parameters",
    "with_target",
]

_TASKS: Final = ("auto", *get_args(Task))
_EXAMPLE_ROWS: Final = 2

_log = logging.getLogger(__name__)


def check_task_and_seed(task: str, seed: int) -> None:
    """Refuse a task that is not known and a seed that is none.

    Raises:
        ConfigError: Naming what is valid.
    """
    if task not in _TASKS:
        raise ConfigError(f"task = {task!r} is not known: use one of {', '.join(_TASKS)}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ConfigError(f"seed = {seed!r} is not valid: use a whole number from 0 to 4294967295")


def with_target(table: pd.DataFrame, target: str) -> pd.DataFrame:
    """The rows that have a target.

    Raises:
        DataError: If there are none, or there is no such column.
    """
    if table.empty:
        raise DataError("the table has no rows: there is nothing to learn from")
    require_column(table, target, "target")
    labelled = table[table[target].notna()].reset_index(drop=True)
    if labelled.empty:
        raise DataError(f"the target column {target!r} has no value in any of the {len(table)} rows")
    if missing := len(table) - len(labelled):
        _log.warning("%d of %d rows have no value in the target %r and are left out.", missing, len(table), target)
    return labelled


def check_target(target: pd.Series[Any], task: Task, where: str, *, use: Mapping[Task, str]) -> None:
    """Refuse a target that does not fit the task.

    Args:
        target: The settled column.
        task: What is to be trained.
        where: Who says so, for the message.
        use: What to use for each task instead.

    Raises:
        TrainingError: If it does not.
    """
    numeric = target.dtype.kind in "if"
    if task == "regression" and not numeric:
        raise TrainingError(
            f"{where}, but the target {target.name!r} holds classes such as {target.iloc[0]!r}: "
            f"use {use['classification']}"
        )
    if task == "classification" and numeric and _is_continuous(target):
        raise TrainingError(
            f"{where}, but the target {target.name!r} holds {target.nunique()} different numbers such as "
            f"{target.iloc[0]!r}: use {use['regression']}"
        )


def _is_continuous(target: pd.Series[Any]) -> bool:
    values = target.to_numpy(dtype=np.float64)
    return bool((values != np.floor(values)).any()) or 2 * target.nunique() > len(target)


def as_labels(target: pd.Series[Any], task: Task) -> np.ndarray:
    """What is learned from a settled column: labels as Python knows them, or numbers.

    Raises:
        DataError: If there is an infinite number among them.
    """
    if task == "regression":
        numbers = target.to_numpy(dtype=np.float64)
        if not np.isfinite(numbers).all():
            raise DataError(f"the target column {target.name!r} holds infinite numbers: drop those rows first")
        return numbers
    if pd.api.types.is_bool_dtype(target.dtype):
        return target.to_numpy(dtype=bool)
    if target.dtype.kind == "f":
        return target.to_numpy(dtype=np.int64)
    return target.map(sys.intern).to_numpy(dtype=object) if target.dtype == object else target.to_numpy()


def classes_of(labels: np.ndarray, target: str) -> tuple[Label, ...]:
    """The labels, each once and sorted.

    Raises:
        DataError: If there is one only.
    """
    classes = tuple(np.unique(labels).tolist())
    if len(classes) < 2:
        raise DataError(
            f"the target column {target!r} has one class only ({classes[0]!r}): at least two are needed to tell apart"
        )
    return classes


def example_rows(signature: Signature, features: pd.DataFrame) -> tuple[Mapping[str, Any], ...]:
    """Two rows for the card, without gaps if there are such."""
    complete = features[features.notna().all(axis=1)]
    return tuple(frame_to_rows(signature, (complete if len(complete) else features).head(_EXAMPLE_ROWS)))


def plain_parameters(value: Any) -> Any:
    """A parameter as JSON; what JSON cannot hold is told by its type, since a repr may hold an address."""
    if isinstance(value, Mapping):
        return {str(key): plain_parameters(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_parameters(item) for item in value]
    if isinstance(value, np.generic):
        return plain_parameters(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return as_text(value) if np.isnan(value) else ("inf" if value > 0 else "-inf")
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return f"{type(value).__module__}.{type(value).__qualname__}"
