"""Gunicorn's threads, for clients that may be slow, and with sockets that are taken over while it runs.

Gunicorn's own worker reads requests and writes answers in its threads, so that as many slow clients as there are
threads keep all others waiting. Here the worker's loop does both: a thread gets a request once it is all there, and
leaves what the client does not take at once to the loop.

A thread stays with its connection for a moment, as long as nothing waits for a thread: to hand a connection back to the
loop that looks for requests, and get it from there again, takes twice as long as the request itself.

A connection is idle (Gunicorn's ``keepalived_conns``), in a thread, or waits for its client, in one of three ways:
it sends a request, takes an answer, or has been told that the connection ends and is to close it.
"""

from __future__ import annotations

import errno
import functools
import queue
import select
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

from longshore.serving.control import Answer, Request, serve_control
from longshore.serving.incoming import Incoming
from longshore.serving.outbox import Outbox
from longshore.serving.patience import abort, refusal, too_slow
from longshore.serving.process import leave

__all__ = ["WsgiWorker"]

_READ: Final = 256 * 1024
_LOOK_SECONDS: Final = 0.25
_STAY_MILLISECONDS: Final = 5
_CLOSING_SECONDS: Final = 2.0
"""How long a client is given to close a connection that has ended: closed before it has read all, it would be reset."""

