"""Tensors as bytes, which gRPC and the binary data of V2 over REST have in common.

Numbers are little-endian, row by row. Strings each have their length in front, as four bytes.

Source: github.com/kserve/open-inference-protocol (gRPC: raw_input_contents), and the binary tensor data extension
(docs.nvidia.com/deeplearning/triton-inference-server, protocol/extension_binary_data), which KServe's server and client
speak: the JSON comes first, ``Inference-Header-Content-Length`` bytes of it, then the tensors that have a
``binary_data_size`` among their parameters, in their order.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np

from longshore.serving.protocol import encode, parse
from longshore.serving.refusals import RequestError

__all__ = ["LAYOUTS", "binary_outputs", "check_datatype", "join", "pack", "split", "unpack"]

LAYOUTS: Final[Mapping[str, str | None]] = {
    "BOOL": "<u1",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
    "BYTES": None,
}
"""numpy's layout of each datatype; None for strings."""

_LENGTH: Final = struct.Struct("<I")


def check_datatype(name: str, datatype: Any) -> str:
    """The datatype of a tensor, if it is one.

    Raises:
        RequestError: If it is unknown.
    """
    if not isinstance(datatype, str) or datatype not in LAYOUTS:
        raise RequestError(400, f"input {name!r}: datatype {datatype!r} is unknown: use one of {', '.join(LAYOUTS)}")
    return datatype


def unpack(name: str, datatype: str, raw: bytes | memoryview) -> list[Any] | np.ndarray:
    """The values of a tensor.

    Args:
        name: Its name, for messages.
        datatype: Its datatype.
        raw: Its bytes.

    Returns:
        Booleans or strings in a list, numbers in an array.

    Raises:
        RequestError: If the bytes are no such values.
    """
    layout = LAYOUTS[datatype]
    if layout is None:
        return _strings(name, raw)
    size = np.dtype(layout).itemsize
    if len(raw) % size:
        raise RequestError(400, f"input {name!r}: {len(raw)} raw bytes are no whole number of {datatype} values")
    values = np.frombuffer(raw, layout)
    return values.astype(bool).tolist() if datatype == "BOOL" else values


def _strings(name: str, raw: bytes | memoryview) -> list[str]:
    values, start = list[str](), 0
    while start < len(raw):
        begin = start + _LENGTH.size
        start = begin + _LENGTH.unpack_from(raw, start)[0] if begin <= len(raw) else begin
        if start > len(raw):
            raise RequestError(400, f"input {name!r}: the raw bytes end within value {len(values)}")
        try:
            values.append(str(raw[begin:start], "utf-8"))
        except UnicodeDecodeError as error:
            raise RequestError(400, f"input {name!r}: a value is not UTF-8: {error}") from error
    return values


def pack(datatype: str, values: Sequence[Any]) -> bytes:
    """The bytes of a tensor."""
    layout = LAYOUTS[datatype]
    if layout is None:
        return b"".join(_LENGTH.pack(len(value)) + value for value in (text.encode() for text in values))
    return np.array(values, layout).tobytes()


def split(body: bytes, length: bytes) -> dict[str, Any]:
    """A V2 request with binary data, as its JSON would be with ``data`` in every input.

    Args:
        body: The body.
        length: What ``Inference-Header-Content-Length`` says.

    Raises:
        RequestError: If header, JSON and bytes do not fit each other.
    """
    if not length.isdigit() or int(length) > len(body):
        raise RequestError(
            400, f"Inference-Header-Content-Length is {length.decode('latin-1')}, and the body has {len(body)} bytes"
        )
    content = parse(body[: int(length)])
    rest, start = memoryview(body), int(length)
    inputs = content.get("inputs")
    for tensor in inputs if isinstance(inputs, list) else ():
        parameters = tensor.get("parameters") if isinstance(tensor, dict) else None
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if size is None:
            continue
        name = tensor.get("name")
        if type(size) is not int or size < 0 or start + size > len(body):
            raise RequestError(400, f"input {name!r}: there are no {size} bytes of binary data left for it")
        tensor["data"] = unpack(
            str(name), check_datatype(str(name), tensor.get("datatype")), rest[start : start + size]
        )
        start += size
    if start != len(body):
        raise RequestError(400, f"{len(body) - start} bytes of binary data belong to no input")
    return content


def binary_outputs(content: Mapping[str, Any]) -> Collection[str]:
    """Names of the outputs that a V2 request wants as binary data; ``*`` stands for all others.

    Args:
        content: The request.
    """
    wanted = {"*"} if _says(content, "binary_data_output") else set[str]()
    outputs = content.get("outputs")
    for output in outputs if isinstance(outputs, list) else ():
        if isinstance(output, dict) and isinstance(output.get("name"), str) and _says(output, "binary_data"):
            wanted.add(output["name"])
    return wanted


def _says(described: Mapping[str, Any], parameter: str) -> bool:
    parameters = described.get("parameters")
    return isinstance(parameters, dict) and parameters.get(parameter) is True


def join(content: Mapping[str, Any], binary: Collection[str]) -> tuple[bytes, int]:
    """A V2 answer with binary data.

    Args:
        content: The answer.
        binary: Names of the outputs that are sent so; ``*`` for all.

    Returns:
        The body, and the length of the JSON in front.
    """
    outputs, parts = list[Mapping[str, Any]](), list[bytes]()
    for output in content["outputs"]:
        if "*" not in binary and output["name"] not in binary:
            outputs.append(output)
            continue
        parts.append(pack(output["datatype"], output["data"]))
        described = {name: value for name, value in output.items() if name != "data"}
        outputs.append({**described, "parameters": {"binary_data_size": len(parts[-1])}})
    header = encode({**content, "outputs": outputs})
    return b"".join((header, *parts)), len(header)
