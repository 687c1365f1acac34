"""KServe's V1 protocol and the Open Inference Protocol (V2): what a request means, and what is answered.

It knows no web framework and no gRPC; a face routes requests here and carries statuses and headers. :func:`predict` and
:func:`infer` take and give what the JSON of a request and its answer holds; :func:`read_v1` and :func:`read_v2` are the
first half of them, for a face that asks the model in its own way.

Sources: kserve.github.io/website (V1), github.com/kserve/open-inference-protocol (V2, REST). V2 tensors are one for
each column, of shape ``[n]`` or ``[n, 1]``; pictures can also be pixels ``[n, height, width, channels]``. The outputs
are named as MLServer's are, ``predict`` and ``predict_proba``.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
import simdjson

from longshore._version import __version__
from longshore.errors import InputError, ModelError
from longshore.packaging import Signature
from longshore.packaging.datatypes import column_type, label_type
from longshore.serving.core import Ask, Prediction, Predictor, Tensor
from longshore.serving.metrics import Kind
from longshore.serving.refusals import ClientGone, RequestError

__all__ = [
    "Asked",
    "Call",
    "encode",
    "infer",
    "measured",
    "model_v2",
    "no_prediction",
    "parse",
    "parse_v2",
    "predict",
    "read_v1",
    "read_v2",
    "server_v2",
    "tensor_values",
    "unexpected",
]

_LARGE_BODY: Final = 32 * 1024

_KEPT_BODY: Final = 4 * 2**20
"""What has read a body of up to so many bytes is kept for the next: its memory, 14 times as much, is there already."""

_NOT_JSON: Final = ("NaN", "Infinity")


def unexpected(error: BaseException) -> str:
    """What a client is told of a failure that nobody foresaw: the rest may be none of its business."""
    return f"the request failed ({type(error).__name__}): the server's log says where"


def no_prediction(seconds: float) -> str:
    """What a client is told whose prediction was not made in time."""
    return f"there was no prediction within {seconds:g} seconds: send fewer rows, or wait"


@dataclass(slots=True)
class Asked:
    """Whom a request is counted for.

    Args:
        predictor: The model.
    """

    predictor: Predictor


@contextmanager
def measured(predictor: Predictor, protocol: str) -> Iterator[Asked]:
    """Count what happens within as one prediction request.

    Args:
        predictor: The model that is asked, as long as none is set in what this gives.
        protocol: One of :data:`longshore.serving.metrics.PROTOCOLS`.
    """
    failed: Kind | None = None
    began = time.perf_counter()
    asked = Asked(predictor)
    try:
        yield asked
    except (RequestError, InputError, ClientGone) as error:
        failed = "server" if isinstance(error, RequestError) and error.status >= 500 else "client"
        raise
    except ModelError:
        failed = "model"
        raise
    except BaseException:
        failed = "server"
        raise
    finally:
        asked.predictor.counts.observe_prediction(protocol, time.perf_counter() - began, failed)


def encode(content: Any) -> bytes:
    """An answer as JSON; arrays of numbers may be in it."""
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


@dataclass(frozen=True, slots=True)
class Call:
    """A request that has been read.

    Args:
        ask: What it asks the model.
        answer: What a prediction makes as its answer, as its JSON would hold it.
    """

    ask: Ask
    answer: Callable[[Prediction], dict[str, Any]]


def predict(predictor: Predictor, content: Any) -> dict[str, Any]:
    """Answer a V1 predict request; see :func:`read_v1`.

    Raises:
        RequestError: If it is no such request.
        InputError: If rows do not fit the signature.
        ModelError: If the model fails, or what it answers is not finite.
    """
    call = read_v1(predictor, content)
    return call.answer(predictor.answer(call.ask))


def read_v1(predictor: Predictor, content: Any) -> Call:
    """A V1 predict request, answered by ``{"predictions": [...]}``, with ``probabilities`` and ``classes`` if wanted.

    Args:
        predictor: The model.
        content: ``{"instances": [row, ...], "parameters": {"probabilities": true}}``; rows are objects, or arrays in
            the order of the signature, and ``parameters`` may be left out.

    Raises:
        RequestError: If it is no such request.
    """
    rows = _object(content).get("instances")
    if not isinstance(rows, list):
        raise RequestError(400, "'instances' must be an array of rows: {\"instances\": [{...}, ...]}")

    def answer(done: Prediction) -> dict[str, Any]:
        answered: dict[str, Any] = {"predictions": done.values}
        if done.probabilities is not None:
            answered["probabilities"] = done.probabilities
            answered["classes"] = list(predictor.card.signature.classes or ())
        return answered

    return Call(Ask(rows=rows, probabilities=_wants_probabilities(content.get("parameters"))), answer)


def _wants_probabilities(parameters: Any) -> bool:
    if parameters is None:
        return False
    if not isinstance(parameters, dict):
        raise RequestError(400, "'parameters' must be an object such as {\"probabilities\": true}")
    if unknown := sorted(parameters.keys() - {"probabilities"}):
        raise RequestError(400, f"parameter {unknown[0]!r} is unknown: there is 'probabilities'")
    wanted = parameters.get("probabilities", False)
    if not isinstance(wanted, bool):
        raise RequestError(400, "parameter 'probabilities' must be true or false")
    return wanted


def infer(predictor: Predictor, content: Any, *, seconds: float = -1) -> dict[str, Any]:
    """Answer a V2 inference request; see :func:`read_v2`.

    Args:
        predictor: The model.
        content: The request.
        seconds: How long to wait for other calls of the model to end; by default as long as they take.

    Raises:
        RequestError: If it is no such request.
        InputError: If values do not fit the signature.
        ModelError: If the model fails, or what it answers is not finite.
        TimeoutError: If other calls have taken longer.
    """
    call = read_v2(predictor, content)
    return call.answer(predictor.answer(call.ask, seconds=seconds))


def read_v2(predictor: Predictor, content: Any) -> Call:
    """A V2 inference request.

    Args:
        predictor: The model.
        content: ``inputs`` with a tensor for each column, or with one tensor ``[n, columns]``, whatever its name, in
            the order of the signature; an input's ``data`` may be an array of numpy. ``outputs`` may name ``predict``
            and ``predict_proba``, and is ``predict`` by default; an ``id`` comes back in the answer.

    Raises:
        RequestError: If it is no such request.
    """
    signature = predictor.card.signature
    content = _object(content)
    wanted = _wanted_outputs(predictor, content.get("outputs"))
    ask = _asked(content.get("inputs"), signature, probabilities="predict_proba" in wanted)
    rows = len(ask)

    def answer(done: Prediction) -> dict[str, Any]:
        outputs = {
            "predict": {"datatype": label_type(signature), "shape": [rows], "data": done.values},
            "predict_proba": {
                "datatype": "FP64",
                "shape": [rows, len(signature.classes or ())],
                "data": _flat_shares(done.probabilities),
            },
        }
        answered: dict[str, Any] = {"model_name": predictor.name}
        if predictor.version is not None:
            answered["model_version"] = predictor.version
        if isinstance(content.get("id"), str):
            answered["id"] = content["id"]
        answered["outputs"] = [{"name": name, **outputs[name]} for name in wanted]
        return answered

    return Call(ask, answer)


def _flat_shares(shares: list[list[float]] | np.ndarray | None) -> list[float] | np.ndarray:
    if isinstance(shares, np.ndarray):
        return shares.reshape(-1)
    return [share for row in shares or () for share in row]


def _wanted_outputs(predictor: Predictor, outputs: Any) -> list[str]:
    if outputs is None or outputs == []:
        return ["predict"]
    known = [output["name"] for output in model_v2(predictor)["outputs"]]
    if not isinstance(outputs, list):
        raise RequestError(400, '\'outputs\' must be an array such as [{"name": "predict"}]')
    wanted = [output.get("name") if isinstance(output, dict) else None for output in outputs]
    for name in wanted:
        if name not in known:
            raise RequestError(400, f"output {name!r} is unknown: the model gives {', '.join(known)}")
    return [name for name in known if name in wanted]


def _asked(inputs: Any, signature: Signature, *, probabilities: bool) -> Ask:
    if not isinstance(inputs, list) or not inputs:
        raise RequestError(400, "'inputs' must be an array with a tensor for each column")
    for position, tensor in enumerate(inputs):
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise RequestError(400, f"inputs[{position}] must be an object with a 'name'")
        if not isinstance(tensor.get("data"), (list, np.ndarray)):
            raise RequestError(400, f"input {tensor['name']!r}: 'data' must be an array")
    names, shape = signature.names, inputs[0].get("shape")
    if len(inputs) == 1 and len(names) > 1 and isinstance(shape, list) and shape[1:] == [len(names)]:
        return Ask(tensor=_matrix(inputs[0], shape), probabilities=probabilities)
    return Ask(table=_tensors(inputs, signature), probabilities=probabilities)


def _matrix(tensor: Mapping[str, Any], shape: list[int]) -> Tensor:
    data = tensor["data"]
    if isinstance(data, list) and data and isinstance(data[0], list):
        # rows of another length, and what is no row, show in the number of values
        data = [cell for row in data for cell in (row if isinstance(row, list) and len(row) == shape[1] else ())]
    rows, width = shape
    if type(rows) is not int or len(data) != rows * width:
        raise RequestError(
            400, f"input {tensor['name']!r}: shape {shape} does not fit its {len(data)} values, row by row"
        )
    return Tensor(data, (rows, width))


def _tensors(inputs: Sequence[Mapping[str, Any]], signature: Signature) -> dict[str, Sequence[Any] | np.ndarray]:
    tensors: dict[str, Sequence[Any] | np.ndarray] = {}
    for tensor in inputs:
        if tensor["name"] in tensors:
            raise RequestError(400, f"input {tensor['name']!r} is there twice: send one tensor for each column")
        tensors[tensor["name"]] = _flat(tensor, signature)
    _check_columns(tensors, signature)
    if len({len(values) for values in tensors.values()}) != 1:
        lengths = ", ".join(f"{name!r} has {len(values)}" for name, values in tensors.items())
        raise RequestError(400, f"all inputs must have as many values: {lengths}")
    return tensors


def _flat(tensor: Mapping[str, Any], signature: Signature) -> Sequence[Any] | np.ndarray:
    data, shape = tensor["data"], tensor.get("shape")
    flat: Sequence[Any] | np.ndarray = data
    if isinstance(data, list):
        flat = [cell[0] if isinstance(cell, list) and len(cell) == 1 else cell for cell in data]
    if shape not in ([len(flat)], [len(flat), 1]):
        if (pixels := _pixels(tensor, signature)) is not None:
            return pixels
        columns = len(signature.names)
        whole = f", or one for all, of shape [n, {columns}]" if columns > 1 else ""
        raise RequestError(
            400,
            f"input {tensor['name']!r}: shape {shape} does not fit its {len(flat)} values; "
            f"send one tensor for each column, of shape [n] or [n, 1]{whole}",
        )
    return flat


def _pixels(tensor: Mapping[str, Any], signature: Signature) -> np.ndarray | None:
    """Pictures as one tensor of their pixels; None if it is no such tensor."""
    shapes = [list(column.shape) for column in signature.inputs if column.name == tensor["name"] and column.shape]
    shape = tensor.get("shape")
    if not shapes or not isinstance(shape, list) or shape[1:] != shapes[0]:
        return None
    try:
        return np.asarray(tensor["data"], dtype=np.float64).reshape(shape)
    except (TypeError, ValueError) as error:
        raise RequestError(
            400, f"input {tensor['name']!r}: its values do not fit the shape {shape}: {error}"
        ) from error


def _check_columns(present: Mapping[str, Any], signature: Signature) -> None:
    # told once for the tensor, not for each row of it
    names = signature.names
    if missing := [name for name in names if name not in present]:
        raise RequestError(400, f"there is no input for column {', '.join(map(repr, missing))}")
    if unknown := [name for name in present if name not in {*names, *signature.ignored, signature.target}]:
        raise RequestError(400, f"input {', '.join(map(repr, unknown))} is unknown: the model takes {', '.join(names)}")


def server_v2() -> dict[str, Any]:
    """V2 metadata of the server."""
    return {"name": "longshore", "version": __version__, "extensions": ["binary_tensor_data"]}


def model_v2(predictor: Predictor, versions: Sequence[str] | None = None) -> dict[str, Any]:
    """V2 metadata of the model: what it takes and gives.

    Args:
        predictor: The model.
        versions: The versions that are served, if there are others beside it.
    """
    signature = predictor.card.signature
    outputs: list[dict[str, Any]] = [{"name": "predict", "datatype": label_type(signature), "shape": [-1]}]
    if predictor.gives_probabilities:
        outputs.append({"name": "predict_proba", "datatype": "FP64", "shape": [-1, len(signature.classes or ())]})
    return {
        "name": predictor.name,
        "versions": versions or ([] if predictor.version is None else [predictor.version]),
        "platform": predictor.card.format,
        "inputs": [{"name": c.name, "datatype": column_type(c), "shape": [-1, 1]} for c in signature.inputs],
        "outputs": outputs,
    }


def tensor_values(name: str, datatype: str, values: list[Any]) -> list[Any]:
    """What a tensor of gRPC holds, as its JSON would: it has no null, so NaN is a missing value.

    Args:
        name: The tensor's name.
        datatype: Its datatype.
        values: Its values; strings as bytes.

    Raises:
        RequestError: If a string is not UTF-8.
    """
    if datatype == "BOOL":
        return [bool(value) for value in values]
    if datatype.startswith("FP"):
        return [None if math.isnan(value) else value for value in values]
    if datatype != "BYTES":
        return values
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError as error:
        raise RequestError(400, f"input {name!r}: a value is not UTF-8: {error}") from error


def parse(body: bytes) -> dict[str, Any]:
    """A request's body.

    Raises:
        RequestError: If it is no JSON object.
    """
    if not body:
        raise RequestError(400, "the body is empty: a JSON object is needed")
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        named = error.doc.startswith(_NOT_JSON, error.pos)
        hint = "; JSON has no NaN and no Infinity: use null for a missing value" if named else ""
        raise RequestError(400, f"the body is not JSON: {error}{hint}") from error
    return _object(content)


def parse_v2(body: bytes) -> dict[str, Any]:
    """A V2 request's body. In a large one, tensors of numbers are read as arrays, which takes a third of the time.

    Raises:
        RequestError: If it is no JSON object.
    """
    if len(body) >= _LARGE_BODY:
        # whatever it is that cannot be read so, the other way has the words for it
        with contextlib.suppress(LookupError, RuntimeError, TypeError, ValueError):
            return _with_arrays(body)
    return parse(body)


class _Kept(threading.local):
    """What each thread keeps."""

    def __init__(self) -> None:
        self.parser = simdjson.Parser()


_kept = _Kept()


def _with_arrays(body: bytes) -> dict[str, Any]:
    parser = _kept.parser if len(body) <= _KEPT_BODY else simdjson.Parser()
    # nothing of the document may outlive this call, or the parser reads no other one
    document: Any = parser.parse(body)
    # asked for by name, as the ways to all of an object's items make lists of what is in them
    content = {name: _plain(document[name]) for name in document if name != "inputs"}
    inputs = list[dict[str, Any]]()
    for position in range(len(document["inputs"])):
        tensor = document["inputs"][position]
        described = {name: _plain(tensor[name]) for name in tensor if name != "data"}
        data = tensor["data"]
        if not isinstance(data, simdjson.Array):
            raise TypeError
        inputs.append({**described, "data": np.frombuffer(data.as_buffer(of_type="d"))})
    return {**content, "inputs": inputs}


def _plain(value: Any) -> Any:
    if isinstance(value, simdjson.Array):
        return value.as_list()
    return value.as_dict() if isinstance(value, simdjson.Object) else value


def _object(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise RequestError(400, "the body must be a JSON object")
    return content
