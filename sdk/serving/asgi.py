"""The application as ASGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from longshore.serving.application import Application
from longshore.serving.batching import WAITING, BatchQueue
from longshore.serving.core import Predictor
from longshore.serving.exchange import Exchange
from longshore.serving.messages import Answer, Request
from longshore.serving.refusals import ClientGone, RequestError, check_length, too_large
from longshore.serving.room import SMALL
from longshore.serving.routes import Found

__all__ = ["AsgiApp", "AsgiFace", "Receive", "Scope", "Send"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]


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
                call = exchange.read(await _body(_limited(receive, application.body_limit, exchange.keep)))
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
            await _send(answer, exchange.headers(answer), send)
        finally:
            exchange.end(answer.status, len(answer.body))

    async def guard(self, app: AsgiApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Have another application answer, given no larger bodies than this one takes.

        It must read a body before it begins to answer.
        """
        application, headers = self._application, dict(scope["headers"])
        try:
            check_length(headers, application.body_limit)
            await app(scope, _limited(receive, application.body_limit), send)
        except RequestError as error:
            answer = application.refuse(Request(scope["method"], scope["path"], headers), error)
            await _send(answer, answer.headers, send)

    def _queue(self, predictor: Predictor) -> BatchQueue:
        found = self._queues.get(predictor)
        if found is None:
            found = self._queues[predictor] = BatchQueue(
                predictor, waiting=self._waiting, seconds=self._application.seconds
            )
        return found


def _limited(receive: Receive, limit: int, keep: Callable[[int], None] | None = None) -> Receive:
    """What receives a body that is not too large; ``keep`` is told how much of a large one has come."""
    size = 0

    async def take() -> MutableMapping[str, Any]:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise too_large(limit)
        if size > SMALL and keep is not None:
            # Uvicorn hands on what has come, up to 4 MiB at a time; Daphne has large bodies on disk until all is there
            keep(size)
        return message

    return take


async def _body(receive: Receive) -> bytes:
    parts = list[bytes]()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def _send(answer: Answer, headers: Sequence[tuple[str, str]], send: Send) -> None:
    encoded = [(name.encode(), value.encode()) for name, value in headers]
    encoded.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
    await send({"type": "http.response.body", "body": answer.body})
