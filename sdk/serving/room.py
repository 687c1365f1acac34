"""The memory that the bodies of requests may take together.

Each body is bounded, and so is the time that its client has. But there is no end to those that a client can begin, and
a thousand that come slowly would take a thousand times the limit.
"""

from __future__ import annotations

import threading
from typing import Final

from longshore.serving.incoming import HEAD_LIMIT

__all__ = ["ROOM_BYTES", "SMALL", "Place", "Room"]

ROOM_BYTES: Final = 512 * 2**20
"""What the large bodies of a process may take together, unless another number is given: sixteen of the largest."""

SMALL: Final = HEAD_LIMIT
"""What a request may take in any case: a small one is answered however many large ones there are, and its
head is there in full before it holds any room."""


class Room:
    """Room for bodies. It can be used from several threads at once.

    Args:
        size: Bytes that bodies may take together. One that is alone may take more.
    """

    def __init__(self, size: int = ROOM_BYTES) -> None:
        self._size, self._taken = size, 0
        self._guard = threading.Lock()

    def change(self, held: int, wanted: int) -> bool:
        """Take as many bytes as are wanted in place of those that are held, if there is room for them."""
        with self._guard:
            others = self._taken - held
            if others and wanted and others + wanted > self._size:
                return False
            self._taken = others + wanted
            return True


class Place:
    """What one body after the other holds of a room, from its first parts until it is answered.

    Args:
        room: The room.

    Attributes:
        held: Bytes.
    """

    __slots__ = ("_room", "held")

    def __init__(self, room: Room) -> None:
        self._room, self.held = room, 0

    def grow(self, size: int) -> bool:
        """Hold so many bytes.

        Returns:
            Whether there is room for them. If not, nothing is held any more: the body is to be let go.
        """
        if size <= SMALL:
            return True
        if self._room.change(self.held, size):
            self.held = size
            return True
        self.leave()
        return False

    def leave(self) -> None:
        """Hold nothing any more."""
        if self.held:
            self._room.change(self.held, 0)
            self.held = 0
