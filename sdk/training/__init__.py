"""From a table to a model directory.

Names load when first used: unpickling a model imports this package, and must not bring all of training along.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from longshore.training.columns import infer_columns, settle_types
    from longshore.training.data import read_dataset, read_table, table_digest, write_table
    from longshore.training.fit import TrainedModel, train_sklearn
    from longshore.training.split import split

_HOME: Final = {
    **dict.fromkeys(("infer_columns", "settle_types"), "longshore.training.columns"),
    **dict.fromkeys(("read_dataset", "read_table", "table_digest", "write_table"), "longshore.training.data"),
    **dict.fromkeys(("TrainedModel", "train_sklearn"), "longshore.training.fit"),
    "split": "longshore.training.split",
}

__all__ = [
    "TrainedModel",
    "infer_columns",
    "read_dataset",
    "read_table",
    "settle_types",
    "split",
    "table_digest",
    "train_sklearn",
    "write_table",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'longshore.training' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
