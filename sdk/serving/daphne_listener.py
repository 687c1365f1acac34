"""Daphne on a socket."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from longshore.serving import messages
from longshore.serving.messages import Answer, on_the_wire
from longshore.serving.patience import ANSWER, REQUEST, Patience, every, too_slow
from longshore.serving.refusals import no_room
from longshore.serving.room import Place

if TYPE_CHECKING:
    from longshore.serving.application import Application

__all__ = ["DaphneListener"]


class DaphneListener:
    """Daphne on one socket, within :func:`longshore.serving.listeners.run_loop` for Daphne.

    Args:
        app: The ASGI application.
        application: What answers in it, and says how large bodies may be.
        sock: The socket, which is bound.
        drain_seconds: How long requests have to end.
        client_seconds: How long a client has to send a request, and to take its answer.
    """

    def __init__(
        self,
        app: Any,
        application: Application,
        sock: socket.socket,
        drain_seconds: float,
        client_seconds: float,
    ) -> None:
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
        self._factory = wrapping(_bounded(self._server, application))
        self._factory.protocol = _counted(policies.ProtocolWrapper)
        self._port: Any = None
        self._patience = Patience[Any](client_seconds)
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        from twisted import internet

        reactor: Any = internet.reactor
        # Daphne reaps its requests there, again and again
        reactor.callLater(1, self._server.application_checker)
        self._socket.listen(2048)
        self._socket.setblocking(False)
        # of a copy, which it closes in the end
        self._port = reactor.adoptStreamPort(self._socket.fileno(), self._socket.family, self._factory)
        self._watch = asyncio.create_task(every(self._patience.interval, self._cut_off))

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
        if self._watch is not None:
            self._watch.cancel()

    @property
    def connections(self) -> int:
        return len(self._factory.protocols)

    @property
    def requests(self) -> int:
        return sum(not task.done() for task in self._tasks())

    def _tasks(self) -> list[asyncio.Task[None]]:
        known = self._server.connections.values()
        return [details["application_instance"] for details in known if "application_instance" in details]

    def _cut_off(self) -> None:
        waits = {one: reason for one in self._factory.protocols if (reason := _daphne_waits(one)) is not None}
        for connection in self._patience.exhausted(waits, time.monotonic()):
            if waits[connection][0] == ANSWER:
                connection.abortConnection()
                continue
            if connection.heard:
                connection.write(too_slow(self._patience.seconds))
            connection.loseConnection()


def _counted(wrapper: Any) -> Any:
    """What Twisted puts around each connection, with a count of what it has said and whether it has heard since."""

    class Counted(wrapper):  # type: ignore[misc]
        said = 0
        heard = False

        # the names are Twisted's
        def dataReceived(self, data: bytes) -> None:  # noqa: N802
            self.heard = True
            super().dataReceived(data)

        def write(self, data: bytes) -> None:
            self.said, self.heard = self.said + 1, False
            super().write(data)

        def writeSequence(self, data: Iterable[bytes]) -> None:  # noqa: N802
            self.said, self.heard = self.said + 1, False
            super().writeSequence(data)

    return Counted


def _bounded(server: Any, application: Application) -> Any:
    """Daphne's factory of connections, whose requests hold room for their bodies while those come.

    Twisted keeps a body, on disk as soon as it is large, until all of it is there.
    """
    from daphne.http_protocol import HTTPFactory, WebRequest

    # what Twisted has is untyped; the names are its own
    class Request(WebRequest):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.place = Place(application.room)
            # a byte over the limit shows that it is too large
            self.kept, self.wanted = 0, application.body_limit + 1
            self.refused = False

        def gotLength(self, length: int | None) -> None:  # noqa: N802
            super().gotLength(length)
            if length is not None and length > application.body_limit:
                # so says its header
                self.wanted = 0

        def handleContentChunk(self, data: bytes) -> None:  # noqa: N802
            if self.refused:
                return
            part = data[: self.wanted - self.kept]
            self.kept += len(part)
            if self.place.grow(self.kept):
                super().handleContentChunk(part)
                return
            self.refused = True
            self.content.seek(0)
            self.content.truncate()
            self.channel.transport.write(on_the_wire(self._no_room()))
            # what is still on its way is read: a connection that is closed before is reset, its answer with it
            self.channel.transport.loseWriteConnection()

        def _no_room(self) -> Answer:
            # Twisted tells a request what it is once all of it is there
            method, path = self.channel._command.decode("latin-1"), unquote(self.channel._path.partition(b"?")[0])  # noqa: SLF001
            headers = {name.lower(): values[-1] for name, values in self.requestHeaders.getAllRawHeaders()}
            return application.refuse(messages.Request(method, path, headers), no_room())

        def process(self) -> Any:
            # from here on the application holds it
            self.place.leave()
            return self.channel.loseConnection() if self.refused else super().process()

        def connectionLost(self, reason: Any) -> None:  # noqa: N802
            self.place.leave()
            super().connectionLost(reason)

    class Factory(HTTPFactory):  # type: ignore[misc]
        def buildProtocol(self, address: Any) -> Any:  # noqa: N802
            protocol = super().buildProtocol(address)
            protocol.requestFactory = Request
            return protocol

    return Factory(server)


def _daphne_waits(connection: Any) -> tuple[str, int] | None:
    """What a connection waits for its client to do, and since which answer; None if it does not."""
    from twisted.web.http import Request

    transport = connection.transport
    if len(transport.dataBuffer) > transport.offset or transport._tempDataLen:  # noqa: SLF001 - told nowhere else
        return ANSWER, connection.said
    requests = connection.wrappedProtocol._channel.requests  # noqa: SLF001 - likewise
    # it has a method once it is there in full
    return (REQUEST, connection.said) if not requests or requests[-1].method == Request.method else None
