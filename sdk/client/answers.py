"""What an endpoint has answered, and what may be said of it afterwards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longshore.errors import DeployError
from longshore.wire.tensorflow import nested

__all__ = ["Answer", "by_row", "single"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Predictions, and the messages that they came by, as far as feedback on them takes those.

    It is plain, so that it can be kept as JSON until somebody knows how good it was.

    Args:
        predictions: One for each row.
        request: What was sent, as JSON would have it; None where the protocol knows no feedback.
        response: What came back, likewise.
    """

    predictions: list[Any]
    request: Mapping[str, Any] | None = None
    response: Mapping[str, Any] | None = None


def by_row(where: str, values: Sequence[Any], shape: Sequence[int], rows: int) -> list[Any]:
    """The values of each row: the value itself where there is one only.

    Args:
        where: Who gave them, for messages.
        values: The values row by row.
        shape: Size of each dimension.
        rows: How many rows were sent.

    Raises:
        DeployError: If the first dimension is not that of the rows, or there are not as many values as the shape says.
    """
    if not shape or shape[0] != rows or math.prod(shape) != len(values):
        raise DeployError(f"{where}: {rows} rows were sent, and {len(values)} values of shape {list(shape)} came back")
    return list(values) if len(values) == rows else nested(values, shape)


def single(values: list[Any]) -> list[Any]:
    """The values of rows, out of their lists where each is a list of one."""
    lone = all(isinstance(value, list) and len(value) == 1 for value in values)
    return [value[0] for value in values] if lone else values
