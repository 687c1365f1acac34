"""A client's connection to Gunicorn's worker: what has come on it, and what is watched for."""

from __future__ import annotations

import functools
import selectors
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gunicorn.workers.gthread import TConn

from longshore.serving.incoming import Incoming
from longshore.serving.outbox import Outbox
from longshore.serving.room import Place

if TYPE_CHECKING:
    from longshore.serving.application import Application

__all__ = ["Connection"]


class Connection(TConn):
    """A connection that is read from and written to without waiting.

    Args:
        cfg: Gunicorn's settings.
        client: The socket.
        address: Address of the client.
        server: Address of the listener.
        application: Says how much may come.

    Attributes:
        incoming: The request that comes.
        place: What its body holds of the room.
        watched: The events that the poller looks for all the time; 0 if it does not know the connection.
        then: What is done about them; None while a thread has the connection.
        goes_on: Whether another request may come once the answer is taken.
    """

    def __init__(self, cfg: Any, client: socket.socket, address: Any, server: Any, application: Application) -> None:
        super().__init__(cfg, Outbox(client), address, server)
        self.init()
        self.data_ready = True
        self.sock.setblocking(False)
        self.watched = 0
        self.then: Callable[[Connection], None] | None = None
        self.goes_on = False
        self._body_limit = application.body_limit
        self.place = Place(application.room)
        self.begin()

    def begin(self) -> None:
        """The next request is to come."""
        self.incoming = Incoming(self._body_limit)

    def hand_over(self) -> None:
        """Give the parser what has come."""
        self.parser.unreader.unread(bytes(self.incoming.content))
        self.incoming.content.clear()

    def let_go(self) -> None:
        """No answer is to come any more to what has come."""
        self.incoming.content.clear()
        self.place.leave()

    def watch(
        self,
        poller: selectors.BaseSelector,
        events: int,
        come: Callable[[Connection, Any], None],
        then: Callable[[Connection], None],
    ) -> None:
        """Have the poller look for events.

        Args:
            poller: It.
            events: Which.
            come: What it is to call.
            then: What is done about them.
        """
        self.then = then
        if self.watched != events:
            see = poller.modify if self.watched else poller.register
            see(self.sock, events, functools.partial(come, self))
            self.watched = events

    def unwatch(self, poller: selectors.BaseSelector) -> None:
        """Have it look no more."""
        if self.watched:
            poller.unregister(self.sock)
            self.watched = 0
