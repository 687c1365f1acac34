"""TensorFlow Serving's protocol, over REST and gRPC, without TensorFlow.

The server tells the inputs of its model, so that rows go in whatever form that takes: columns as an input each, or all
of them as the rows of the only one.

Sources: github.com/tensorflow/serving (tensorflow_serving/apis, g3doc/api_rest.md).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from longshore.client.access import Access
from longshore.client.answers import Answer, by_row, single
from longshore.client.http import Http
from longshore.client.rpc import Channel
from longshore.client.tensors import Row
from longshore.errors import DeployError, InputError
from longshore.spec import Endpoint
from longshore.wire.tensorflow import DOUBLE, FLOAT, STRING, TYPES, nested, read_tensor, tensor_fields

__all__ = ["Input", "TensorflowGrpc", "TensorflowRest", "as_inputs", "model_inputs"]

_SIGNATURE: Final = "serving_default"
_AVAILABLE: Final = 30
_OK: Final = 200
_NUMBERS: Final = {name.name: number for number, name in TYPES.items()}
_GAPS: Final = frozenset({FLOAT, DOUBLE})
_WHOLE: Final = frozenset(number for number, kind in TYPES.items() if kind.code in "bBhHiIqQ" and kind.code)


@dataclass(frozen=True, kw_only=True)
class Input:
    """An input of a model.

    Args:
        name: Its name in the signature.
        dtype: Number of its type.
        rank: How many dimensions it has, that of the rows included; None if the model does not say.
    """

    name: str
    dtype: int
    rank: int | None


@dataclass(frozen=True, kw_only=True)
class _Tensor:
    shape: list[int]
    values: list[Any]


def as_inputs(rows: Sequence[Row], inputs: Sequence[Input]) -> dict[str, _Tensor]:
    """Rows as the inputs of a model.

    Args:
        rows: Rows of plain values.
        inputs: The model's inputs. Rows that are mappings name them all; or there is one only, and it takes whole
            rows, in the order in which the first one has its values.

    Raises:
        InputError: If rows do not fit the inputs or each other, or have gaps where there are none.
    """
    names = [one.name for one in inputs]
    columns = list(rows[0]) if rows and isinstance(rows[0], Mapping) else None
    if columns is not None and set(columns) == set(names):
        cells = {one: [_cell(row, index, one.name) for index, row in enumerate(rows)] for one in inputs}
        return {one.name: _tensor(one, values, rank=one.rank) for one, values in cells.items()}
    if len(inputs) != 1:
        raise InputError(
            f"the model takes the inputs {', '.join(sorted(names))}: send rows that are mappings from them"
        )
    matrix = [
        list(row) if columns is None else [_cell(row, index, name) for name in columns]
        for index, row in enumerate(rows)
    ]
    return {names[0]: _tensor(inputs[0], matrix, rank=None)}


def _cell(row: Row, index: int, name: str) -> Any:
    if not isinstance(row, Mapping) or name not in row:
        raise InputError(f"row {index} has no column {name!r}, which the first row has")
    return row[name]


def _tensor(one: Input, values: list[Any], *, rank: int | None) -> _Tensor:
    shape = [len(values)]
    flat = values
    while flat and all(isinstance(value, list) for value in flat):
        widths = {len(value) for value in flat}
        if len(widths) != 1:
            raise InputError(f"input {one.name!r}: the rows are not all as long: {sorted(widths)}")
        shape.append(widths.pop())
        flat = [cell for value in flat for cell in value]
    if rank == 2 and len(shape) == 1:
        # a column of its own
        shape.append(1)
    return _Tensor(shape=shape, values=[_value(one, index, value) for index, value in enumerate(flat)])


def _value(one: Input, index: int, value: Any) -> Any:
    if value is None:
        if one.dtype in _GAPS:
            return math.nan
        raise InputError(f"input {one.name!r}: value {index} is missing, and {TYPES[one.dtype].name} has no gaps")
    if one.dtype in _WHOLE and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def model_inputs(endpoint: Endpoint, access: Access | None = None, timeout_seconds: float = 30) -> Sequence[Input]:
    """What a model takes by its signature ``serving_default``; empty where a server over REST does not tell.

    Args:
        endpoint: Where it is asked, over REST unless only gRPC is spoken there.
        access: Token and certificates.
        timeout_seconds: For the request.

    Raises:
        DeployError: If it has no such signature.
    """
    kind = TensorflowRest if "tensorflow" in endpoint.protocols else TensorflowGrpc
    asked = kind(endpoint, access or Access())
    try:
        return asked.inputs(timeout_seconds)
    finally:
        asked.close()


class TensorflowRest:
    """TensorFlow Serving over REST."""

    def __init__(self, endpoint: Endpoint, access: Access) -> None:
        self._endpoint = endpoint
        self._http = Http(endpoint, access)
        self._path = f"/v1/models/{endpoint.model}"
        self._inputs: Sequence[Input] | None = None

    def ask(self, rows: list[Row], timeout_seconds: float) -> Answer:
        if self._inputs is None:
            self._inputs = self.inputs(timeout_seconds)
        content: dict[str, Any] = {"instances": rows}
        if self._inputs:
            content = {"signature_name": _SIGNATURE, "instances": _instances(as_inputs(rows, self._inputs), len(rows))}
        path = f"{self._path}:predict"
        answered = self._http.post(path, content, timeout_seconds)
        predictions = answered.get("predictions") if isinstance(answered, Mapping) else None
        if not isinstance(predictions, list) or len(predictions) != len(rows):
            raise DeployError(f"{self._http.url}{path} answered without a list of {len(rows)} predictions")
        if predictions and all(isinstance(value, Mapping) for value in predictions):
            outputs = {name: single([value.get(name) for value in predictions]) for name in predictions[0]}
            return Answer(predictions=_objects(outputs, len(rows)))
        return Answer(predictions=single(predictions))

    def inputs(self, timeout_seconds: float) -> Sequence[Input]:
        """The model's inputs; none where the server does not tell, and rows go as they are."""
        _, told = self._http.get(f"{self._path}/metadata", timeout_seconds)
        try:
            signatures = told["metadata"]["signature_def"]["signature_def"]
            _check_signature(self._http.url, signatures.keys())
            return [
                Input(name=name, dtype=_NUMBERS[info["dtype"]], rank=_rank(info.get("tensor_shape") or {}))
                for name, info in signatures[_SIGNATURE]["inputs"].items()
            ]
        except (KeyError, TypeError, AttributeError):
            return ()

    def answering(self, timeout_seconds: float) -> str | None:
        if _labelled(self._path):
            status, _ = self._http.get(f"{self._path}/metadata", timeout_seconds)
            return self._endpoint.revision if status == _OK else None
        status, told = self._http.get(self._path, timeout_seconds)
        versions = told.get("model_version_status") if isinstance(told, Mapping) else None
        if isinstance(versions, list) and not any(one.get("state") == "AVAILABLE" for one in versions):
            return None
        return self._endpoint.revision if status else None

    def close(self) -> None:
        self._http.close()


