"""The FastAPI face: KServe's V1 protocol and the Open Inference Protocol (V2) over one predictor.

Predictions are answered before FastAPI sees them: what it does for a route (resolving dependencies, a stack of contexts
for each request) takes longer than a small model. Its own routes for them are there for the documentation, and for
models that are not served here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from longshore.errors import InputError, ModelError
from longshore.serving import openapi, protocol
from longshore.serving.batching import WAITING, BatchQueue
from longshore.serving.core import Predictor
from longshore.serving.metrics import CONTENT_TYPE, Metrics
from longshore.serving.protocol import BODY_LIMIT, ClientGone, RequestError

__all__ = ["Observed", "create_app"]

_CLIENT_GONE: Final = 499
"""Status label of requests whose client went away before it had sent all; Nginx logs the same number."""

PREDICT: Final = "/v1/models/{model}:predict"
INFER: Final = "/v2/models/{model}/infer"
_CLOSE: Final = (b"connection", b"close")

_log = logging.getLogger("longshore.serving")


def create_app(predictor: Predictor, *, body_limit: int = BODY_LIMIT, waiting: int = WAITING) -> FastAPI:
    """The web application of one model.

    ``app.state.draining`` set to True has it refuse readiness and close each connection with its next answer; it
    goes on answering predictions.

    Args:
        predictor: The model.
        body_limit: Largest request body in bytes; larger ones are answered with 413.
        waiting: At most so many requests wait for the model; more are answered with 503.
    """
    queue = BatchQueue(predictor, waiting=waiting)
    app = FastAPI(
        title=predictor.name,
        version=predictor.version or "unversioned",
        description=(
            f"Predicts {predictor.card.signature.target!r} ({predictor.card.task}, {predictor.card.estimator}). "
            f"Revision {predictor.revision}."
        ),
        redoc_url=None,
    )
    app.state.draining = False
    _add_models(app, predictor)
    _add_server(app, predictor)
    _add_errors(app)
    app.add_middleware(Observed, state=app.state, metrics=predictor.metrics)
    app.add_middleware(_Predictions, state=app.state, predictor=predictor, queue=queue, body_limit=body_limit)
    return app


def _add_models(app: FastAPI, predictor: Predictor) -> None:
    about = openapi.model_operation(predictor)

    @app.post(
        PREDICT,
        summary="Predict rows (V1)",
        tags=["KServe V1"],
        openapi_extra=openapi.predict_operation(predictor),
    )
    @app.post(
        INFER,
        summary="Predict columns (V2)",
        tags=["Open Inference Protocol V2"],
        openapi_extra=openapi.infer_operation(predictor),
    )
    async def not_here(request: Request) -> Response:
        with protocol.measured(predictor, "v1" if request.url.path.startswith("/v1/") else "v2"):
            protocol.check_model(predictor, request.path_params["model"])
        raise AssertionError  # this model's requests do not come here

    @app.get("/v1/models", summary="The models (V1)", tags=["KServe V1"])
    async def models() -> Response:
        return _json({"models": [predictor.name]})

    @app.get(
        "/v2/models/{model}",
        summary="What the model takes and gives (V2)",
        tags=["Open Inference Protocol V2"],
        openapi_extra=about,
    )
    async def metadata(request: Request) -> Response:
        protocol.check_model(predictor, request.path_params["model"])
        return _json(protocol.model_v2(predictor))

    @app.get("/v1/models/{model}", summary="Whether the model is ready (V1)", tags=["KServe V1"], openapi_extra=about)
    @app.get(
        "/v2/models/{model}/ready",
        summary="Whether the model is ready (V2)",
        tags=["Open Inference Protocol V2"],
        openapi_extra=about,
    )
    async def model_ready(request: Request) -> Response:
        protocol.check_model(predictor, request.path_params["model"])
        return _readiness(app, name=predictor.name)


def _add_server(app: FastAPI, predictor: Predictor) -> None:
    @app.get("/v2", summary="About the server (V2)", tags=["Server"])
    async def server() -> Response:
        return _json(protocol.server_v2())

    @app.get("/v2/health/live", summary="Whether the process answers (V2)", tags=["Server"])
    async def live() -> Response:
        return _json({"live": True})

    @app.get("/v2/health/ready", summary="Whether the revision takes requests (V2)", tags=["Server"])
    async def ready() -> Response:
        return _readiness(app, revision=predictor.revision)

    @app.get("/metrics", summary="Prometheus metrics", tags=["Server"], response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(predictor.metrics.render(), media_type=CONTENT_TYPE)


def _readiness(app: FastAPI, **about: str) -> Response:
    up = not app.state.draining
    return _json({"ready": up, **about}, 200 if up else 503)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> Response:
        return _error(*_refusal(error, request.scope))

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        path, reasons = request.url.path, {404: "there is no", 405: f"{request.method} is not for"}
        return _error(
            error.status_code,
            f"{reasons.get(error.status_code, error.detail)} {path}; /docs lists what there is",
            error.headers,
        )


def _refusal(error: Exception, scope: Scope) -> tuple[int, str, Mapping[str, str] | None]:
    """Status, message and headers for what went wrong; logged, unless it is the client's fault."""
    if isinstance(error, RequestError):
        return error.status, str(error), {"retry-after": "1"} if error.status == 503 else None
    if isinstance(error, InputError):
        return 400, str(error), None
    if isinstance(error, ModelError):
        _log.error("%s %r: %s", scope["method"], scope["path"], error, exc_info=error.__cause__)
        return 500, str(error), None
    _log.error("%s %r failed", scope["method"], scope["path"], exc_info=error)
    return 500, protocol.unexpected(error), None


