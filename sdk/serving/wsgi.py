"""What the faces on WSGI have in common: a request's headers and body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from longshore.serving.refusals import RequestError, no_room, too_large

__all__ = ["NO_ROOM", "headers_of", "read_body"]

NO_ROOM: Final = "longshore.no_room"
"""What a server sets in the environment of a request whose body it has let go, as there was no room for it."""

_PREFIX: Final = "HTTP_"
_CHUNK: Final = 1024 * 1024


def headers_of(environ: Mapping[str, Any]) -> dict[bytes, bytes]:
    """The headers of a request, by name in small letters.

    Args:
        environ: WSGI's environment.
    """
    headers = {
        name[len(_PREFIX) :].replace("_", "-").lower().encode("latin-1"): value.encode("latin-1")
        for name, value in environ.items()
        if name.startswith(_PREFIX)
    }
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if value := environ.get(name):
            headers[name.replace("_", "-").lower().encode()] = value.encode("latin-1")
    return headers


def read_body(environ: Mapping[str, Any], limit: int) -> bytes | RequestError:
    """The body of a request; where it cannot be had, what is wrong.

    That is that there was no room for it, that it is too large, or that it is not as HTTP has it.

    Args:
        environ: WSGI's environment, of a server that ends the input with the body, as Gunicorn does.
        limit: Largest body in bytes. No more is read of one than shows that it is larger.
    """
    if NO_ROOM in environ:
        return no_room()
    length = environ.get("CONTENT_LENGTH") or ""
    if length.isdigit() and int(length) > limit:
        return too_large(limit)
    parts, size = list[bytes](), 0
    try:
        while size <= limit and (part := environ["wsgi.input"].read(min(_CHUNK, limit + 1 - size))):
            parts.append(part)
            size += len(part)
    except Exception as error:  # noqa: BLE001 - each server has errors of its own
        return RequestError(400, f"the body is not as HTTP/1.1 has it ({type(error).__name__}: {error})")
    if size > limit:
        return too_large(limit)
    return parts[0] if len(parts) == 1 else b"".join(parts)
