"""The process of one revision: ``python -m longshore.serving``.

In a pod it listens on the address and port that it is given, once the model is loaded. On a machine where revisions
hand one port to each other it listens on a loopback port of its own, for readiness, metrics and smoke tests, and on the
service's public socket once it is given that (see :mod:`longshore.serving.control`); readiness and failure are told
through a pipe, and a lock file is held as long as the process lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import signal
import socket
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from longshore.errors import InvalidValue, MissingExtra
from longshore.locks import acquire
from longshore.serving.control import Answer, Request, serve_control
from longshore.serving.listeners import Listener, check_daphne, listener_of, run_loop
from longshore.serving.log import FORMATS
from longshore.serving.patience import CLIENT_SECONDS
from longshore.serving.process import add_model_arguments, log_failure, set_up, settle, source_of
from longshore.spec.service import FRAMEWORKS

if TYPE_CHECKING:
    from longshore.serving.application import Application
    from longshore.serving.grpc_app import GrpcServer

__all__ = ["SERVERS", "WSGI", "Process", "load_app", "main"]

SERVERS: Final[Mapping[str, Sequence[str]]] = {
    "fastapi": ("uvicorn",),
    "flask": ("gunicorn",),
    "django": ("gunicorn", "daphne", "uvicorn"),
}
"""What a framework can be served by; the first of them unless another is asked for."""

WSGI: Final = frozenset({"gunicorn"})
"""Servers that call a framework by WSGI."""

_IDLE_SECONDS: Final = 1.0
"""How long a kept connection is given to send another request, and to learn from its answer to close."""

_TICK_SECONDS: Final = 0.02

_LOCK_SECONDS: Final = 5.0
"""The lock is free at the start, but for a moment it can be in the hands of one who asks whether it is."""

_log = logging.getLogger("longshore.serving")


class Process:
    """The listeners of a process and how they end.

    Args:
        application: What answers.
        listener: Makes what listens on a socket.
        rpc: The gRPC server beside it, if there is one.
        sockets: The process's own socket, and the public one if it is there already.
        drain_seconds: Time to answer what has begun.
    """

    def __init__(
        self,
        application: Application,
        listener: Callable[[socket.socket], Listener],
        rpc: GrpcServer | None,
        sockets: Sequence[socket.socket],
        drain_seconds: float,
    ) -> None:
        self._application = application
        self._listener = listener
        self._rpc = rpc
        self._sockets = sockets
        self._public: socket.socket | None = sockets[1] if len(sockets) > 1 else None
        self._drain_seconds = drain_seconds
        self._listeners: list[Listener] = []
        self._ends = list[asyncio.Task[None]]()
        self._retired = asyncio.Event()

    async def run(self, control: Path | None, ready: Callable[[], None]) -> None:
        """Serve until told to retire, by a signal or through the control socket."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._retire)
        if (reload := self._application.reload) is not None:
            loop.add_signal_handler(signal.SIGHUP, loop.run_in_executor, None, reload)
        for sock in self._sockets:
            await self._listen(sock)
        with contextlib.ExitStack() as cleanup:
            if control is not None:
                cleanup.callback(control.unlink, missing_ok=True)
                cleanup.callback(serve_control(control, functools.partial(self._control, loop)).close)
            if self._rpc is not None:
                self._rpc.start()
            ready()
            await self._retired.wait()
            await self._drain()

    async def _listen(self, sock: socket.socket) -> None:
        listener = self._listener(sock)
        await listener.start()
        self._listeners.append(listener)

    def _control(self, loop: asyncio.AbstractEventLoop, request: Request, fds: Sequence[int]) -> Answer:
        """Called in the control thread."""
        if request["do"] == "accept":
            sock = socket.socket(fileno=fds[0])
            asyncio.run_coroutine_threadsafe(self._take_over(sock), loop).result(timeout=10)
            return {"port": sock.getsockname()[1]}, ()
        if request["do"] == "handover":
            if self._public is None:
                raise LookupError("this revision does not serve the public port")
            return {"port": self._public.getsockname()[1]}, [self._public.fileno()]
        if request["do"] == "retire":
            # answered once nothing is accepted here: whoever connects after that reaches the successor
            asyncio.run_coroutine_threadsafe(self._retire_soon(), loop).result(timeout=10)
            return {}, ()
        raise ValueError(f"unknown request {request['do']!r}")

    async def _take_over(self, sock: socket.socket) -> None:
        former = self._listeners[-1] if self._public is not None else None
        await self._listen(sock)
        self._public = sock
        if former is not None:
            former.stop_accepting()
            self._ends.append(asyncio.create_task(former.end()))

    def _retire(self) -> None:
        """Accept no more."""
        self._application.draining = True
        for listener in self._listeners:
            listener.stop_accepting()
        self._retired.set()

    async def _retire_soon(self) -> None:
        self._retire()

    async def _drain(self) -> None:
        """Answer what has begun, and let clients close their connections before this end does."""
        started = time.monotonic()
        rpc = None if self._rpc is None else asyncio.create_task(self._end_rpc(self._rpc))
        # a server tells nobody when a connection ends, so its list is looked at now and then
        while self._connections():
            waited = time.monotonic() - started
            if waited > self._drain_seconds or (waited > _IDLE_SECONDS and not self._requests()):
                break
            await asyncio.sleep(_TICK_SECONDS)
        await asyncio.gather(*self._ends, *(listener.end() for listener in self._listeners))
        if rpc is not None:
            await rpc
        self._application.close()

    async def _end_rpc(self, rpc: GrpcServer) -> None:
        linger = min(rpc.linger_seconds, self._drain_seconds)
        await asyncio.sleep(linger)
        await asyncio.to_thread(rpc.stop(self._drain_seconds - linger).wait)

    def _connections(self) -> int:
        return sum(listener.connections for listener in self._listeners)

    def _requests(self) -> int:
        return sum(listener.requests for listener in self._listeners)


