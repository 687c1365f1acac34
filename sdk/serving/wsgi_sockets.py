"""Gunicorn's worker with threads, on sockets that are taken over while it runs.

It is told so on a control socket of its own (see :mod:`longshore.serving.workers`), in a thread; the sockets belong to
its loop.
"""

from __future__ import annotations

import errno
import functools
import select
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from longshore.serving.control import Answer, Request
from longshore.serving.listeners import waiting_clients
from longshore.serving.process import leave

__all__ = ["ListeningWorker"]


class ListeningWorker(ThreadWorker, ABC):
    """See above. What becomes of whoever connects is for :meth:`connected` to say.

    Attributes:
        sockets: Its own, and the public one if it is there.
        news: What the loop does not put off: whoever connects, and what it is told.
    """

    sockets: list[socket.socket]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.news = select.poll()

    @abstractmethod
    def connected(self, client: socket.socket, address: Any, server: Any) -> None:
        """Take a connection, and wait for its first request.

        Args:
            client: Its socket.
            address: Address of the client.
            server: Address that it has connected to.
        """

    def control(self, request: Request, fds: Sequence[int]) -> Answer:
        """Called in the control thread."""
        if request["do"] == "accept":
            self._in_loop(functools.partial(self._take_over, socket.socket(fileno=fds[0])))
            return {}, ()
        if request["do"] == "retire":
            self._in_loop(self.retire)
            return {}, ()
        raise ValueError(f"unknown request {request['do']!r}")

    def retire(self) -> None:
        """Accept no more, as soon as this returns: whoever connects after that reaches the successor."""
        self.app.application.draining = True
        self.alive = False
        self._close_listeners()

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self.app.application is None:
            # it loads, and whatever does that might take an exception for a reason why it cannot
            leave()
        self.app.application.draining = True
        super().handle_exit(sig, frame)

    def accept(self, listener: socket.socket) -> None:
        if listener not in self.sockets:
            # closed since it was found that somebody waits there, who comes to whoever else accepts
            return
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                raise
            return
        self._admit(client, address, listener)

    def set_accept_enabled(self, enabled: bool) -> None:
        if enabled != self._accepting:
            for listener in self.sockets:
                if enabled:
                    self.news.register(listener, select.POLLIN)
                else:
                    self.news.unregister(listener)
        super().set_accept_enabled(enabled)

    def _cap_keepalive(self, deadline: float) -> None:
        # called as soon as it is known that the worker is to end, whether or not there are connections yet
        self._close_listeners()
        super()._cap_keepalive(deadline)

    def _admit(self, client: socket.socket, address: Any, listener: socket.socket) -> None:
        self.nr_conns += 1
        self.connected(client, address, listener.getsockname())

    def _in_loop(self, work: Callable[[], None]) -> None:
        done = threading.Event()

        def then() -> None:
            work()
            done.set()

        self.method_queue.defer(then)
        if not done.wait(10):
            raise TimeoutError("the worker does not answer")

    def _take_over(self, sock: socket.socket) -> None:
        # its own loop has it accept again
        self.set_accept_enabled(False)
        for former in self.sockets[1:]:
            former.close()
        self.sockets[1:] = [sock]

    def _close_listeners(self) -> None:
        # Gunicorn leaves them open until the last answer: who connects meanwhile would wait for nothing and be cut off
        self.set_accept_enabled(False)
        for sock in self.sockets:
            for client, address in waiting_clients(sock):
                self._admit(client, address, sock)
            sock.close()
        self.sockets = []
