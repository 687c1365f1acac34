"""Datatypes of the Open Inference Protocol for what a model takes and gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from longshore.packaging.card import Column, Signature

__all__ = ["column_type", "label_type"]

_COLUMNS: Final = {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}
_LABELS: Final[Mapping[type, str]] = {bool: "BOOL", int: "INT64", float: "FP64", str: "BYTES"}


def column_type(column: Column) -> str:
    """Datatype of a column."""
    return _COLUMNS.get(column.kind, "BYTES")


def label_type(signature: Signature) -> str:
    """Datatype of what the model predicts."""
    kinds: Sequence[type] = sorted({type(label) for label in signature.classes or ()}, key=str)
    return _LABELS[kinds[0]] if len(kinds) == 1 else "FP64"
