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
    from longshore.training.loop import Course, Epoch
    from longshore.training.networks import TrainedNetwork
    from longshore.training.onnx import describe_onnx, read_onnx
    from longshore.training.pictures import read_images
    from longshore.training.pytorch import train_torch
    from longshore.training.source import source_digest
    from longshore.training.splitting import split
    from longshore.training.tensorflow import train_tensorflow

_HOME: Final = {
    **dict.fromkeys(("infer_columns", "settle_types"), "longshore.training.columns"),
    **dict.fromkeys(("read_dataset", "read_table", "table_digest", "write_table"), "longshore.training.data"),
    **dict.fromkeys(("TrainedModel", "train_sklearn"), "longshore.training.fit"),
    **dict.fromkeys(("describe_onnx", "read_onnx"), "longshore.training.onnx"),
    **dict.fromkeys(("Course", "Epoch"), "longshore.training.loop"),
    "TrainedNetwork": "longshore.training.networks",
    "read_images": "longshore.training.pictures",
    "source_digest": "longshore.training.source",
    "split": "longshore.training.splitting",
    "train_tensorflow": "longshore.training.tensorflow",
    "train_torch": "longshore.training.pytorch",
}

__all__ = [
    "Course",
    "Epoch",
    "TrainedModel",
    "TrainedNetwork",
    "describe_onnx",
    "infer_columns",
    "read_dataset",
    "read_images",
    "read_onnx",
    "read_table",
    "settle_types",
    "source_digest",
    "split",
    "table_digest",
    "train_sklearn",
    "train_tensorflow",
    "train_torch",
    "write_table",
]


def __getattr__(name: str) -> Any:
    return load(__name__, _HOME, name)


def __dir__() -> list[str]:
    return sorted(__all__)
