"""TensorFlow's tensors as they are sent: values as raw bytes, or in a list for their type.

It works on any object with the fields of ``TensorProto``, whatever code was generated for it.

Source: github.com/tensorflow/tensorflow (core/framework/tensor.proto, types.proto).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

__all__ = ["DOUBLE", "FLOAT", "INT64", "STRING", "TYPES", "nested", "read_tensor", "tensor_fields"]


class Type(NamedTuple):
    """How values of one type are sent.

    Args:
        name: TensorFlow's name of the type.
        code: The layout of one value as raw bytes, for :mod:`struct`; strings have none.
        field: The list of its values.
    """

    name: str
    code: str
    field: str


TYPES: Final[Mapping[int, Type]] = {
    1: Type("DT_FLOAT", "f", "float_val"),
    2: Type("DT_DOUBLE", "d", "double_val"),
    3: Type("DT_INT32", "i", "int_val"),
    4: Type("DT_UINT8", "B", "int_val"),
    5: Type("DT_INT16", "h", "int_val"),
    6: Type("DT_INT8", "b", "int_val"),
    7: Type("DT_STRING", "", "string_val"),
    9: Type("DT_INT64", "q", "int64_val"),
    10: Type("DT_BOOL", "?", "bool_val"),
    17: Type("DT_UINT16", "H", "int_val"),
    19: Type("DT_HALF", "e", "half_val"),
    22: Type("DT_UINT32", "I", "uint32_val"),
    23: Type("DT_UINT64", "Q", "uint64_val"),
}
"""The types, by their number; complex, quantised and other rare ones are left out."""

FLOAT: Final = 1
DOUBLE: Final = 2
STRING: Final = 7
INT64: Final = 9

_REPEATED: Final = 2**24
"""How far a short list is filled up: a few bytes must not become gigabytes."""


def read_tensor(tensor: Any) -> tuple[list[Any], list[int]]:
    """Values and shape of a tensor.

    Args:
        tensor: A ``TensorProto``.

    Returns:
        The values row by row, strings as bytes, and the size of each dimension.

    Raises:
        ValueError: If the type is not in :data:`TYPES`, or there are not as many values as its shape says.
    """
    kind = TYPES.get(tensor.dtype)
    if kind is None:
        raise ValueError(
            f"its dtype is {tensor.dtype}, and {', '.join(known.name for known in TYPES.values())} are read"
        )
    shape = [int(dim.size) for dim in tensor.tensor_shape.dim]
    size = math.prod(shape)
    if tensor.tensor_content:
        values = _unpacked(kind, tensor.tensor_content)
    else:
        values = list(getattr(tensor, kind.field))
        if kind.code == "e":
            # their bits
            values = [struct.unpack("<e", struct.pack("<H", bits))[0] for bits in values]
        if 0 < len(values) < size <= _REPEATED:
            # the rest is as the last one
            values += values[-1:] * (size - len(values))
    if min(shape, default=0) < 0 or len(values) != size:
        raise ValueError(f"it holds {len(values)} values, and its shape is {shape}")
    return values, shape


def _unpacked(kind: Type, content: bytes) -> list[Any]:
    if not kind.code or len(content) % struct.calcsize(f"<{kind.code}"):
        raise ValueError(f"its tensor_content of {len(content)} bytes is no whole number of {kind.name} values")
    return list(struct.unpack(f"<{len(content) // struct.calcsize(f'<{kind.code}')}{kind.code}", content))


def tensor_fields(dtype: int, shape: Sequence[int], values: Sequence[Any]) -> dict[str, Any]:
    """The fields of a ``TensorProto``.

    Args:
        dtype: Number of its type, one of :data:`TYPES`.
        shape: Size of each dimension.
        values: The values row by row; strings as texts.

    Raises:
        ValueError: If a value is not of the type.
    """
    kind = TYPES[dtype]
    fields: dict[str, Any] = {"dtype": dtype, "tensor_shape": {"dim": [{"size": size} for size in shape]}}
    if not kind.code:
        if (wrong := next((value for value in values if not isinstance(value, str)), None)) is not None:
            raise ValueError(f"{wrong!r} is no text")
        return {**fields, kind.field: [value.encode() for value in values]}
    try:
        return {**fields, "tensor_content": struct.pack(f"<{len(values)}{kind.code}", *values)}
    except (struct.error, OverflowError, TypeError) as error:
        raise ValueError(f"not all values are {kind.name}: {error}") from error


def nested(values: Sequence[Any], shape: Sequence[int]) -> list[Any]:
    """Values in lists of lists, as their shape says.

    Args:
        values: The values row by row.
        shape: Size of each dimension, at least one.
    """
    if len(shape) == 1:
        return list(values)
    step = math.prod(shape[1:])
    return [nested(values[index * step : (index + 1) * step], shape[1:]) for index in range(shape[0])]
