"""What listens on a socket and gives an ASGI application the requests: Uvicorn or Daphne.

A process has one listener for each of its sockets, and takes on another while it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol

import uvicorn
import uvloop
from uvicorn.protocols.http import httptools_impl

from longshore.errors import MissingExtra
from longshore.serving.incoming import HEAD_LIMIT
from longshore.serving.patience import ANSWER, REQUEST, Patience, abort, every, refusal, too_slow

if TYPE_CHECKING:
    from longshore.serving.application import Application

__all__ = [
    "Corked",
    "Listener",
    "UvicornListener",
    "check_daphne",
    "listener_of",
    "run_loop",
    "waiting_clients",
]


_HIGH_WATER: Final = 4 * 2**20

_IN_ADVANCE: Final = 256
"""So many requests wait on a connection for the one before them to be answered; then it takes no more."""

# Uvicorn stops reading at each 64 KiB until the application has taken them, and this one wants bodies whole
httptools_impl.HIGH_WATER_LIMIT = _HIGH_WATER  # type: ignore[attr-defined]


class Listener(Protocol):
    """A server on one socket. All of it belongs to one event loop; signals are the process's business."""

    async def start(self) -> None:
        """Listen; what comes in from now on is answered."""

    def stop_accepting(self) -> None:
        """Accept no more connections; those that are there go on."""

    async def end(self) -> None:
        """Accept no more, let requests end and close connections."""

    @property
    def connections(self) -> int:
        """Connections that are open."""

    @property
    def requests(self) -> int:
        """Requests that are being answered."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Corked:
    """A connection on which what is written at once is sent at once.

    Uvicorn writes an answer's head and body by themselves, and each would be a call of the kernel that has the client
    look: at many small answers a third of all that the server does.

    Args:
        transport: The connection.
        loop: Its event loop.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send it, with all else that is written until the loop comes round."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        """Send what is written, and close."""
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.writelines(parts)


class _Protocol(httptools_impl.HttpToolsProtocol):
    """Uvicorn's side of a connection, with bounds where it has none: of a head, and of requests in advance."""

    # bytes since the last part of a body, or the end of a request
    _bare = 0
    # no more requests are taken from it
    _full = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(Corked(transport, self.loop))  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        self._bare += len(data)
        super().data_received(data)
        if self._bare > HEAD_LIMIT and not self.transport.is_closing():
            self._refuse()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if len(self.pipeline) >= _IN_ADVANCE:
            # a client must expect that a connection ends with any answer, and send again what had none
            self._full, self.cycle.keep_alive = True, False

    def on_headers_complete(self) -> None:
        if self._bare > HEAD_LIMIT and self._size_of_head() > HEAD_LIMIT:
            self._full = True
            self._refuse()
        if not self._full:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._bare = 0
        if not self._full:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._bare = 0
        if not self._full:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.pipeline:
            # Uvicorn reads on with each answer, however many requests wait
            self.flow.pause_reading()

    def _size_of_head(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)

    def _refuse(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(refusal(431, "the head of the request is too long"))
        self.transport.close()


class UvicornListener:
    """Uvicorn on one socket.

    Args:
        app: The ASGI application.
        sock: The socket, which is bound.
        drain_seconds: How long requests have to end.
        client_seconds: How long a client has to send a request, and to take its answer.
    """

    def __init__(self, app: Any, sock: socket.socket, drain_seconds: float, client_seconds: float) -> None:
        self._server = _Server(
            uvicorn.Config(
                app,
                http=_Protocol,
                lifespan="off",
                access_log=False,
                log_config=None,
                log_level="warning",
                # nothing here asks who the client is
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=max(1, round(drain_seconds)),
            )
        )
        self._socket = sock
        self._task: asyncio.Task[None] | None = None
        self._arriving = list[asyncio.Task[Any]]()
        self._patience = Patience[Any](client_seconds)
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        up = asyncio.create_task(self._server.up.wait())
        await asyncio.wait([self._task, up], return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            up.cancel()
            self._task.result()
        self._watch = asyncio.create_task(every(self._patience.interval, self._cut_off))

    def stop_accepting(self) -> None:
        # what the kernel has accepted would be reset
        loop = asyncio.get_running_loop()
        for client, _ in waiting_clients(self._socket):
            self._arriving.append(loop.create_task(loop.connect_accepted_socket(self._protocol, client)))
        for server in self._server.servers:
            server.close()

    def _protocol(self) -> asyncio.Protocol:
        server = self._server
        return _Protocol(config=server.config, server_state=server.server_state, app_state=server.lifespan.state)

    async def end(self) -> None:
        self.stop_accepting()
        if self._arriving:
            await asyncio.wait(self._arriving)
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        if self._watch is not None:
            self._watch.cancel()

    @property
    def connections(self) -> int:
        arriving = sum(not task.done() for task in self._arriving)
        return len(self._server.server_state.connections) + arriving

    @property
    def requests(self) -> int:
        return len(self._server.server_state.tasks)

    def _cut_off(self) -> None:
        connections = self._server.server_state.connections
        waits = {one: reason for one in connections if (reason := _uvicorn_waits(one)) is not None}
        for connection in self._patience.exhausted(waits, time.monotonic()):
            what, cycle = waits[connection]
            if what == ANSWER or (cycle is not None and cycle.response_started and not cycle.response_complete):
                abort(connection.transport.get_extra_info("socket"))
                connection.transport.abort()
            else:
                connection.transport.write(too_slow(self._patience.seconds))
                connection.transport.close()


def waiting_clients(listener: socket.socket) -> Iterator[tuple[socket.socket, Any]]:
    """Whoever is connected to a listener and was taken by nobody yet, with the client's address.

    Once a listener is closed, the kernel resets them.

    Args:
        listener: A socket that listens; of one that is closed, nobody is.
    """
    while True:
        try:
            listener.setblocking(False)
            taken = listener.accept()
        except ConnectionAbortedError:
            continue
        except OSError:
            return
        yield taken


def _uvicorn_waits(connection: Any) -> tuple[str, Any] | None:
    """What a connection waits for its client to do, and since which request; None if it does not."""
    cycle = connection.cycle
    if connection.transport.get_write_buffer_size():
        return ANSWER, cycle
    if connection.timeout_keep_alive_task is not None or connection.pipeline:
        # between two requests, where Uvicorn has a time of its own, or in one while the next has begun
        return None
    return (REQUEST, cycle) if cycle is None or cycle.response_complete or cycle.more_body else None


def listener_of(
    server: str, app: Any, application: Application, drain_seconds: float, client_seconds: float
) -> Callable[[socket.socket], Listener]:
    """What makes a listener of each socket.

    Args:
        server: ``uvicorn`` or ``daphne``, which is installed.
        app: The ASGI application.
        application: What answers in it.
        drain_seconds: How long requests have to end.
        client_seconds: How long a client has to send a request, and to take its answer.
    """
    if server == "uvicorn":
        return lambda sock: UvicornListener(app, sock, drain_seconds, client_seconds)
    from longshore.serving.daphne_listener import DaphneListener

    return lambda sock: DaphneListener(app, application, sock, drain_seconds, client_seconds)


def run_loop(server: str, main: Coroutine[Any, Any, None]) -> None:
    """Run a process's listeners, in the event loop that they take.

    Args:
        server: ``uvicorn`` or ``daphne``, which is installed.
        main: What to run.

    """
    if server == "uvicorn":
        # asyncio's own loop drops a connection that it has accepted but not yet set up when its listener is closed
        uvloop.run(main)
        return
    # Daphne has Twisted on an event loop of its own as soon as it is imported
    from daphne.server import twisted_loop
    from twisted import internet

    reactor: Any = internet.reactor
    asyncio.set_event_loop(twisted_loop)
    reactor.startRunning(installSignalHandlers=False)
    try:
        twisted_loop.run_until_complete(main)
        twisted_loop.run_until_complete(twisted_loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        twisted_loop.close()


def check_daphne() -> None:
    """Raise if Daphne is not installed.

    Raises:
        MissingExtra: If it is not.
    """
    try:
        import daphne  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra("the server daphne", "daphne", "django") from error
