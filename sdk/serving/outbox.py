"""What a server has to say to a client, which need not take it at once."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from typing import Any, Final

__all__ = ["Outbox"]

_TRICKLE_SECONDS: Final = 1.0
"""How long a thread waits for bytes at the most; only of a request that is refused it waits at all."""


class Outbox:
    """A socket that is written to without waiting: what its buffer does not take is kept for the loop.

    To have a socket wait or not is a call to the kernel, and Gunicorn does so several times for each request. So this
    one never waits by itself, and :meth:`recv` waits where it is to.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.setblocking(False)
        self._waits = False
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

    def recv(self, size: int) -> bytes:
        """What has come, or comes in a little while where that is waited for.

        Raises:
            BlockingIOError: If nothing has come, and it is not waited for.
            TimeoutError: If nothing comes.
        """
        try:
            return self._sock.recv(size)
        except BlockingIOError:
            if not self._waits:
                raise
        if not self.readable(_TRICKLE_SECONDS):
            raise TimeoutError("the client sends nothing")
        return self._sock.recv(size)

    def readable(self, seconds: float) -> bool:
        """Whether something comes within so long."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def setblocking(self, flag: bool) -> None:
        """Wait for bytes a little, or not at all."""
        self._waits = flag

    def settimeout(self, seconds: float | None) -> None:
        """The same: how long is not for others to say."""
        self._waits = seconds != 0

    def gettimeout(self) -> float:
        """How long it waits, in seconds."""
        return _TRICKLE_SECONDS if self._waits else 0.0

    def _write(self, view: memoryview) -> int:
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < len(view):
                sent += os.write(self._sock.fileno(), view[sent:])
        return sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)
