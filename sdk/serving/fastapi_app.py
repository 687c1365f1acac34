"""The FastAPI face: KServe's V1 protocol and the Open Inference Protocol (V2) over one predictor."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from longshore.errors import InputError, ModelError
from longshore.serving import openapi, protocol
from longshore.serving.core import Predictor
from longshore.serving.metrics import CONTENT_TYPE, Metrics
from longshore.serving.protocol import BODY_LIMIT, ClientGone, RequestError

__all__ = ["Observed", "create_app"]

_CLIENT_GONE: Final = 499
"""Status label of requests whose client went away before it had sent all; Nginx logs the same number."""

_log = logging.getLogger("longshore.serving")

Work = Callable[[Predictor, bytes], bytes]


def create_app(predictor: Predictor, *, body_limit: int = BODY_LIMIT) -> FastAPI:
    """The web application of one model.

    ``app.state.draining`` set to True has it refuse readiness and close each connection with its next answer; it
    goes on answering predictions.

    Args:
        predictor: The model.
        body_limit: Largest request body in bytes; larger ones are answered with 413.
    """
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
    _add_models(app, predictor, body_limit)
    _add_server(app, predictor)
    _add_errors(app)
    app.add_middleware(Observed, state=app.state, metrics=predictor.metrics)
    return app


def _add_models(app: FastAPI, predictor: Predictor, body_limit: int) -> None:
    about = openapi.model_operation(predictor)

    async def answer(request: Request, version: str, work: Work) -> Response:
        with protocol.measured(predictor, version):
            protocol.check_model(predictor, request.path_params["model"])
            body = await _body(request, body_limit)
            # in a thread, so that a slow model does not keep health checks waiting; the hop costs 0.1 ms
            return _json(await asyncio.to_thread(work, predictor, body))

    @app.post(
        "/v1/models/{model}:predict",
        summary="Predict rows (V1)",
        tags=["KServe V1"],
        openapi_extra=openapi.predict_operation(predictor),
    )
    async def predict(request: Request) -> Response:
        return await answer(request, "v1", protocol.predict_v1)

    @app.post(
        "/v2/models/{model}/infer",
        summary="Predict columns (V2)",
        tags=["Open Inference Protocol V2"],
        openapi_extra=openapi.infer_operation(predictor),
    )
    async def infer(request: Request) -> Response:
        return await answer(request, "v2", protocol.infer_v2)

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
    async def refused(_: Request, error: RequestError) -> Response:
        return _error(error.status, str(error))

    @app.exception_handler(InputError)
    async def does_not_fit(_: Request, error: InputError) -> Response:
        return _error(400, str(error))

    @app.exception_handler(ModelError)
    async def failed(request: Request, error: ModelError) -> Response:
        _log.error("%s %r: %s", request.method, request.url.path, error, exc_info=error.__cause__)
        return _error(500, str(error))

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        path, reasons = request.url.path, {404: "there is no", 405: f"{request.method} is not for"}
        return _error(
            error.status_code,
            f"{reasons.get(error.status_code, error.detail)} {path}; /docs lists what there is",
            error.headers,
        )


async def _body(request: Request, limit: int) -> bytes:
    if (encoding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise RequestError(415, f"the body is compressed ({encoding}): send it as it is")
    too_large = RequestError(413, f"the body is larger than {limit} bytes: send fewer rows at a time")
    # refused before it is read, so that a client which waits for '100 Continue' need not send it
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    parts, size = list[bytes](), 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise too_large
            parts.append(part)
    except ClientDisconnect as error:
        raise ClientGone from error
    return b"".join(parts)


def _json(content: Any, status: int = 200, headers: Any = None) -> Response:
    body = content if isinstance(content, bytes) else protocol.encode(content)
    return Response(body, status_code=status, headers=headers, media_type="application/json")


def _error(status: int, message: str, headers: Any = None) -> Response:
    return _json({"error": message}, status, headers)


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
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
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