def _labelled(path: str) -> bool:
    """Whether a label is asked for: the server's status is of all versions then, whether it knows the label or not."""
    return "/labels/" in path


def _check_signature(url: str, signatures: Collection[str]) -> None:
    if _SIGNATURE not in signatures:
        known = ", ".join(sorted(signatures)) or "none"
        raise DeployError(f"{url}: the model has no signature {_SIGNATURE!r} (there is {known})")


def _rank(shape: Mapping[str, Any]) -> int | None:
    return None if shape.get("unknown_rank") or not shape.get("dim") else len(shape["dim"])


def _instances(inputs: Mapping[str, _Tensor], rows: int) -> list[Any]:
    """Tensors as rows: a row is its value in the only input, or an object of all."""
    by_name = {
        name: _plain(tensor, rows) if len(tensor.shape) > 1 else tensor.values for name, tensor in inputs.items()
    }
    if len(by_name) == 1:
        return next(iter(by_name.values()))
    return _objects(by_name, rows)


def _objects(columns: Mapping[str, Sequence[Any]], rows: int) -> list[Any]:
    return [{name: values[index] for name, values in columns.items()} for index in range(rows)]


def _plain(tensor: _Tensor, rows: int) -> list[Any]:
    return nested(tensor.values, tensor.shape) if rows else []


