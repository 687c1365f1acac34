"""The gRPC face: the Open Inference Protocol (V2) over one predictor, and gRPC's health check.

It only translates. A request becomes what the JSON of the same protocol would hold, and
:mod:`longshore.serving.protocol` says what that means, so both faces answer alike and refuse in the same words. As
tensors have no null, NaN in a tensor of floats is a missing value.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import grpc
import numpy as np

from longshore.errors import ConfigError, InputError, ModelError
from longshore.serving import protocol, tensors
from longshore.serving.application import Application
from longshore.serving.batching import WAITING
from longshore.serving.patience import CLIENT_SECONDS
from longshore.serving.protocol import Asked
from longshore.serving.refusals import BODY_LIMIT, ClientGone, RequestError
from longshore.wire.messages import HEALTH, INFERENCE, DecodeError, message

__all__ = ["CONNECTION_SECONDS", "SERVICE", "GrpcServer"]

SERVICE: Final = f"{INFERENCE}.GRPCInferenceService"
"""Full name of the service."""

CONNECTION_SECONDS: Final = 10.0
"""How long a connection lasts, unless another time is given: its client then makes a new one, to whichever pod the
address leads by then."""

# gRPC spreads the ends of connections that began together by a tenth
_SPREAD: Final = 1.1
_WORKERS: Final = 16
"""Requests at once; the model answers one after the other anyway, and health checks must not wait for it. A message is
received by the one that will answer it, so that no more of them than this take memory at once."""

_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_SERVING: Final = 1
_NOT_SERVING: Final = 2

# the field of typed contents; half floats have none
_FIELDS: Final[Mapping[str, str]] = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}

_log = logging.getLogger("longshore.serving")

Fields = Mapping[str, Any]
Work = Callable[[Any, Asked | None], Fields]


class GrpcServer:
    """The gRPC server of one model. It listens once it is made and answers once it is started.

    Args:
        application: What answers; ``draining`` has readiness refused.
        host: Address to listen on.
        port: Port to listen on; 0 has the kernel choose one.
        message_limit: Largest request in bytes; larger ones are refused with RESOURCE_EXHAUSTED.
        connection_seconds: How long a connection lasts; what has begun on it is answered.
        client_seconds: How long a client has to send a message. What has begun on a connection is cut off once this
            and the application's time limit are over after its end: a thread waits for each message, and those who
            send none would keep all of them.
        waiting: At most so many calls wait for a thread; more are refused with RESOURCE_EXHAUSTED.

    Attributes:
        port: Where it listens.
        linger_seconds: How long connections can last that are there now.

    Raises:
        ConfigError: If it cannot listen there.
    """

    def __init__(
        self,
        application: Application,
        host: str,
        port: int,
        *,
        message_limit: int = BODY_LIMIT,
        connection_seconds: float = CONNECTION_SECONDS,
        client_seconds: float = CLIENT_SECONDS,
        waiting: int = WAITING,
    ) -> None:
        self.linger_seconds: Final = connection_seconds * _SPREAD
        options = [
            ("grpc.max_receive_message_length", message_limit),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_connection_age_ms", round(connection_seconds * 1000)),
            ("grpc.max_connection_age_grace_ms", round((client_seconds + application.seconds) * 1000)),
            # without, a second server on the same port would take half of the requests
            ("grpc.so_reuseport", 0),
        ]
        self._server = grpc.server(
            ThreadPoolExecutor(_WORKERS, "grpc"), options=options, maximum_concurrent_rpcs=_WORKERS + waiting
        )
        self._server.add_generic_rpc_handlers(_handlers(application))
        try:
            self.port: int = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise ConfigError(f"gRPC cannot listen on {host}:{port}: choose a port that is free") from error

    def start(self) -> None:
        """Answer requests."""
        self._server.start()

    def stop(self, grace_seconds: float) -> threading.Event:
        """Take no more requests. Does not wait.

        gRPC cancels requests that come in while it stops. ``linger_seconds`` after it has said that it drains, each
        connection that was there has ended by itself, which loses none; new ones lead elsewhere by then.

        Args:
            grace_seconds: Time to answer those that have begun.

        Returns:
            Set once all is answered, or the time is over.
        """
        ended: threading.Event = self._server.stop(grace_seconds)
        return ended


def _handlers(application: Application) -> Sequence[grpc.GenericRpcHandler]:
    def ready() -> bool:
        return not application.draining

    def model_ready(request: Any, _: object) -> Fields:
        application.models.find(request.name, request.version)
        return {"ready": ready()}

    def health(request: Any, _: object) -> Fields:
        if request.service not in ("", SERVICE):
            raise RequestError(404, f"there is no service {request.service!r} here: this server has {SERVICE!r}")
        return {"status": _SERVING if ready() else _NOT_SERVING}

    def model_metadata(request: Any, _: object) -> Fields:
        predictor = application.models.find(request.name, request.version)
        return protocol.model_v2(predictor, application.models.versions)

    def model_infer(request: Any, asked: Asked | None) -> Fields:
        assert asked is not None  # noqa: S101 - it is measured
        asked.predictor = application.models.find(request.model_name, request.model_version)
        try:
            answer = protocol.infer(asked.predictor, _content(request), seconds=application.seconds)
        except TimeoutError as error:
            raise RequestError(504, protocol.no_prediction(application.seconds)) from error
        return _answer(answer, raw=bool(request.raw_input_contents))

    def measured() -> AbstractContextManager[Asked]:
        return protocol.measured(application.models.default, "grpc-v2")

    inference: dict[str, Work] = {
        "ServerLive": lambda *_: {"live": True},
        "ServerReady": lambda *_: {"ready": ready()},
        "ModelReady": model_ready,
        "ServerMetadata": lambda *_: protocol.server_v2(),
        "ModelMetadata": model_metadata,
    }
    handlers = {name: _handler(INFERENCE, name, work) for name, work in inference.items()}
    handlers["ModelInfer"] = _handler(INFERENCE, "ModelInfer", model_infer, measured)
    return (
        grpc.method_handlers_generic_handler(SERVICE, handlers),
        grpc.method_handlers_generic_handler(f"{HEALTH}.Health", {"Check": _handler(HEALTH, "HealthCheck", health)}),
    )


def _handler(
    package: str, name: str, work: Work, measured: Callable[[], AbstractContextManager[Asked | None]] = nullcontext
) -> grpc.RpcMethodHandler:
    """A call of bytes to bytes: what cannot be read is refused like everything else that does not fit."""
    takes, gives = message(package, f"{name}Request"), message(package, f"{name}Response")

    def answer(body: bytes, context: grpc.ServicerContext, asked: Asked | None) -> bytes:
        try:
            request = takes.FromString(body)
        except DecodeError as error:
            raise RequestError(400, f"the message is not a {name}Request: {error}") from error
        fields = work(request, asked)
        if not context.is_active():
            raise ClientGone
        encoded: bytes = gives(**fields).SerializeToString()
        return encoded

    def handle(body: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            with measured() as asked:
                return answer(body, context, asked)
        except RequestError as error:
            code, text = _CODES[error.status], str(error)
        except InputError as error:
            code, text = grpc.StatusCode.INVALID_ARGUMENT, str(error)
        except ModelError as error:
            _log.error("%s: %s", name, error, exc_info=error.__cause__)
            code, text = grpc.StatusCode.INTERNAL, str(error)
        except ClientGone:
            code, text = grpc.StatusCode.CANCELLED, "the client went away"
        except Exception as error:  # noqa: BLE001 - it is logged, and the client is told
            _log.exception("%s failed", name)
            code, text = grpc.StatusCode.INTERNAL, protocol.unexpected(error)
        context.abort(code, text)
        raise AssertionError  # abort does not return

    return grpc.unary_unary_rpc_method_handler(handle)


def _content(request: Any) -> dict[str, Any]:
    """A ModelInferRequest as its JSON would be."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise RequestError(
            400, f"there are {len(request.inputs)} inputs and {len(raw)} raw_input_contents: send one for each input"
        )
    data = map(_unpacked, request.inputs, raw) if raw else map(_typed, request.inputs)
    return {
        "id": request.id or None,
        "inputs": [
            {"name": tensor.name, "shape": list(tensor.shape), "data": values}
            for tensor, values in zip(request.inputs, data, strict=True)
        ],
        "outputs": [{"name": output.name} for output in request.outputs],
    }


