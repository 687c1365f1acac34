"""Gunicorn's threads, for clients that may be slow, and with sockets that are taken over while it runs.

Gunicorn's own worker reads requests and writes answers in its threads, so that as many slow clients as there are
threads keep all others waiting. Here the worker's loop does both: a thread gets a request once it is all there, and
leaves what the client does not take at once to the loop.

The loop and the threads take turns, as Python lets one of them run at a time (see :mod:`longshore.serving.threads`).
While requests are ready, the loop looks for no others: it is told when the threads have done all of them, takes all of
their connections back at once, reads what has come meanwhile, and only then calls a thread. It looks anyway for whoever
connects, and every few milliseconds for whether the threads that are at work wait for something. The poller watches a
connection all the time, and is told otherwise only if something comes on one that a thread has.

A thread stays with its connection for a moment if its request was all there was to do: to hand a connection back to
the loop, and get it from there again, takes about as long as the request itself.

A connection is idle (Gunicorn's ``keepalived_conns``), in a thread, or waits for its client, in one of three ways:
it sends a request, takes an answer, or has been told that the connection ends and is to close it.
"""

from __future__ import annotations

import functools
import select
import selectors
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from gunicorn.http.wsgi import create
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER

from longshore.serving.control import serve_control
from longshore.serving.patience import abort, refusal, too_slow
from longshore.serving.threads import BLOCKED_SECONDS, Threads
from longshore.serving.wsgi import NO_ROOM
from longshore.serving.wsgi_connection import Connection
from longshore.serving.wsgi_response import WsgiResponse
from longshore.serving.wsgi_sockets import ListeningWorker

__all__ = ["WsgiWorker"]

_READ: Final = 256 * 1024
_LOOK_SECONDS: Final = 0.25
_STAY_MILLISECONDS: Final = 5
_CLOSING_SECONDS: Final = 2.0
"""How long a client is given to close a connection that has ended: closed before it has read all, it would be reset."""

_SENDS, _TAKES, _CLOSES = "sends a request", "takes an answer", "closes"


