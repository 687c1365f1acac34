"""Seldon Core 1's protocol, over REST and gRPC.

Source: github.com/SeldonIO/seldon-core (v1.18.2, proto/prediction.proto).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from longshore.client.access import Access
from longshore.client.answers import Answer, by_row, single
from longshore.client.http import Http
from longshore.client.rpc import Channel
from longshore.client.tensors import Row
from longshore.errors import DeployError, InputError
from longshore.spec import Endpoint

__all__ = ["SeldonGrpc", "SeldonRest", "as_data", "read_data"]

_PREDICT: Final = "/api/v1.0/predictions"
_FEEDBACK: Final = "/api/v1.0/feedback"
_METADATA: Final = "/api/v1.0/metadata"
_SERVICE: Final = "/seldon.protos.Seldon"
_NUMBERS: Final = frozenset({int, float, type(None)})


class SeldonRest:
    """Seldon's protocol over REST."""

    def __init__(self, endpoint: Endpoint, access: Access) -> None:
        self._endpoint = endpoint
        self._http = Http(endpoint, access)

    def ask(self, rows: list[Row], timeout_seconds: float) -> Answer:
        request = {"data": as_data(rows, tensors=False)}
        response = self._http.post(_PREDICT, request, timeout_seconds)
        predictions = read_data(f"{self._http.url}{_PREDICT}", response, len(rows))
        return Answer(predictions=predictions, request=request, response=response)

    def send_feedback(self, feedback: Mapping[str, Any], timeout_seconds: float) -> None:
        self._http.post(_FEEDBACK, feedback, timeout_seconds)

    def answering(self, timeout_seconds: float) -> str | None:
        status, told = self._http.get(_METADATA, timeout_seconds)
        return None if status == 0 else _revision(told, self._endpoint)

    def close(self) -> None:
        self._http.close()


class SeldonGrpc:
    """Seldon's protocol over gRPC."""

    def __init__(self, endpoint: Endpoint, access: Access) -> None:
        self._endpoint = endpoint
        self._channel = Channel(endpoint, access)

    def ask(self, rows: list[Row], timeout_seconds: float) -> Answer:
        request = {"data": as_data(rows, tensors=True)}
        message = _class("SeldonMessage")()
        _fill(message, request)
        response = _content(self._call("Predict", message, timeout_seconds))
        return Answer(predictions=read_data(self._channel.url, response, len(rows)), request=request, response=response)

    def send_feedback(self, feedback: Mapping[str, Any], timeout_seconds: float) -> None:
        message = _class("Feedback")(reward=feedback["reward"])
        for name in ("request", "response", "truth"):
            if name in feedback:
                _fill(getattr(message, name), feedback[name])
        self._call("SendFeedback", message, timeout_seconds)

    def answering(self, timeout_seconds: float) -> str | None:
        asked = _class("SeldonModelMetadataRequest")(name=self._endpoint.model)
        there, told = self._channel.answers(
            f"{_SERVICE}/ModelMetadata", asked, _class("SeldonModelMetadata"), timeout_seconds
        )
        if not there:
            return None
        custom: dict[str, str] = {} if told is None else {entry.key: entry.value for entry in told.custom}
        return custom.get("revision", self._endpoint.revision)

    def close(self) -> None:
        self._channel.close()

    def _call(self, method: str, message: Any, timeout_seconds: float) -> Any:
        return self._channel.call(f"{_SERVICE}/{method}", message, _class("SeldonMessage"), timeout_seconds)


def as_data(rows: Sequence[Row], *, tensors: bool) -> dict[str, Any]:
    """Rows as the ``data`` of a message.

    Args:
        rows: Rows of plain values, all mappings or all sequences.
        tensors: Whether numbers go in a ``tensor``, in which a gap is no number; else all goes in an ``ndarray``.

    Raises:
        InputError: If some are mappings and some are not.
    """
    names: list[str] = []
    if any(isinstance(row, Mapping) for row in rows):
        if not all(isinstance(row, Mapping) for row in rows):
            raise InputError("some rows are mappings and some are sequences: send one or the other")
        names = list(dict.fromkeys(name for row in rows for name in row))
        # None for what is not there
        rows = [[row.get(name) for name in names] for row in rows if isinstance(row, Mapping)]
    widths = {len(row) for row in rows}
    values = [value for row in rows for value in row]
    if tensors and len(widths) == 1 and {type(value) for value in values} <= _NUMBERS:
        numbers = [float("nan") if value is None else float(value) for value in values]
        return {"names": names, "tensor": {"shape": [len(rows), widths.pop()], "values": numbers}}
    return {"names": names, "ndarray": [list(row) for row in rows]}