_SENDS, _TAKES, _CLOSES = "sends a request", "takes an answer", "closes"


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
    """See above."""

    sockets: list[socket.socket]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # by connection: in what way it waits for its client, and until when
        self._waiting: dict[TConn, tuple[str, float]] = {}
        self._looked = 0.0

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

    # threads

    def get_thread_pool(self) -> _Threads:
        # one of them is there for another connection
        self._staying = threading.Semaphore(self.cfg.threads - 1)
        return _Threads(self.cfg.threads)

    def enqueue_req(self, conn: TConn) -> None:
        self.tpool.submit(functools.partial(self._answer, conn))

    def _answer(self, conn: TConn) -> None:
        """Called in a thread."""
        kept = self.handle(conn)
        while kept is True and self._goes_on(conn):
            kept = self.handle(conn)
        self.method_queue.defer(self.finish_request, conn, _Finished(kept))

    def _goes_on(self, conn: TConn) -> bool:
        """Whether the next request is there, or comes at once; what there is of one is kept in any case."""
        conn.incoming = Incoming(self.app.application.body_limit)
        come = conn.parser.unreader.take_buffered()
        if conn.sock.unsent:
            conn.incoming.add(come)
            return False
        enough = conn.incoming.add(come or self._wait_a_moment(conn))
        if not enough or conn.incoming.too_long or not self.alive:
            return False
        self._hand_over(conn)
        return True

    def _wait_a_moment(self, conn: TConn) -> bytes:
        if not self._staying.acquire(blocking=False):
            return b""
        try:
            ready = select.poll()
            ready.register(conn.sock, select.POLLIN)
            if any(self.alive and not self.tpool.waited_for and ready.poll(1) for _ in range(_STAY_MILLISECONDS)):
                come: bytes = conn.sock.recv(_READ)
                return come
        except OSError:
            # the loop sees it as well
            pass
        finally:
            self._staying.release()
        return b""

    # connections

    def accept(self, listener: socket.socket) -> None:
        """Take a connection, and wait for its first request."""
        if listener not in self.sockets:
            # closed since it was found that somebody waits there, who comes to whoever else accepts
            return
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                raise
            return
        self.nr_conns += 1
        connection = TConn(self.cfg, Outbox(client), address, listener.getsockname())
        connection.init()
        connection.data_ready = True
        connection.sock.setblocking(False)
        connection.incoming = Incoming(self.app.application.body_limit)
        self._begin(connection)

    def on_client_socket_readable(self, conn: TConn, client: Any) -> None:
        """The next request begins on a connection that was idle."""
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        if (come := self._read(conn)) is not None:
            self._begin(conn, come)

    def finish_request(self, conn: TConn, fs: Any) -> None:
        """A thread is through with a request."""
        try:
            conn.goes_on = not fs.cancelled() and bool(fs.result())
            conn.sock.setblocking(False)
            if conn.sock.unsent:
                self._wait(conn, _TAKES, self.app.options.client_seconds, selectors.EVENT_WRITE, self._send)
            else:
                self._answered(conn)
        except Exception:  # noqa: BLE001 - whatever is wrong with one connection, the others go on
            self._forget(conn)
            self._drop(conn)

    def murder_pending(self) -> None:
        """End the connections whose clients have taken too long."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        for conn, (way, until) in list(self._waiting.items()):
            if until > now:
                continue
            self._forget(conn)
            if way == _SENDS and conn.incoming.content:
                conn.sock.sendall(too_slow(self.app.options.client_seconds))
                self._close(conn)
            else:
                if way == _TAKES:
                    abort(conn.sock)
                self._drop(conn)

    def _cap_keepalive(self, deadline: float) -> None:
        # called as soon as it is known that the worker is to end, whether or not there are connections yet
        self._close_listeners()
        super()._cap_keepalive(deadline)
        # a connection on which nothing has come is no more than an idle one
        for conn, (way, until) in self._waiting.items():
            if way == _SENDS and not conn.incoming.content:
                self._waiting[conn] = way, min(until, deadline)

    def _begin(self, conn: TConn, come: bytes = b"") -> None:
        """A request is next on a connection, and a part of it may have come."""
        if not self._take(conn, come):
            self._wait(conn, _SENDS, self.app.options.client_seconds, selectors.EVENT_READ, self._receive)

    def _receive(self, conn: TConn, _: Any) -> None:
        if come := self._read(conn):
            self._take(conn, come)

    def _read(self, conn: TConn) -> bytes | None:
        """What has come; None if the connection is at its end, and was let go."""
        try:
            come: bytes = conn.sock.recv(_READ)
        except BlockingIOError:
            return b""
        except OSError:
            come = b""
        if not come:
            self._forget(conn)
            self._drop(conn)
        return come or None

    def _take(self, conn: TConn, come: bytes) -> bool:
        """Whether a request is there, or as much of it as is wanted; then somebody sees to it."""
        incoming = conn.incoming
        enough = incoming.add(come)
        if incoming.continues:
            incoming.continues = False
            conn.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not enough:
            return False
        self._forget(conn)
        if incoming.too_long:
            conn.sock.sendall(refusal("431 Request Header Fields Too Large", "the head of the request is too long"))
            self._close(conn)
        else:
            self._hand_over(conn)
            self.enqueue_req(conn)
        return True

    def _hand_over(self, conn: TConn) -> None:
        """Give the parser what has come."""
        conn.parser.unreader.unread(bytes(conn.incoming.content))
        conn.incoming.content.clear()

    def _keepalive_after(self, conn: TConn, keepalive: bool) -> bool:
        # what is missing of a request that was refused is not waited for
        return bool(conn.incoming.whole and super()._keepalive_after(conn, keepalive))

    def _send(self, conn: TConn, _: Any) -> None:
        try:
            done = conn.sock.flush()
        except OSError:
            self._forget(conn)
            self._drop(conn)
            return
        if done:
            self._forget(conn)
            self._answered(conn)

    def _answered(self, conn: TConn) -> None:
        if not conn.goes_on:
            self._close(conn)
        elif conn.incoming.content:
            self._begin(conn)
        else:
            conn.set_timeout()
            if not self.alive:
                conn.timeout = min(conn.timeout, time.monotonic() + STOP_KEEPALIVE_LINGER)
            self.keepalived_conns.append(conn)
            self.poller.register(
                conn.sock, selectors.EVENT_READ, functools.partial(self.on_client_socket_readable, conn)
            )

    def _close(self, conn: TConn) -> None:
        """Say that the connection ends, and let the client close it."""
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(conn)
            return
        self._wait(conn, _CLOSES, _CLOSING_SECONDS, selectors.EVENT_READ, self._drain)

    def _drain(self, conn: TConn, _: Any) -> None:
        # whatever it says, until it closes
        self._read(conn)

    def _wait(self, conn: TConn, way: str, seconds: float, events: int, then: Callable[[TConn, Any], None]) -> None:
        self._waiting[conn] = way, time.monotonic() + seconds
        self.poller.register(conn.sock, events, functools.partial(then, conn))

    def _forget(self, conn: TConn) -> None:
        if self._waiting.pop(conn, None) is not None:
            self.poller.unregister(conn.sock)

    def _drop(self, conn: TConn) -> None:
        self.nr_conns -= 1
        conn.close()

    # sockets that are taken over

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self.app.application is None:
            # it loads, and whatever does that might take an exception for a reason why it cannot
            leave()
        self.app.application.draining = True
        super().handle_exit(sig, frame)

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