class TensorflowGrpc:
    """TensorFlow Serving over gRPC."""

    def __init__(self, endpoint: Endpoint, access: Access) -> None:
        self._endpoint = endpoint
        self._channel = Channel(endpoint, access)
        self._inputs: Sequence[Input] | None = None

    def ask(self, rows: list[Row], timeout_seconds: float) -> Answer:
        if self._inputs is None:
            self._inputs = self.inputs(timeout_seconds)
        request = _class("PredictRequest")(model_spec=self._spec(_SIGNATURE))
        for name, tensor in as_inputs(rows, self._inputs).items():
            dtype = next(one.dtype for one in self._inputs if one.name == name)
            try:
                request.inputs.add(key=name, value=tensor_fields(dtype, tensor.shape, tensor.values))
            except ValueError as error:
                raise InputError(f"input {name!r}: {error}") from error
        answered = self._call("PredictionService/Predict", request, "PredictResponse", timeout_seconds)
        outputs = {entry.key: self._output(entry, len(rows)) for entry in answered.outputs}
        if not outputs:
            raise DeployError(f"{self._channel.url} answered without an output")
        if len(outputs) == 1:
            return Answer(predictions=next(iter(outputs.values())))
        return Answer(predictions=_objects(outputs, len(rows)))

    def _output(self, entry: Any, rows: int) -> list[Any]:
        where = f"{self._channel.url}, output {entry.key!r}"
        try:
            values, shape = read_tensor(entry.value)
        except ValueError as error:
            raise DeployError(f"{where} cannot be read: {error}") from error
        if entry.value.dtype == STRING:
            values = [value.decode(errors="replace") for value in values]
        return by_row(where, values, shape, rows)

    def inputs(self, timeout_seconds: float) -> Sequence[Input]:
        asked = _class("GetModelMetadataRequest")(model_spec=self._spec(), metadata_field=["signature_def"])
        method = "PredictionService/GetModelMetadata"
        told = self._call(method, asked, "GetModelMetadataResponse", timeout_seconds)
        signatures = {
            signature.key: signature.value
            for entry in told.metadata
            if entry.key == "signature_def"
            for signature in _class("SignatureDefMap").FromString(entry.value.value).signature_def
        }
        _check_signature(self._channel.url, signatures)
        return [
            Input(name=entry.key, dtype=entry.value.dtype, rank=_proto_rank(entry.value.tensor_shape))
            for entry in signatures[_SIGNATURE].inputs
        ]

    def answering(self, timeout_seconds: float) -> str | None:
        if _labelled(self._endpoint.model):
            wanted = _class("GetModelMetadataRequest")(model_spec=self._spec(), metadata_field=["signature_def"])
            method, answer = "/tensorflow.serving.PredictionService/GetModelMetadata", "GetModelMetadataResponse"
            there, _ = self._channel.answers(method, wanted, _class(answer), timeout_seconds)
            return self._endpoint.revision if there else None
        asked = _class("GetModelStatusRequest")(model_spec=self._spec())
        there, told = self._channel.answers(
            "/tensorflow.serving.ModelService/GetModelStatus", asked, _class("GetModelStatusResponse"), timeout_seconds
        )
        if told is not None:
            there = any(one.state == _AVAILABLE for one in told.model_version_status)
        return self._endpoint.revision if there else None

    def close(self) -> None:
        self._channel.close()

    def _spec(self, signature: str = "") -> dict[str, Any]:
        """The model, in a version or under a label where its name has one, as in the paths of REST."""
        name, *path = self._endpoint.model.split("/")
        spec: dict[str, Any] = {"name": name, "signature_name": signature}
        if len(path) == 2 and path[0] == "versions":
            spec["version"] = {"value": int(path[1])}
        elif len(path) == 2 and path[0] == "labels":
            spec["version_label"] = path[1]
        return spec

    def _call(self, method: str, message: Any, answer: str, timeout_seconds: float) -> Any:
        return self._channel.call(f"/tensorflow.serving.{method}", message, _class(answer), timeout_seconds)


def _proto_rank(shape: Any) -> int | None:
    return None if shape.unknown_rank or not shape.dim else len(shape.dim)


def _class(name: str) -> type[Any]:
    from longshore.wire.messages import TENSORFLOW_SERVING, message

    return message(TENSORFLOW_SERVING, name)
