"""The application as ASGI, in front of whatever else a framework has to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from weakref import WeakKeyDictionary

from longshore.serving.application import Application, Exchange
from longshore.serving.batching import WAITING, BatchQueue
from longshore.serving.core import Predictor
from longshore.serving.protocol import ClientGone

__all__ = ["AsgiFace"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class AsgiFace:
    """Answers what is the application's; all else goes on to the application behind it.

    What waits while the model is busy is predicted together, and the event loop goes on meanwhile.

    Args:
        app: The application behind it.
        application: What answers.
        ours: Says of a method and a path whether they are the application's.
        waiting: At most so many requests wait for the model; more are answered with 503.
    """

    def __init__(
        self, app: App, *, application: Application, ours: Callable[[str, str], bool], waiting: int = WAITING
    ) -> None:
        self._app, self._application, self._ours, self._waiting = app, application, ours, waiting
        self._queues = WeakKeyDictionary[Predictor, BatchQueue]()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        application = self._application
        if scope["type"] != "http" or not self._ours(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        exchange = Exchange(application, scope["method"], scope["path"], dict(scope["headers"]))
        try:
            answer = exchange.begin()
            if answer is None:
                call = exchange.read(await _body(receive, exchange, application.body_limit))
                async with asyncio.timeout(application.seconds):
                    prediction = await self._queue(exchange.predictor).predict(call.ask)
                answer = exchange.predicted(call, prediction)
        except ClientGone:
            exchange.gone()
            return
        except Exception as error:  # noqa: BLE001 - it is logged where it should be, and the client is told
            answer = exchange.refused(error)
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
            found = self._queues[predictor] = BatchQueue(predictor, waiting=self._waiting)
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
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)