def _typed(tensor: Any) -> list[Any]:
    field = _FIELDS.get(tensors.check_datatype(tensor.name, tensor.datatype))
    if field is None:
        raise RequestError(400, f"input {tensor.name!r}: {tensor.datatype} is sent in raw_input_contents")
    if other := [present.name for present, _ in tensor.contents.ListFields() if present.name != field]:
        raise RequestError(400, f"input {tensor.name!r}: {tensor.datatype} is sent in {field}, not in {other[0]}")
    return protocol.tensor_values(tensor.name, tensor.datatype, list(getattr(tensor.contents, field)))


def _unpacked(tensor: Any, raw: bytes) -> list[Any] | np.ndarray:
    datatype = tensors.check_datatype(tensor.name, tensor.datatype)
    if tensor.HasField("contents"):
        raise RequestError(400, f"input {tensor.name!r}: send contents or raw_input_contents, not both")
    return tensors.unpack(tensor.name, datatype, raw)


def _answer(content: Mapping[str, Any], *, raw: bool) -> Fields:
    """The fields of a ModelInferResponse; what came raw is answered raw."""
    outputs: list[dict[str, Any]] = []
    packed: list[bytes] = []
    for output in content["outputs"]:
        datatype, data = output["datatype"], output["data"]
        tensor = {name: output[name] for name in ("name", "datatype", "shape")}
        if raw:
            outputs.append(tensor)
            packed.append(tensors.pack(datatype, data))
            continue
        typed = [value.encode() for value in data] if datatype == "BYTES" else data
        outputs.append({**tensor, "contents": {_FIELDS[datatype]: typed}})
    return {**content, "outputs": outputs, "raw_output_contents": packed}
