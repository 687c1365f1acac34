"""What goes between a face and the application: requests, answers, and what is written down of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from longshore.serving.core import Predictor
    from longshore.serving.refusals import RequestError

__all__ = ["BINARY", "CLIENT_GONE", "JSON", "Answer", "Recorded", "Request", "on_the_wire"]

CLIENT_GONE: Final = 499
"""Status label of requests whose client went away before it had sent all; Nginx logs the same number."""

JSON: Final = "application/json"
BINARY: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Request:
    """A request, as a face hands it on.

    Args:
        method: Its method, in capitals.
        path: Its path, decoded, without the query.
        headers: Its headers, by name in small letters.
        body: Its body, of :attr:`Application.body_limit` bytes at most. Of one that could not be had, what is wrong.
    """

    method: str
    path: str
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    body: bytes | RequestError = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a face sends.

    Args:
        status: HTTP status.
        body: The body.
        content_type: Its type.
        headers: Its headers; :meth:`Exchange.headers` gives all of them.
    """

    status: int
    body: bytes
    content_type: str = JSON
    headers: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """A prediction request that was answered, for whoever writes such down.

    Args:
        predictor: The model that was asked.
        protocol: What it was asked in: one of :data:`longshore.serving.metrics.PROTOCOLS`.
        request_id: The request's id.
        user: Who asked, where that is known.
        status: Status of the answer.
        seconds: From the request's arrival to the end of the answer.
        rows: Rows that were asked for; 0 where the request was none.
        asked: What the request's JSON held, with arrays where tensors came binary; None where it was no JSON.
        answered: What the answer's JSON holds, likewise.
        size: Bytes of both.
    """

    predictor: Predictor
    protocol: str
    request_id: str
    user: str | None
    status: int
    seconds: float
    rows: int
    asked: Mapping[str, Any] | None
    answered: Mapping[str, Any]
    size: int


def on_the_wire(answer: Answer) -> bytes:
    """An answer as HTTP/1.1 has it, after which the connection ends.

    Args:
        answer: The answer, with all its headers but those of its length and of the connection.
    """
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in answer.headers if name != "connection"]
    lines += [f"content-length: {len(answer.body)}", "connection: close", "", ""]
    return "\r\n".join(lines).encode() + answer.body
