"""How long a server waits for its clients: to send a request in full, and to take the answer.

A connection that waits costs little behind an event loop, but there is no end to those that a client can make. The time
is that for all of a request or of an answer, so a byte now and then gains nothing.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable, Hashable, Mapping
from typing import Final, Generic, TypeVar

from longshore.serving.messages import JSON, Answer, on_the_wire

__all__ = ["ANSWER", "CLIENT_SECONDS", "REQUEST", "Patience", "abort", "every", "refusal", "too_slow"]

CLIENT_SECONDS: Final = 60.0
"""How long a client may take to send a request, and as long to take its answer."""

# what a connection waits for its client to do
REQUEST: Final = "send a request"
ANSWER: Final = "take its answer"

_C = TypeVar("_C", bound=Hashable)


class Patience(Generic[_C]):
    """Remembers since when each connection has kept a server waiting for the same.

    Args:
        seconds: How long it may.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds: Final = seconds
        self.interval: Final = min(1.0, seconds / 4)
        """How often to look."""
        self._since: dict[_C, tuple[object, float]] = {}

    def exhausted(self, waits: Mapping[_C, object], now: float) -> list[_C]:
        """The connections that have kept the server waiting for too long.

        Args:
            waits: What it waits for, by connection; anything else than the last time begins anew.
            now: The time.
        """
        known = self._since
        self._since = {
            connection: known[connection] if known.get(connection, (None,))[0] == reason else (reason, now)
            for connection, reason in waits.items()
        }
        return [connection for connection, (_, since) in self._since.items() if now - since > self.seconds]


def abort(sock: socket.socket) -> None:
    """Have a connection reset when it is closed: the kernel would go on offering the answer to who does not take it."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def refusal(status: int, text: str) -> bytes:
    """An answer, as it goes over the wire, to what is no request; the connection ends with it.

    Args:
        status: Its code.
        text: What is wrong.
    """
    return on_the_wire(Answer(status, json.dumps({"error": text}).encode(), headers=[("content-type", JSON)]))


def too_slow(seconds: float) -> bytes:
    """The answer to a request that did not come in time."""
    return refusal(408, f"the request did not come within {seconds:g} seconds: send it faster")


async def every(seconds: float, look: Callable[[], None]) -> None:
    """Look again and again, until it is cancelled."""
    while True:
        await asyncio.sleep(seconds)
        look()
