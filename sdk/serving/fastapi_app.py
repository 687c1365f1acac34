"""The FastAPI face: the application's routes, documented with the model's own columns.

Requests are answered before FastAPI sees them: what it does for a route (resolving dependencies, a stack of contexts
for each request) takes longer than a small model. Its own routes for them are there for the documentation.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from longshore.serving import openapi, protocol
from longshore.serving.application import Application
from longshore.serving.asgi import AsgiFace
from longshore.serving.batching import WAITING
from longshore.serving.messages import CLIENT_GONE
from longshore.serving.refusals import ClientGone
from longshore.serving.routes import ROUTES, find_route

__all__ = ["Observed", "create_app"]

_CLOSE: Final = (b"connection", b"close")

_log = logging.getLogger("longshore.serving")


class _App(FastAPI):
    """FastAPI, asked only for what the application has no route for."""

    face: AsgiFace | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.face is not None and scope["type"] == "http":
            found = find_route(scope["method"], scope["path"])
            if found is not None:
                await self.face(scope, receive, send, found)
                return
        await super().__call__(scope, receive, send)


def create_app(application: Application, *, waiting: int = WAITING) -> FastAPI:
    """The web application of one model.

    Args:
        application: What answers; it is in ``app.state.application`` as well.
        waiting: At most so many requests wait for the model; more are answered with 503.
    """
    predictor = application.models.default
    app = _App(
        title=predictor.name,
        version=predictor.version or "unversioned",
        description=(
            f"Predicts {predictor.card.signature.target!r} ({predictor.card.task}, {predictor.card.estimator}). "
            f"Revision {predictor.revision}."
        ),
        redoc_url=None,
        # it shows the model's columns and rows, which are not for everyone where a token is needed
        openapi_url="/openapi.json" if application.authorise is None else None,
    )
    app.state.application = application
    for route in ROUTES:
        app.add_api_route(
            route.template,
            _documented,
            methods=[route.method],
            summary=route.summary,
            tags=[route.tag],
            operation_id=re.sub(r"\W+", "_", f"{route.method}{route.template}").lower(),
        )
    plain = app.openapi
    # not kept: what is served can change
    app.openapi = lambda: openapi.describe(plain(), application.models)  # type: ignore[method-assign]
    app.add_exception_handler(HTTPException, _no_route)
    app.add_middleware(Observed, application=application)
    app.face = AsgiFace(application, waiting)
    return app


async def _documented() -> Response:
    raise AssertionError  # requests for these routes do not come here


async def _no_route(request: Request, error: Any) -> Response:
    path, reasons = request.url.path, {404: "there is no", 405: f"{request.method} is not for"}
    return _error(
        error.status_code,
        f"{reasons.get(error.status_code, error.detail)} {path}; /docs lists what there is",
        error.headers,
    )


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    body = protocol.encode({"error": message})
    return Response(body, status_code=status, headers=headers, media_type="application/json")


class Observed:
    """Measures each request, answers for whatever was not expected, and has connections closed while draining.

    Args:
        app: The application behind it.
        application: Says in ``draining`` whether the server is to end, and where requests are counted.
    """

    def __init__(self, app: ASGIApp, *, application: Application) -> None:
        self._app, self._application = app, application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        metrics, status, began = self._application.metrics, 0, time.perf_counter()

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._application.draining:
                    message["headers"] = [*message.get("headers", ()), _CLOSE]
            await send(message)

        with metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, observed)
            except ClientGone:
                status = CLIENT_GONE
            except Exception as error:
                _log.exception("%s %r failed", scope["method"], scope["path"])
                if status:
                    raise
                await _error(500, protocol.unexpected(error))(scope, receive, observed)
            finally:
                route = getattr(scope.get("route"), "path", None)
                seconds = time.perf_counter() - began
                self._application.count(scope["method"], scope["path"], route, status or 500, seconds)
