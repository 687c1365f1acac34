"""How a server process is told to take over traffic, to hand it on, and to end.

One request a connection on a Unix socket: a line of JSON, file descriptors beside it, a line of JSON back. A
service's listening socket travels from one revision's process to the next this way.

==========  ==============================================  ===================================================
``do``      with it                                         what happens
==========  ==============================================  ===================================================
accept      the listening socket                            the process answers on it from now on
handover    nothing                                         the process sends its listening socket, and keeps it
retire      nothing                                         the process stops accepting, finishes, ends
==========  ==============================================  ===================================================
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from longshore.errors import DeployError

__all__ = ["Answer", "Request", "ask", "serve_control"]

_LIMIT: Final = 64 * 1024

Request = dict[str, Any]
Answer = tuple[dict[str, Any], Sequence[int]]


def ask(path: Path, request: Request, *, fds: Sequence[int] = (), timeout_seconds: float = 10) -> Answer:
    """Send one request to the process behind a control socket.

    Args:
        path: The socket.
        request: What to do.
        fds: File descriptors to send along; they stay open here.
        timeout_seconds: For connecting and for the answer.

    Returns:
        The answer and the file descriptors that came with it, now the caller's.

    Raises:
        DeployError: If nobody answers, or the answer is a refusal.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_seconds)
        try:
            connection.connect(str(path))
            _send(connection, request, fds)
            answer, received = _receive(connection)
        except (OSError, ValueError) as error:
            raise DeployError(f"the server process did not answer to {request['do']!r}: {error}") from error
    if "error" in answer:
        _close(received)
        raise DeployError(f"the server process refused to {request['do']}: {answer['error']}")
    return answer, received


def serve_control(path: Path, handle: Callable[[Request, Sequence[int]], Answer]) -> socket.socket:
    """Answer requests in a background thread until the returned socket is closed.

    Args:
        path: Where to listen; only this user can connect.
        handle: Called with each request and the file descriptors that came with it, which it owns. Descriptors in
            its answer are sent and stay open here. What it raises is told to the caller.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # whoever finds it finds somebody who listens
    made = path.with_name(f"{path.name}~")
    made.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        listener.bind(str(made))
    finally:
        os.umask(before)
    listener.listen()
    made.replace(path)
    threading.Thread(target=_accept, args=(listener, handle), name="control", daemon=True).start()
    return listener


def _accept(listener: socket.socket, handle: Callable[[Request, Sequence[int]], Answer]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError, ValueError):
            connection.settimeout(10)
            request, received = _receive(connection)
            try:
                answer, fds = handle(request, received)
            except Exception as error:  # noqa: BLE001 - it is told to the caller, and the thread must go on
                answer, fds = {"error": f"{type(error).__name__}: {error}"}, ()
            _send(connection, answer, fds)


def _send(connection: socket.socket, message: dict[str, Any], fds: Sequence[int]) -> None:
    socket.send_fds(connection, [json.dumps(message).encode() + b"\n"], list(fds))


def _receive(connection: socket.socket) -> tuple[dict[str, Any], Sequence[int]]:
    data, fds, _, _ = socket.recv_fds(connection, _LIMIT, 4)
    while data and not data.endswith(b"\n") and len(data) < _LIMIT:
        more = connection.recv(_LIMIT)
        if not more:
            break
        data += more
    if not data.endswith(b"\n"):
        _close(fds)
        raise ValueError("the connection was closed")
    message: dict[str, Any] = json.loads(data)
    return message, fds


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
