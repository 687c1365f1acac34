"""The application as WSGI."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, Final

from longshore.serving.application import CLIENT_GONE, Application, Exchange
from longshore.serving.protocol import ClientGone, RequestError

__all__ = ["Environ", "WsgiFace", "path_of"]

Environ = dict[str, Any]

_PART: Final = 64 * 1024
_REASONS: Final = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class WsgiFace:
    """The application for a WSGI server, or in front of what another application answers.

    Args:
        application: What answers.
    """

    def __init__(self, application: Application) -> None:
        self._application = application

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], path_of(environ)
        exchange = Exchange(self._application, method, path, _headers(environ))
        try:
            answer = exchange.begin()
            if answer is None:
                call = exchange.read(_body(environ, exchange, self._application.body_limit))
                answer = exchange.predicted(
                    call, exchange.predictor.answer(call.ask, seconds=self._application.seconds)
                )
        except ClientGone:
            exchange.gone()
            # nobody reads it, but the server wants one
            start_response(f"{CLIENT_GONE} Client Gone", [("content-length", "0"), ("connection", "close")])
            return [b""]
        except Exception as error:  # noqa: BLE001 - it is logged where it should be, and the client is told
            answer = exchange.refused(error)
        exchange.end(answer.status, len(answer.body))
        headers = [*exchange.headers(answer), ("content-length", str(len(answer.body)))]
        start_response(_REASONS[answer.status], headers)
        return [answer.body]


def path_of(environ: Environ) -> str:
    """The path of a request; WSGI gives its bytes as Latin-1."""
    return str(environ["PATH_INFO"]).encode("latin-1").decode(errors="replace")


def _headers(environ: Environ) -> dict[bytes, bytes]:
    headers = {
        key[5:].replace("_", "-").lower().encode("latin-1"): value.encode("latin-1")
        for key, value in environ.items()
        if key.startswith("HTTP_")
    }
    for key in ("CONTENT_LENGTH", "CONTENT_TYPE"):
        if value := environ.get(key):
            headers[key.replace("_", "-").lower().encode()] = value.encode("latin-1")
    return headers


def _body(environ: Environ, exchange: Exchange, limit: int) -> bytes:
    stream, length = environ["wsgi.input"], environ.get("CONTENT_LENGTH")
    try:
        if length:
            if not length.isdigit():
                raise RequestError(400, f"Content-Length is {length!r}, and must be a number")
            # no more than the limit: that has been seen to
            body: bytes = stream.read(int(length))
            if len(body) < int(length):
                raise ClientGone
            return body
        if "chunked" not in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
            return b""
        parts, size = list[bytes](), 0
        while part := stream.read(_PART):
            size += len(part)
            if size > limit:
                raise exchange.too_large()
            parts.append(part)
    except OSError as error:
        raise ClientGone from error
    return b"".join(parts)