class _Notify:
    """The pipe to whoever started the process. If nobody listens there any more, nobody will give it traffic."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def __call__(self, **message: Any) -> None:
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        try:
            os.write(fd, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            raise SystemExit("the deployment that started this server has ended") from None
        finally:
            os.close(fd)


def _parse(arguments: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(prog="python -m longshore.serving", description="Serve one revision of a model.")
    add_model_arguments(parser)
    parser.add_argument("--framework", default="fastapi", help="web framework in front of the model")
    parser.add_argument(
        "--server", help="what listens: uvicorn with fastapi, gunicorn with flask, any or daphne with django"
    )
    parser.add_argument("--require-token", action="store_true", help="refuse requests without a user's token (django)")
    parser.add_argument("--workers", type=int, default=1, help="processes that answer, each with the model; 1 without")
    parser.add_argument("--threads", type=int, default=16, help="threads of a worker of gunicorn; 16 without")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 has the kernel choose one")
    parser.add_argument("--grpc-port", type=int, help="port for gRPC, likewise; none without it")
    parser.add_argument("--grpc-connection-seconds", type=float, help="how long a connection of gRPC lasts; 10 without")
    parser.add_argument(
        "--client-seconds",
        type=float,
        default=CLIENT_SECONDS,
        help="time that a client has to send a request, and to take its answer; 60 without",
    )
    parser.add_argument("--max-waiting", type=int, help="requests that may wait; more are refused (503). 4096 without")
    parser.add_argument(
        "--bodies-mib", type=int, help="MiB that large bodies may take together; more are refused (503). 512 without"
    )
    parser.add_argument(
        "--token-file", type=Path, help="file of the tokens that may ask, one a line; anyone without it"
    )
    parser.add_argument("--log-format", choices=FORMATS, default="text", help="lines of text, or of JSON; text without")
    parser.add_argument("--access-log", action="store_true", help="log a line for each request")
    parser.add_argument("--check", action="store_true", help="load the model, have it predict its example, and end")
    parser.add_argument("--control", type=Path, help="path of the control socket")
    parser.add_argument("--lock", type=Path, help="file that is locked while the process lives")
    parser.add_argument("--notify-fd", type=int, help="pipe that is told when the revision is ready or has failed")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to end; 0 then, 1 if the model could not be served."""
    options = _parse(arguments)
    set_up(options.log_format)
    notify = _Notify(options.notify_fd)
    # never closed: the lock must last until the very end of the process
    if options.lock and not acquire(os.open(options.lock, os.O_RDWR | os.O_CREAT, 0o600), _LOCK_SECONDS):
        notify(state="failed", reason=f"revision {options.revision} runs already")
        return 1
    try:
        _check(options)
        if options.check:
            return _predict_once(options)
        private = socket.socket()
        private.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        private.bind((options.host, options.port))
        if options.server in WSGI or options.workers > 1:
            return _with_workers(options, private, notify)
        application, app = load_app(options)
        rpc = None if options.grpc_port is None else _grpc(application, options)
    except Exception as error:  # noqa: BLE001 - whatever the model's own code raises is why it cannot be served
        notify(state="failed", reason=log_failure(options.model, error))
        return 1

    def ready() -> None:
        port = private.getsockname()[1]
        spoken = "" if rpc is None else f", gRPC on port {rpc.port}"
        _log.info("revision %s is ready on port %d%s", options.revision, port, spoken)
        notify(state="ready", port=port, **({} if rpc is None else {"grpc_port": rpc.port}))

    async def serve() -> None:
        listener = listener_of(options.server, app, application, options.drain_seconds, options.client_seconds)
        process = Process(application, listener, rpc, [private], options.drain_seconds)
        await process.run(options.control, ready)

    run_loop(options.server, serve())
    _log.info("revision %s has ended", options.revision)
    return 0


