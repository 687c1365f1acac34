"""The FastAPI face: KServe's V1 protocol and the Open Inference Protocol (V2) over one predictor."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from longshore.errors import InputError
from longshore.packaging import Column, Signature
from longshore.serving.core import Prediction, Predictor
from longshore.serving.metrics import CONTENT_TYPE, Metrics

__all__ = ["create_app"]

BODY_LIMIT: Final = 32 * 1024 * 1024

_JSON_TYPES: Final[Mapping[str, dict[str, Any]]] = {
    "number": {"type": "number"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "category": {"type": "string"},
    "text": {"type": "string"},
    "date": {"type": "string", "format": "date-time"},
}
_V2_TYPES: Final = {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}

_log = logging.getLogger("longshore.serving")


class _Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


def create_app(predictor: Predictor, *, body_limit: int = BODY_LIMIT) -> FastAPI:
    """The web application of one model.

    ``app.state.draining`` set to True has it refuse readiness and close each connection with its next answer.

    Args:
        predictor: The model.
        body_limit: Largest request body in bytes; larger ones get 413.
    """
    app = FastAPI(
        title=predictor.name,
        version=predictor.version or "0",
        description=f"{predictor.card.task} of {predictor.card.signature.target!r}, revision {predictor.revision}.",
    )
    app.state.draining = False
    _add_v1(app, predictor, body_limit)
    _add_v2(app, predictor, body_limit)

    @app.get("/metrics", summary="Prometheus metrics")
    async def metrics() -> Response:
        return Response(predictor.metrics.render(), media_type=CONTENT_TYPE)

    @app.exception_handler(_Refused)
    async def refused(_: Request, error: _Refused) -> Response:
        return _json({"error": str(error)}, status=error.status)

    @app.exception_handler(404)
    async def not_found(request: Request, _: Exception) -> Response:
        return _json({"error": f"there is no {request.url.path}; /docs lists what there is"}, status=404)

    @app.exception_handler(405)
    async def not_allowed(request: Request, _: Exception) -> Response:
        return _json({"error": f"{request.method} is not for {request.url.path}; /docs lists what is"}, status=405)

    app.add_middleware(_Observed, app_state=app.state, metrics=predictor.metrics)
    return app


def _add_v1(app: FastAPI, predictor: Predictor, body_limit: int) -> None:
    body = {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": _v1_schema(predictor.card.signature), "example": _v1_example(predictor)}
            },
        }
    }

    @app.post("/v1/models/{model}:predict", summary="Predict rows (KServe V1)", openapi_extra=body)
    async def predict(model: str, request: Request) -> Response:
        _check_name(predictor, model)
        content = _object(await _parsed(request, body_limit))
        rows = content.get("instances")
        if not isinstance(rows, list):
            raise _Refused(400, "'instances' must be an array of rows: {\"instances\": [{...}, ...]}")
        parameters = content.get("parameters") or {}
        wanted = isinstance(parameters, dict) and parameters.get("probabilities") is True
        done = await _predicted(predictor, rows, probabilities=wanted)
        answer: dict[str, Any] = {"predictions": done.values}
        if done.probabilities is not None:
            answer["probabilities"] = done.probabilities
            answer["classes"] = list(predictor.card.signature.classes or ())
        return _json(answer)

    @app.get("/v1/models", summary="The models (KServe V1)")
    async def models() -> Response:
        return _json({"models": [predictor.name]})

    @app.get("/v1/models/{model}", summary="Whether the model is ready (KServe V1)")
    async def model_ready(model: str) -> Response:
        _check_name(predictor, model)
        return _json({"name": predictor.name, "ready": not app.state.draining})


def _add_v2(app: FastAPI, predictor: Predictor, body_limit: int) -> None:
    signature = predictor.card.signature

    @app.get("/v2", summary="About the server (V2)")
    async def server() -> Response:
        return _json({"name": "longshore", "version": app.version, "extensions": []})

    @app.get("/v2/health/live", summary="Whether the process works (V2)")
    async def live() -> Response:
        return _json({"live": True})

    @app.get("/v2/health/ready", summary="Whether the revision takes requests (V2)")
    async def ready() -> Response:
        up = not app.state.draining
        return _json({"ready": up, "revision": predictor.revision}, status=200 if up else 503)

    @app.get("/v2/models/{model}/ready", summary="Whether the model is ready (V2)")
    async def model_ready(model: str) -> Response:
        _check_name(predictor, model)
        up = not app.state.draining
        return _json({"name": predictor.name, "ready": up}, status=200 if up else 503)

    @app.get("/v2/models/{model}", summary="What the model takes and gives (V2)")
    async def metadata(model: str) -> Response:
        _check_name(predictor, model)
        return _json(
            {
                "name": predictor.name,
                "versions": [predictor.version] if predictor.version else [],
                "platform": predictor.card.format,
                "inputs": [{"name": c.name, "datatype": _v2_type(c), "shape": [-1, 1]} for c in signature.inputs],
                "outputs": [{"name": "predict", "datatype": _v2_output(signature), "shape": [-1]}],
            }
        )

    @app.post("/v2/models/{model}/infer", summary="Predict columns (V2)")
    async def infer(model: str, request: Request) -> Response:
        _check_name(predictor, model)
        content = _object(await _parsed(request, body_limit))
        columns, rows = _v2_rows(content.get("inputs"))
        done = await _predicted(predictor, rows, columns=columns)
        answer: dict[str, Any] = {
            "model_name": predictor.name,
            "outputs": [
                {
                    "name": "predict",
                    "datatype": _v2_output(signature),
                    "shape": [len(done.values)],
                    "data": done.values,
                }
            ],
        }
        if predictor.version:
            answer["model_version"] = predictor.version
        if isinstance(content.get("id"), str):
            answer["id"] = content["id"]
        return _json(answer)


def _v1_schema(signature: Signature) -> dict[str, Any]:
    def column(one: Column) -> dict[str, Any]:
        schema = _JSON_TYPES[one.kind]
        if one.categories:
            schema = {**schema, "description": f"seen in training: {', '.join(one.categories[:20])}"}
        return {**schema, "nullable": True}

    row = {
        "type": "object",
        "properties": {one.name: column(one) for one in signature.inputs},
        "required": list(signature.names),
    }
    parameters = {"type": "object", "properties": {"probabilities": {"type": "boolean"}}}
    return {
        "type": "object",
        "properties": {"instances": {"type": "array", "items": row}, "parameters": parameters},
        "required": ["instances"],
    }


def _v1_example(predictor: Predictor) -> dict[str, Any]:
    return {"instances": [dict(row) for row in predictor.card.example]}


def _v2_type(column: Column) -> str:
    return _V2_TYPES.get(column.kind, "BYTES")


def _v2_output(signature: Signature) -> str:
    if signature.classes is None:
        return "FP64"
    kinds = {type(label) for label in signature.classes}
    return {frozenset({bool}): "BOOL", frozenset({int}): "INT64", frozenset({str}): "BYTES"}.get(
        frozenset(kinds), "FP64"
    )


def _v2_rows(inputs: Any) -> tuple[list[str], list[list[Any]]]:
    """Rows of a V2 request: one tensor for each column, of shape [n] or [n, 1]."""
    if not isinstance(inputs, list) or not inputs:
        raise _Refused(400, "'inputs' must be an array with a tensor for each column")
    columns, values = [], []
    for position, tensor in enumerate(inputs):
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise _Refused(400, f"inputs[{position}] must be an object with a 'name'")
        data, shape = tensor.get("data"), tensor.get("shape")
        if not isinstance(data, list):
            raise _Refused(400, f"input {tensor['name']!r}: 'data' must be an array")
        flat = [cell[0] if isinstance(cell, list) and len(cell) == 1 else cell for cell in data]
        if shape not in ([len(flat)], [len(flat), 1]):
            raise _Refused(400, f"input {tensor['name']!r}: shape {shape} does not fit its {len(flat)} values")
        columns.append(tensor["name"])
        values.append(flat)
    if len({len(one) for one in values}) != 1:
        lengths = ", ".join(f"{name!r} {len(one)}" for name, one in zip(columns, values, strict=True))
        raise _Refused(400, f"all inputs must have as many values: {lengths}")
    return columns, [list(row) for row in zip(*values, strict=True)]


async def _predicted(
    predictor: Predictor, rows: Sequence[Any], *, columns: Sequence[str] | None = None, probabilities: bool = False
) -> Prediction:
    try:
        # a thread, so that a slow model does not keep health checks waiting
        return await asyncio.to_thread(predictor.predict, rows, columns=columns, probabilities=probabilities)
    except InputError as error:
        raise _Refused(400, str(error)) from error
    except Exception as error:
        _log.exception("the model failed")
        raise _Refused(500, f"the model failed: {type(error).__name__}; the server's log says where") from error


def _check_name(predictor: Predictor, model: str) -> None:
    if model != predictor.name:
        raise _Refused(404, f"there is no model {model!r} here: this server serves {predictor.name!r}")


async def _parsed(request: Request, limit: int) -> Any:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise _Refused(413, f"the body is larger than {limit} bytes: send fewer rows at a time")
        parts.append(part)
    try:
        return orjson.loads(b"".join(parts))
    except orjson.JSONDecodeError as error:
        raise _Refused(400, f"the body is not JSON: {error}") from error


def _object(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise _Refused(400, "the body must be a JSON object")
    return content


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status_code=status, media_type="application/json")


class _Observed:
    """Measures each request, and has connections closed while the server drains."""

    def __init__(self, app: ASGIApp, *, app_state: Any, metrics: Metrics) -> None:
        self._app, self._state, self._metrics = app, app_state, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = 500, time.perf_counter()

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._state.draining:
                    message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, observed)
            finally:
                route = getattr(scope.get("route"), "path", "unmatched")
                self._metrics.observe(scope["method"], route, status, time.perf_counter() - began)
