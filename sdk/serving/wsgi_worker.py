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

import errno
import functools
import select
import selectors
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from gunicorn.http.wsgi import create
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

from longshore.serving.control import Answer, Request, serve_control
from longshore.serving.incoming import Incoming
from longshore.serving.outbox import Outbox
from longshore.serving.patience import abort, refusal, too_slow
from longshore.serving.process import leave
from longshore.serving.room import Place
from longshore.serving.threads import BLOCKED_SECONDS, Threads
from longshore.serving.wsgi import NO_ROOM
from longshore.serving.wsgi_response import WsgiResponse

__all__ = ["WsgiWorker"]

_READ: Final = 256 * 1024
_LOOK_SECONDS: Final = 0.25
_STAY_MILLISECONDS: Final = 5
_CLOSING_SECONDS: Final = 2.0
"""How long a client is given to close a connection that has ended: closed before it has read all, it would be reset."""

_SENDS, _TAKES, _CLOSES = "sends a request", "takes an answer", "closes"


class WsgiWorker(ThreadWorker):
    """See above."""

    sockets: list[socket.socket]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # by connection: in what way it waits for its client, and until when
        self._waiting: dict[TConn, tuple[str, float]] = {}
        self._looked = 0.0
        # connections, and whether another request may come on each; the loop is told of them once
        self._answered_by_now: deque[tuple[TConn, Any]] = deque()
        self._told, self._staying = False, threading.Lock()
        # what the loop does not put off: whoever connects, and what it is told
        self._news = select.poll()

    def run(self) -> None:
        serve_control(self.app.control(self.age), self._control)
        application = self.app.application
        if application.reload is not None:
            signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=application.reload).start())
        application.make_way = self.tpool.make_way
        self._news.register(self.method_queue.fileno(), select.POLLIN)
        self.tpool.start()
        try:
            super().run()
        finally:
            self.tpool.shutdown()
        application.close()

    # threads

    def get_thread_pool(self) -> Threads:
        return Threads(self.cfg.threads, self._tell)

    def enqueue_req(self, conn: TConn) -> None:
        self.tpool.submit(functools.partial(self._answer, conn))

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        if self.tpool.waited_for:
            # what comes meanwhile would wait as well, and whoever is told of each keeps the threads from their work
            self._news.poll(BLOCKED_SECONDS * 1000)
        self._take_back()
        super().wait_for_and_dispatch_events(0 if self.tpool.waited_for else timeout)
        self.tpool.provide()

    def _answer(self, conn: TConn) -> None:
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

    def handle_request(self, req: Any, conn: TConn) -> bool:
        """Called in a thread. Gunicorn's own logs and counts each request as well, which the application does."""
        response, environ = create(req, conn.sock, conn.client, conn.server, self.cfg, response_class=WsgiResponse)
        environ["wsgi.multithread"] = True
        if conn.incoming.given_up:
            environ[NO_ROOM] = True
            response.force_close()
        if not self.alive or len(self.keepalived_conns) >= self.max_keepalived:
            response.force_close()
        try:
            parts = self.wsgi(environ, response.start_response)
            try:
                for part in parts:
                    response.write(part)
                response.close()
            finally:
                if hasattr(parts, "close"):
                    parts.close()
        except OSError:
            raise
        except Exception:
            if not response.headers_sent:
                raise
            # it cannot be told any more but by an end that comes too soon
            self.log.exception("Error handling request")
            return False
        return not response.should_close()

    def _goes_on(self, conn: TConn) -> bool:
        """Whether the next request is there, or comes at once; what there is of one is kept in any case."""
        conn.incoming = Incoming(self.app.application.body_limit)
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
        self._hand_over(conn)
        return True

    def _wait_a_moment(self, conn: TConn) -> bytes:
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
        connection.watched, connection.then = 0, None
        connection.incoming = Incoming(self.app.application.body_limit)
        connection.place = Place(self.app.application.room)
        self._begin(connection)

    def _come(self, conn: TConn, _: Any) -> None:
        """Something is to be seen on a connection, which is watched all the time: to begin and end that costs more."""
        if conn.then is None:
            # it may be with the loop again
            self._take_back()
        if conn.then is not None:
            try:
                conn.then(conn)
            except OSError:
                self._drop(conn)
        elif conn.watched:
            # a thread has it, and what is to be seen must not be shown all the time until then
            self.poller.unregister(conn.sock)
            conn.watched = 0

    def _resume(self, conn: TConn) -> None:
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

    def set_accept_enabled(self, enabled: bool) -> None:
        if enabled != self._accepting:
            for listener in self.sockets:
                if enabled:
                    self._news.register(listener, select.POLLIN)
                else:
                    self._news.unregister(listener)
        super().set_accept_enabled(enabled)

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

    def _receive(self, conn: TConn) -> None:
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
            self._drop(conn)
        return come or None

    def _take(self, conn: TConn, come: bytes) -> bool:
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

    def _send(self, conn: TConn) -> None:
        if conn.sock.flush():
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
            self._watch(conn, selectors.EVENT_READ, self._resume)

    def _close(self, conn: TConn) -> None:
        """Say that the connection ends, and let the client close it."""
        self._let_go(conn)
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(conn)
            return
        self._wait(conn, _CLOSES, _CLOSING_SECONDS, selectors.EVENT_READ, self._drain)

    def _drain(self, conn: TConn) -> None:
        # whatever it says, until it closes
        self._read(conn)

    def _wait(self, conn: TConn, way: str, seconds: float, events: int, then: Callable[[TConn], None]) -> None:
        self._waiting[conn] = way, time.monotonic() + seconds
        self._watch(conn, events, then)

    def _watch(self, conn: TConn, events: int, then: Callable[[TConn], None]) -> None:
        conn.then = then
        if conn.watched != events:
            see = self.poller.modify if conn.watched else self.poller.register
            see(conn.sock, events, functools.partial(self._come, conn))
            conn.watched = events

    def _forget(self, conn: TConn) -> None:
        self._waiting.pop(conn, None)
        conn.then = None

    def _drop(self, conn: TConn) -> None:
        self._forget(conn)
        if conn.watched:
            self.poller.unregister(conn.sock)
            conn.watched = 0
        self._let_go(conn)
        self.nr_conns -= 1
        conn.close()

    def _let_go(self, conn: TConn) -> None:
        """No answer is to come any more to what has come."""
        conn.incoming.content.clear()
        conn.place.leave()

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
