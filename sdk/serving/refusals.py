"""Requests that are answered with an error, whatever they are refused for.

It imports nothing: what a server is made of before its workers count anything must not import what they count with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["BODY_LIMIT", "ClientGone", "RequestError", "check_length", "no_room", "too_large"]

BODY_LIMIT: Final = 32 * 1024 * 1024
"""Largest request in bytes, over any protocol."""


class RequestError(Exception):
    """A request that is answered with an error.

    Args:
        status: HTTP status.
        message: What is wrong and what to do, for the client.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class ClientGone(Exception):
    """The client went away before it had its answer."""


def too_large(limit: int) -> RequestError:
    """What is raised for a body of more than ``limit`` bytes."""
    return RequestError(413, f"the body is larger than {limit} bytes: send fewer rows at a time")


def no_room() -> RequestError:
    """What is raised for a body that there is no room for."""
    return RequestError(503, "large bodies of other requests take all the room: come again in a second")


def check_length(headers: Mapping[bytes, bytes], limit: int) -> None:
    """Refuse a request that says of itself that it is too large.

    Raises:
        RequestError: 413.
    """
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > limit:
        raise too_large(limit)