class WsgiWorker(ListeningWorker):
    """See above."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # by connection: in what way it waits for its client, and until when
        self._waiting: dict[Connection, tuple[str, float]] = {}
        self._looked = 0.0
        # connections, and whether another request may come on each; the loop is told of them once
        self._answered_by_now: deque[tuple[Connection, Any]] = deque()
        self._told, self._staying = False, threading.Lock()

    def run(self) -> None:
        serve_control(self.app.control(self.age), self.control)
        self.app.say_ready(self.age)
        application = self.app.application
        if application.reload is not None:
            signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=application.reload).start())
        application.make_way = self.tpool.make_way
        self.news.register(self.method_queue.fileno(), select.POLLIN)
        self.tpool.start()
        try:
            super().run()
        finally:
            self.tpool.shutdown()
        application.close()

    # threads

    def get_thread_pool(self) -> Threads:
        return Threads(self.cfg.threads, self._tell)

    def enqueue_req(self, conn: Connection) -> None:
        self.tpool.submit(functools.partial(self._answer, conn))

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        if self.tpool.waited_for:
            # what comes meanwhile would wait as well, and whoever is told of each keeps the threads from their work
            self.news.poll(BLOCKED_SECONDS * 1000)
        self._take_back()
        super().wait_for_and_dispatch_events(0 if self.tpool.waited_for else timeout)
        self.tpool.provide()

    def _answer(self, conn: Connection) -> None:
        """Called in a thread."""
        kept = self.handle(conn)
        # it is answered, and of those that follow here, each of which has come at once, there are no more than threads
        conn.place.leave()
        while kept is True and self._goes_on(conn):
            kept = self.handle(conn)
        self._answered_by_now.append((conn, kept))

    def _tell(self) -> None:
        """Called in a thread: have the loop take back what was answered."""
        if self._answered_by_now and not self._told:
            self._told = True
            self.method_queue.defer(self._take_back)

    def handle_request(self, req: Any, conn: Connection) -> bool:
        """Called in a thread. Gunicorn's own logs and counts each request as well, which the application does."""
        response, environ = create(req, conn.sock, conn.client, conn.server, self.cfg, response_class=WsgiResponse)
        environ["wsgi.multithread"] = True
        if conn.incoming.given_up:
            environ[NO_ROOM] = True
            response.force_close()
        if not self.alive or len(self.keepalived_conns) >= self.max_keepalived:
            response.force_close()
        try:
            response.send_all(self.wsgi(environ, response.start_response))
        except OSError:
            raise
        except Exception:
            if not response.headers_sent:
                raise
            # it cannot be told any more but by an end that comes too soon
            self.log.exception("Error handling request")
            return False
        return not response.should_close()

    def _goes_on(self, conn: Connection) -> bool:
        """Whether the next request is there, or comes at once; what there is of one is kept in any case."""
        conn.begin()
        come = conn.parser.unreader.take_buffered()
        if conn.sock.unsent:
            conn.incoming.add(come)
            return False
        if not come:
            come = self._wait_a_moment(conn)
        if not come:
            return False
        if not conn.incoming.add(come) or conn.incoming.too_long or not self.alive:
            return False
        conn.hand_over()
        return True

    def _wait_a_moment(self, conn: Connection) -> bytes:
        if not self.tpool.alone or self.tpool.waited_for or not self._staying.acquire(blocking=False):
            return b""
        self.tpool.pause()
        try:
            for _ in range(_STAY_MILLISECONDS):
                if not self.alive or self.tpool.waited_for:
                    break
                if conn.sock.readable(0.001):
                    come: bytes = conn.sock.recv(_READ)
                    return come
        except OSError:
            # the loop sees it as well
            pass
        finally:
            self.tpool.resume()
            self._staying.release()
        return b""

    # connections

    def connected(self, client: socket.socket, address: Any, server: Any) -> None:
        self._begin(Connection(self.cfg, client, address, server, self.app.application))

    def _come(self, conn: Connection, _: Any) -> None:
        """Something is to be seen on a connection, which is watched all the time: to begin and end that costs more."""
        if conn.then is None:
            # it may be with the loop again
            self._take_back()
        if conn.then is not None:
            try:
                conn.then(conn)
            except OSError:
                self._drop(conn)
        else:
            # a thread has it, and what is to be seen must not be shown all the time until then
            conn.unwatch(self.poller)

    def _resume(self, conn: Connection) -> None:
        """The next request begins on a connection that was idle."""
        self.keepalived_conns.remove(conn)
        conn.then = None
        if (come := self._read(conn)) is not None:
            self._begin(conn, come)

    def _take_back(self) -> None:
        """Threads are through with requests."""
        self._told = False
        while self._answered_by_now:
            conn, kept = self._answered_by_now.popleft()
            try:
                conn.goes_on = kept is True
                conn.sock.setblocking(False)
                if conn.sock.unsent:
                    self._wait(conn, _TAKES, self.app.options.client_seconds, selectors.EVENT_WRITE, self._send)
                else:
                    self._answered(conn)
            except Exception:  # noqa: BLE001 - whatever is wrong with one connection, the others go on
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
            try:
                if way == _SENDS and conn.incoming.content:
                    conn.sock.sendall(too_slow(self.app.options.client_seconds))
                    self._close(conn)
                    continue
                if way == _TAKES:
                    abort(conn.sock)
            except OSError:
                # it has gone just now
                pass
            self._drop(conn)

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)
        # a connection on which nothing has come is no more than an idle one
        for conn, (way, until) in self._waiting.items():
            if way == _SENDS and not conn.incoming.content:
                self._waiting[conn] = way, min(until, deadline)

    def _begin(self, conn: Connection, come: bytes = b"") -> None:
        """A request is next on a connection, and a part of it may have come."""
        if not self._take(conn, come):
            self._wait(conn, _SENDS, self.app.options.client_seconds, selectors.EVENT_READ, self._receive)

    def _receive(self, conn: Connection) -> None:
        if come := self._read(conn):
            self._take(conn, come)

    def _read(self, conn: Connection) -> bytes | None:
        """What has come; None if the connection is at its end, and was let go."""
        try:
            come: bytes = conn.sock.recv(_READ)
        except BlockingIOError:
            return b""
        except OSError:
            come = b""
        if not come:
            self._drop(conn)
        return come or None

    def _take(self, conn: Connection, come: bytes) -> bool:
        """Whether a request is there, or as much of it as is wanted; then somebody sees to it."""
        incoming = conn.incoming
        enough = incoming.add(come)
        if incoming.continues:
            incoming.continues = False
            conn.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if (incoming.whole or not enough) and not conn.place.grow(len(incoming.content)):
            incoming.give_up()
        elif not enough:
            return False
        self._forget(conn)
        if incoming.too_long:
            conn.sock.sendall(refusal(431, "the head of the request is too long"))
            self._close(conn)
        else:
            conn.hand_over()
            self.enqueue_req(conn)
        return True

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        # what is missing of a request that was refused is not waited for
        return bool(conn.incoming.whole and super()._keepalive_after(conn, keepalive))

    def _send(self, conn: Connection) -> None:
        if conn.sock.flush():
            self._forget(conn)
            self._answered(conn)

    def _answered(self, conn: Connection) -> None:
        if not conn.goes_on:
            self._close(conn)
        elif conn.incoming.content:
            self._begin(conn)
        else:
            conn.set_timeout()
            if not self.alive:
                conn.timeout = min(conn.timeout, time.monotonic() + STOP_KEEPALIVE_LINGER)
            self.keepalived_conns.append(conn)
            conn.watch(self.poller, selectors.EVENT_READ, self._come, self._resume)

    def _close(self, conn: Connection) -> None:
        """Say that the connection ends, and let the client close it."""
        conn.let_go()
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(conn)
            return
        self._wait(conn, _CLOSES, _CLOSING_SECONDS, selectors.EVENT_READ, self._drain)

    def _drain(self, conn: Connection) -> None:
        # whatever it says, until it closes
        self._read(conn)

    def _wait(
        self, conn: Connection, way: str, seconds: float, events: int, then: Callable[[Connection], None]
    ) -> None:
        self._waiting[conn] = way, time.monotonic() + seconds
        conn.watch(self.poller, events, self._come, then)

    def _forget(self, conn: Connection) -> None:
        self._waiting.pop(conn, None)
        conn.then = None

    def _drop(self, conn: Connection) -> None:
        self._forget(conn)
        conn.unwatch(self.poller)
        conn.let_go()
        self.nr_conns -= 1
        conn.close()