def read_data(where: str, message: Any, rows: int) -> list[Any]:
    """Predictions of an answer.

    Args:
        where: Who gave it, for messages.
        message: The answer, as its JSON has it.
        rows: How many rows were sent.

    Raises:
        DeployError: If it holds none, or not one for each row.
    """
    message = message if isinstance(message, Mapping) else {}
    status = message.get("status")
    if isinstance(status, Mapping) and status.get("status") in (1, "FAILURE"):
        raise DeployError(f"{where} answered: {status.get('info') or status.get('reason') or 'no reason given'}")
    data = message.get("data")
    if isinstance(data, Mapping) and isinstance(data.get("tensor"), Mapping):
        tensor = data["tensor"]
        shape = [int(size) for size in tensor.get("shape") or ()]
        return by_row(where, tensor.get("values") or (), shape, rows)
    if not isinstance(data, Mapping) or not isinstance(data.get("ndarray"), list):
        there = ", ".join(name for name in message if name not in ("meta", "status")) or "nothing"
        raise DeployError(f"{where} answered without an ndarray or a tensor in 'data': there is {there}")
    values = data["ndarray"]
    if len(values) != rows:
        raise DeployError(f"{where}: {rows} rows were sent, and {len(values)} predictions came back")
    return single(values)


def _revision(told: Any, endpoint: Endpoint) -> str:
    """What the metadata of a model, or of a graph with it, says of its revision; else the endpoint's own."""
    about = told if isinstance(told, Mapping) else {}
    if isinstance(about.get("models"), Mapping):
        about = about["models"].get(endpoint.model) or {}
    custom = about.get("custom") if isinstance(about, Mapping) else None
    revision = custom.get("revision") if isinstance(custom, Mapping) else None
    return revision if isinstance(revision, str) else endpoint.revision


def _class(name: str) -> type[Any]:
    from longshore.wire.messages import SELDON, message

    return message(SELDON, name)


def _fill(message: Any, content: Mapping[str, Any]) -> None:
    """Write into a message what its JSON holds."""
    from google.protobuf import json_format

    data = content.get("data") or {}
    if data:
        message.data.names.extend(data.get("names") or ())
    if "tensor" in data:
        message.data.tensor.shape.extend(data["tensor"]["shape"])
        message.data.tensor.values.extend(data["tensor"]["values"])
    elif "ndarray" in data:
        message.data.ndarray.extend(data["ndarray"])
    if "jsonData" in content:
        json_format.ParseDict(content["jsonData"], message.jsonData)
    if "strData" in content:
        message.strData = content["strData"]
    meta = content.get("meta") or {}
    if meta.get("puid"):
        message.meta.puid = meta["puid"]
    for key, value in (meta.get("tags") or {}).items():
        json_format.ParseDict(value, message.meta.tags.add(key=key).value)
    for key, value in (meta.get("routing") or {}).items():
        message.meta.routing.add(key=key, value=value)
    for key, value in (meta.get("requestPath") or {}).items():
        message.meta.requestPath.add(key=key, value=value)


def _content(message: Any) -> dict[str, Any]:
    """A message as its JSON would be, as far as it is read or sent back."""
    from google.protobuf import json_format

    content: dict[str, Any] = {}
    if message.HasField("status"):
        status = message.status
        content["status"] = {
            "code": status.code,
            "info": status.info,
            "reason": status.reason,
            "status": "FAILURE" if status.status else "SUCCESS",
        }
    meta = message.meta
    told = {
        "puid": meta.puid,
        "tags": {entry.key: json_format.MessageToDict(entry.value) for entry in meta.tags},
        "routing": {entry.key: entry.value for entry in meta.routing},
        "requestPath": {entry.key: entry.value for entry in meta.requestPath},
    }
    content["meta"] = {name: value for name, value in told.items() if value}
    if message.HasField("data"):
        data = message.data
        content["data"] = {"names": list(data.names)}
        if data.HasField("tensor"):
            content["data"]["tensor"] = {"shape": list(data.tensor.shape), "values": list(data.tensor.values)}
        elif data.HasField("ndarray"):
            content["data"]["ndarray"] = json_format.MessageToDict(data.ndarray)
    if message.HasField("jsonData"):
        content["jsonData"] = json_format.MessageToDict(message.jsonData)
    if message.strData:
        content["strData"] = message.strData
    return content
