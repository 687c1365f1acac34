"""The application as ASGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from weakref import WeakKeyDictionary

from longshore.serving.application import Application
from longshore.serving.batching import WAITING, BatchQueue
from longshore.serving.core import Predictor
from longshore.serving.exchange import Exchange
from longshore.serving.protocol import ClientGone
from longshore.serving.room import SMALL
from longshore.serving.routes import Found

__all__ = ["AsgiFace", "Receive", "Scope", "Send"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class AsgiFace:
    """The application for an ASGI server, or in front of what another application answers.

    Args:
        application: What answers.
        waiting: At most so many requests wait for a model; more are answered with 503.
    """

    def __init__(self, application: Application, waiting: int = WAITING) -> None:
        self._application, self._waiting = application, waiting
        self._queues = WeakKeyDictionary[Predictor, BatchQueue]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send, found: Found | None = None) -> None:
        application = self._application
        # what the route is can be known already
        exchange = Exchange(application, scope["method"], scope["path"], dict(scope["headers"]))
        try:
            answer = exchange.begin(found)
            if answer is None:
                call = exchange.read(await _body(receive, exchange, application.body_limit))
                prediction = await self._queue(exchange.predictor).predict(call.ask)
                answer = exchange.predicted(call, prediction)
        except ClientGone:
            exchange.gone()
            return
        except Exception as error:  # noqa: BLE001 - it is logged where it should be, and the client is told
            answer = exchange.refused(error)
        finally:
            if exchange.place is not None:
                exchange.place.leave()
        try:
            headers = [(name.encode(), value.encode()) for name, value in exchange.headers(answer)]
            headers.append((b"content-length", str(len(answer.body)).encode()))
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            await send({"type": "http.response.body", "body": answer.body})
        finally:
            exchange.end(answer.status, len(answer.body))

    def _queue(self, predictor: Predictor) -> BatchQueue:
        found = self._queues.get(predictor)
        if found is None:
            found = self._queues[predictor] = BatchQueue(
                predictor, waiting=self._waiting, seconds=self._application.seconds
            )
        return found


async def _body(receive: Receive, exchange: Exchange, limit: int) -> bytes:
    parts, size = list[bytes](), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise exchange.too_large()
        if size > SMALL:
            # Uvicorn hands on what has come, up to 4 MiB at a time; Daphne has large bodies on disk until all is there
            exchange.keep(size)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)