def _check(options: Namespace) -> None:
    if options.framework not in FRAMEWORKS:
        raise InvalidValue("framework", options.framework, f"use one of {', '.join(FRAMEWORKS)}")
    servers = SERVERS[options.framework]
    options.server = options.server or servers[0]
    if options.server not in servers:
        raise InvalidValue("server", options.server, f"with {options.framework} use {' or '.join(servers)}")
    if options.server == "daphne":
        check_daphne()
        if options.workers > 1:
            raise InvalidValue("workers", options.workers, "daphne is one process: use gunicorn for several")
    if options.require_token and options.framework != "django":
        raise InvalidValue("require-token", options.framework, "users and their tokens are there with django only")
    if options.token_file is not None and options.framework == "django":
        raise InvalidValue("token-file", "a path", "django has users with tokens of their own: use require-token")
    if options.workers < 1 or options.threads < 1:
        raise InvalidValue("workers", min(options.workers, options.threads), "there is at least one, with one thread")
    if options.bodies_mib is not None and options.bodies_mib < 1:
        raise InvalidValue("bodies-mib", options.bodies_mib, "there is room for some")
    if options.client_seconds <= 0:
        raise InvalidValue("client-seconds", options.client_seconds, "give clients some time")
    if options.grpc_port is not None and (options.server in WSGI or options.workers > 1):
        raise InvalidValue("grpc-port", options.grpc_port, "gRPC is served beside fastapi, by one worker")
    if options.grpc_port is not None and options.token_file is not None:
        raise InvalidValue("grpc-port", options.grpc_port, "gRPC asks for no token: leave it out, or token-file")


def _predict_once(options: Namespace) -> int:
    from longshore.serving.loading import load_models

    load_models(source_of(options))
    _log.info("%s can be served", options.model)
    return 0


def _with_workers(options: Namespace, private: socket.socket, notify: _Notify) -> int:
    try:
        from longshore.serving.workers import run
    except ModuleNotFoundError as error:
        raise MissingExtra("serving with several workers or by WSGI", "gunicorn", "serve") from error
    port = private.getsockname()[1]

    def ready() -> None:
        _log.info("revision %s is ready on port %d with %d workers", options.revision, port, options.workers)
        notify(state="ready", port=port)

    def failed(reason: str) -> None:
        notify(state="failed", reason=reason)

    ended = run(options, private, load_app, ready, failed)
    _log.info("revision %s has ended", options.revision)
    return ended


def load_app(options: Namespace) -> tuple[Application, Any]:
    """Load what a process serves, and put the web framework in front of it.

    Args:
        options: What the command line says.

    Returns:
        What answers, and the web application.
    """
    from longshore.serving.application import Application
    from longshore.serving.loading import Reload, load_models
    from longshore.serving.room import ROOM_BYTES
    from longshore.serving.tokens import TokenFile

    source = source_of(options)
    authorise = None if options.token_file is None else TokenFile(options.token_file)
    application = Application(
        load_models(source),
        room_bytes=ROOM_BYTES if options.bodies_mib is None else options.bodies_mib * 2**20,
        authorise=authorise,
        access_log=options.access_log,
    )
    application.reload = Reload(application, functools.partial(load_models, source))
    app = _app(application, options)
    settle()
    return application, app


def _app(application: Application, options: Namespace) -> Any:
    from longshore.serving.batching import WAITING

    waiting = options.max_waiting or WAITING
    if options.framework == "django":
        try:
            from longshore.serving.django_app import DjangoOptions, create_asgi_app, create_wsgi_app
        except ModuleNotFoundError as error:
            raise MissingExtra("the framework django", "django", "django") from error
        told = DjangoOptions.from_environment()
        told = replace(told, require_token=told.require_token or options.require_token)
        if options.server in WSGI:
            return create_wsgi_app(application, told)
        return create_asgi_app(application, told, waiting=waiting)
    if options.framework == "flask":
        try:
            from longshore.serving import flask_app
        except ModuleNotFoundError as error:
            raise MissingExtra("serving with Flask", "flask", "flask") from error
        return flask_app.create_app(application)
    from longshore.serving.fastapi_app import create_app

    return create_app(application, waiting=waiting)


def _grpc(application: Application, options: Namespace) -> GrpcServer:
    try:
        from longshore.serving.batching import WAITING
        from longshore.serving.grpc_app import CONNECTION_SECONDS, GrpcServer
    except ModuleNotFoundError as error:
        raise MissingExtra("serving over gRPC", "grpcio", "serve") from error
    return GrpcServer(
        application,
        options.host,
        options.grpc_port,
        connection_seconds=options.grpc_connection_seconds or CONNECTION_SECONDS,
        client_seconds=options.client_seconds,
        waiting=options.max_waiting or WAITING,
    )
