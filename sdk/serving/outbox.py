"""What a server has to say to a client, which need not take it at once."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any, Final

__all__ = ["Outbox"]

_TRICKLE_SECONDS: Final = 1.0
"""How long a thread waits for bytes at the most; only of a request that is refused it waits at all."""


class Outbox:
    """A socket that is written to without waiting: what its buffer does not take is kept for the loop."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.unsent = bytearray()

    def sendall(self, data: bytes) -> None:
        """Send as much as can be at once."""
        view = memoryview(data)
        if not self.unsent:
            view = view[self._write(view) :]
        self.unsent += view

    def send(self, data: bytes) -> int:
        """The same."""
        self.sendall(data)
        return len(data)

    def flush(self) -> bool:
        """Send more of what is kept; whether that was all."""
        with memoryview(self.unsent) as view:
            sent = self._write(view)
        del self.unsent[:sent]
        return not self.unsent

    def _write(self, view: memoryview) -> int:
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < len(view):
                # the socket's own method would wait where it has a time limit
                sent += os.write(self._sock.fileno(), view[sent:])
        return sent

    def setblocking(self, flag: bool) -> None:
        """Wait for bytes a little, or not at all."""
        self._sock.settimeout(_TRICKLE_SECONDS if flag else 0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)