async def _body(scope: Scope, receive: Receive, limit: int) -> bytes:
    too_large = RequestError(413, f"the body is larger than {limit} bytes: send fewer rows at a time")
    for name, value in scope["headers"]:
        if name == b"content-encoding" and value.lower() != b"identity":
            encoding = value.decode("latin-1").lower()
            raise RequestError(415, f"the body is compressed ({encoding}): send it as it is")
        # refused before it is read, so that a client which waits for '100 Continue' need not send it
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise too_large
    parts, size = list[bytes](), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise too_large
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _json(content: Any, status: int = 200, headers: Any = None) -> Response:
    body = content if isinstance(content, bytes) else protocol.encode(content)
    return Response(body, status_code=status, headers=headers, media_type="application/json")


def _error(status: int, message: str, headers: Any = None) -> Response:
    return _json({"error": message}, status, headers)


class _Predictions:
    """Answers the predictions of one model; all else goes on to the application behind it."""

    def __init__(self, app: ASGIApp, *, state: State, predictor: Predictor, queue: BatchQueue, body_limit: int) -> None:
        self._app, self._state, self._predictor, self._queue = app, state, predictor, queue
        self._body_limit = body_limit
        self._routes = {
            template.replace("{model}", predictor.name): (template, version, read)
            for template, version, read in (
                (PREDICT, "v1", protocol.read_v1),
                (INFER, "v2", protocol.read_v2),
            )
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        template, version, read = route
        metrics, status, began = self._predictor.metrics, _CLIENT_GONE, time.perf_counter()
        metrics.in_flight.inc()
        try:
            try:
                with protocol.measured(self._predictor, version):
                    content = protocol.parse(await _body(scope, receive, self._body_limit))
                    call = read(self._predictor, content)
                    body = protocol.encode(call.answer(await self._queue.predict(call.ask)))
            except ClientGone:
                return
            except Exception as error:  # noqa: BLE001 - it is logged where it should be, and the client is told
                status, text, headers = _refusal(error, scope)
                await self._send(_error(status, text, headers), scope, receive, send)
            else:
                status = 200
                await send({"type": "http.response.start", "status": 200, "headers": self._headers(body)})
                await send({"type": "http.response.body", "body": body})
        finally:
            metrics.in_flight.dec()
            metrics.observe("POST", template, status, time.perf_counter() - began)

    def _headers(self, body: bytes) -> list[tuple[bytes, bytes]]:
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        return [*headers, _CLOSE] if self._state.draining else headers

    async def _send(self, response: Response, scope: Scope, receive: Receive, send: Send) -> None:
        if self._state.draining:
            response.raw_headers.append(_CLOSE)
        await response(scope, receive, send)


class Observed:
    """Measures each request, answers for whatever was not expected, and has connections closed while draining.

    Args:
        app: The application behind it.
        state: Says in ``draining`` whether the server is to end.
        metrics: Where requests are counted.
    """

    def __init__(self, app: ASGIApp, *, state: State, metrics: Metrics) -> None:
        self._app, self._state, self._metrics = app, state, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = 0, time.perf_counter()

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._state.draining:
                    message["headers"] = [*message.get("headers", ()), _CLOSE]
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, observed)
            except ClientGone:
                status = _CLIENT_GONE
            except Exception as error:
                _log.exception("%s %r failed", scope["method"], scope["path"])
                if status:
                    raise
                await _error(500, protocol.unexpected(error))(scope, receive, observed)
            finally:
                route = getattr(scope.get("route"), "path", None)
                self._metrics.observe(scope["method"], route, status or 500, time.perf_counter() - began)
