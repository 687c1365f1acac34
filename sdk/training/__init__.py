"""From a table to a model directory.

Names load when first used: unpickling a model imports this package, and must not bring all of training along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from longshore._lazy import load

if TYPE_CHECKING:
    from longshore.training.columns import infer_columns, settle_types
    from longshore.training.data import read_dataset, read_table, table_digest, write_table
    from longshore.training.fit import TrainedModel, train_sklearn
    from longshore.training.onnx import describe_onnx, read_onnx
    from longshore.training.splitting import split

_HOME: Final = {
    **dict.fromkeys(("infer_columns", "settle_types"), "longshore.training.columns"),
    **dict.fromkeys(("read_dataset", "read_table", "table_digest", "write_table"), "longshore.training.data"),
    **dict.fromkeys(("TrainedModel", "train_sklearn"), "longshore.training.fit"),
    **dict.fromkeys(("describe_onnx", "read_onnx"), "longshore.training.onnx"),
    "split": "longshore.training.splitting",
}

__all__ = [
    "TrainedModel",
    "describe_onnx",
    "infer_columns",
    "read_dataset",
    "read_onnx",
    "read_table",
    "settle_types",
    "split",
    "table_digest",
    "train_sklearn",
    "write_table",
]


def __getattr__(name: str) -> Any:
    return load(__name__, _HOME, name)


def __dir__() -> list[str]:
    return sorted(__all__)
