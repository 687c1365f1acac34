"""What listens on a socket and gives an ASGI application the requests: Uvicorn or Daphne.

A process has one listener for each of its sockets, and takes on another while it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, Protocol

import uvicorn
import uvloop
from uvicorn.protocols.http import httptools_impl

from longshore.errors import MissingExtra

__all__ = ["DaphneListener", "Listener", "Together", "UvicornListener", "check_daphne", "listener_of", "run_loop"]


_HIGH_WATER: Final = 4 * 2**20

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


class Together:
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
    def connection_made(self, transport: Any) -> None:
        super().connection_made(Together(transport, self.loop))  # type: ignore[arg-type]


class UvicornListener:
    """Uvicorn on one socket.

    Args:
        app: The ASGI application.
        sock: The socket, which is bound.
        drain_seconds: How long requests have to end.
    """

    def __init__(self, app: Any, sock: socket.socket, drain_seconds: float) -> None:
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

    async def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        up = asyncio.create_task(self._server.up.wait())
        await asyncio.wait([self._task, up], return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            up.cancel()
            self._task.result()

    def stop_accepting(self) -> None:
        for server in self._server.servers:
            server.close()

    async def end(self) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task

    @property
    def connections(self) -> int:
        return len(self._server.server_state.connections)

    @property
    def requests(self) -> int:
        return len(self._server.server_state.tasks)


class DaphneListener:
    """Daphne on one socket, within :func:`run_loop` for Daphne.

    Args:
        app: The ASGI application.
        sock: The socket, which is bound.
        drain_seconds: How long requests have to end.
    """

    def __init__(self, app: Any, sock: socket.socket, drain_seconds: float) -> None:
        from daphne.http_protocol import HTTPFactory
        from daphne.server import Server
        from daphne.ws_protocol import WebSocketFactory
        from twisted.protocols import policies

        self._socket, self._drain_seconds = sock, drain_seconds
        self._server = Server(app, endpoints=["given"], signal_handlers=False, server_name="")
        # what Daphne's run() does, but for the reactor, which runs already
        self._server.connections = {}
        self._server.ws_factory = WebSocketFactory(self._server)
        # it keeps the connections that are open
        wrapping: Any = policies.WrappingFactory
        self._factory = wrapping(HTTPFactory(self._server))
        self._port: Any = None

    async def start(self) -> None:
        from twisted import internet

        reactor: Any = internet.reactor
        # Daphne reaps its requests there, again and again
        reactor.callLater(1, self._server.application_checker)
        self._socket.listen(2048)
        self._socket.setblocking(False)
        # of a copy, which it closes in the end
        self._port = reactor.adoptStreamPort(self._socket.fileno(), self._socket.family, self._factory)

    def stop_accepting(self) -> None:
        if self._port is not None:
            # what the kernel has accepted would be reset
            self._port.doRead()
            self._port.stopListening()
            self._socket.close()
            self._port = None

    async def end(self) -> None:
        self.stop_accepting()
        tasks = [task for task in self._tasks() if not task.done()]
        if tasks:
            await asyncio.wait(tasks, timeout=self._drain_seconds)
        for connection in list(self._factory.protocols):
            connection.loseConnection()

    @property
    def connections(self) -> int:
        return len(self._factory.protocols)

    @property
    def requests(self) -> int:
        return sum(not task.done() for task in self._tasks())

    def _tasks(self) -> list[asyncio.Task[None]]:
        known = self._server.connections.values()
        return [details["application_instance"] for details in known if "application_instance" in details]


def listener_of(server: str, app: Any, drain_seconds: float) -> Callable[[socket.socket], Listener]:
    """What makes a listener of each socket.

    Args:
        server: ``uvicorn`` or ``daphne``, which is installed.
        app: The ASGI application.
        drain_seconds: How long requests have to end.
    """
    kind = DaphneListener if server == "daphne" else UvicornListener
    return lambda sock: kind(app, sock, drain_seconds)


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
