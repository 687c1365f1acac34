"""WSGI: a worker of Gunicorn's whose threads answer."""

from __future__ import annotations

import functools
import queue
import select
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gunicorn.workers.gthread import TConn, ThreadWorker

from longshore.serving.control import Answer, Request, serve_control
from longshore.serving.process import leave

__all__ = ["WsgiWorker"]

_STAY_MILLISECONDS: Final = 5


class _Threads:
    """Threads that do what they are given, and tell nobody; a pool of Python's makes a future of each work.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._count = count

    def start(self) -> None:
        """Begin."""
        for _ in range(self._count):
            threading.Thread(target=self._run, name="request").start()

    def submit(self, work: Callable[[], None]) -> None:
        """Have it done."""
        self._work.put(work)

    @property
    def waited_for(self) -> bool:
        """Whether there is more to do than there are threads."""
        return not self._work.empty()

    def shutdown(self, *, wait: bool = False) -> None:  # noqa: ARG002 - it is not waited for
        """Have them end once all is done."""
        for _ in range(self._count):
            self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


@dataclass(frozen=True, slots=True)
class _Finished:
    """How a connection's request went, as Gunicorn asks for it."""

    kept: Any

    def result(self) -> Any:
        return self.kept

    def cancelled(self) -> bool:
        return False


class WsgiWorker(ThreadWorker):
    """Gunicorn's threads, with sockets that are taken over while it runs.

    A thread stays with its connection for a moment, as long as nothing waits for a thread: to hand a connection back to
    the loop that looks for requests, and get it from there again, takes twice as long as the request itself.
    """

    sockets: list[socket.socket]

    def get_thread_pool(self) -> _Threads:
        # one of them is there for another connection
        self._staying = threading.Semaphore(self.cfg.threads - 1)
        return _Threads(self.cfg.threads)

    def enqueue_req(self, conn: TConn) -> None:
        self.tpool.submit(functools.partial(self._answer, conn))

    def _answer(self, conn: TConn) -> None:
        """Called in a thread."""
        kept = self.handle(conn)
        while kept is True and self._stays(conn):
            kept = self.handle(conn)
        self.method_queue.defer(self.finish_request, conn, _Finished(kept))

    def _stays(self, conn: TConn) -> bool:
        """Whether there is another request at once."""
        if conn.parser.unreader.buf.getvalue():
            return bool(self.alive)
        if not self._staying.acquire(blocking=False):
            return False
        try:
            ready = select.poll()
            ready.register(conn.sock, select.POLLIN)
            return any(self.alive and not self.tpool.waited_for and ready.poll(1) for _ in range(_STAY_MILLISECONDS))
        finally:
            self._staying.release()

    def run(self) -> None:
        serve_control(self.app.control(self.age), self._control)
        application = self.app.application
        if application.reload is not None:
            signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=application.reload).start())
        self.tpool.start()
        try:
            super().run()
        finally:
            self.tpool.shutdown()
        application.close()

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self.app.application is None:
            # it loads, and whatever does that might take an exception for a reason why it cannot
            leave()
        self.app.application.draining = True
        super().handle_exit(sig, frame)
        self.method_queue.defer(self._close_listeners)

    def _control(self, request: Request, fds: Sequence[int]) -> Answer:
        """Called in the control thread."""
        if request["do"] == "accept":
            self._in_loop(functools.partial(self._take_over, socket.socket(fileno=fds[0])))
            return {}, ()
        if request["do"] == "retire":
            self._in_loop(self._retire)
            return {}, ()
        raise ValueError(f"unknown request {request['do']!r}")

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

    def _retire(self) -> None:
        self.app.application.draining = True
        self.alive = False
        self._close_listeners()

    def _close_listeners(self) -> None:
        # Gunicorn leaves them open until the last answer: who connects meanwhile would wait for nothing and be cut off
        self.set_accept_enabled(False)
        for sock in self.sockets:
            sock.setblocking(False)
            before = -1
            while self.nr_conns > before:
                before = self.nr_conns
                self.accept(sock)
            sock.close()
        self.sockets = []
