"""Several workers on one port, and WSGI: Gunicorn's arbiter with workers that take over sockets while they run.

The arbiter starts a worker anew when it dies. The model is loaded in each worker, of modules that are there already
(see :mod:`longshore.serving.ahead`). A worker answers on a control socket of its own (see
:mod:`longshore.serving.control`), and the arbiter hands on what it is told on the server's.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gunicorn import arbiter as gunicorn_arbiter
from gunicorn.app.base import BaseApplication
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker

from longshore.errors import DeployError
from longshore.serving.ahead import import_ahead
from longshore.serving.control import Answer, Request, ask, serve_control
from longshore.serving.listeners import listener_of, run_loop
from longshore.serving.server import WSGI, Process
from longshore.serving.wsgi_worker import WsgiWorker

if TYPE_CHECKING:
    from longshore.serving.application import Application

__all__ = ["AsgiWorker", "run"]

_BACKLOG: Final = 2048
_AGAIN_SECONDS: Final = 1.0
_BEAT_SECONDS: Final = 1.0

_log = logging.getLogger("longshore.serving")


class _Logger(Logger):
    """What Gunicorn logs goes where the rest does, in its form."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


class _Workers(BaseApplication):
    """What Gunicorn runs.

    Args:
        options: What the command line says.
        load: Gives what a worker answers with, and what it serves: loaded in the worker.
        place: Directory for the workers' control sockets.
    """

    def __init__(self, options: Namespace, load: Callable[[Namespace], tuple[Application, Any]], place: Path) -> None:
        self.options, self._load_app, self.place = options, load, place
        self.application: Application | None = None
        # what workers tell: a line of JSON each
        self.hear, self.tell = os.pipe()
        self.started = threading.Event()
        super().__init__()

    def load_config(self) -> None:
        options = self.options
        worker = WsgiWorker if options.server in WSGI else AsgiWorker
        settings = {
            "workers": options.workers,
            "threads": options.threads,
            "worker_class": worker,
            "graceful_timeout": max(1, round(options.drain_seconds)),
            "control_socket_disable": True,
            "loglevel": "warning",
            "logger_class": _Logger,
            "keepalive": 5,
            # it would wait for clients in a thread
            "sendfile": False,
            "child_exit": _worker_is_gone,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """What the worker answers with. If it cannot be, the worker ends."""
        from longshore.serving.process import log_failure

        try:
            self.application, app = self._load_app(self.options)
        except Exception as error:  # noqa: BLE001 - whatever the model's own code raises is why it cannot be served
            reason = log_failure(self.options.model, error)
            if self.started.is_set():
                # the others go on, and this one is tried again, though not all the time
                time.sleep(_AGAIN_SECONDS)
                sys.exit(1)
            self.say(state="failed", reason=reason)
            sys.exit(gunicorn_arbiter.Arbiter.WORKER_BOOT_ERROR)
        return app

    def say(self, **message: Any) -> None:
        """Tell the arbiter."""
        os.write(self.tell, json.dumps(message).encode() + b"\n")

    def say_ready(self, age: int) -> None:
        """Tell the arbiter that a worker answers, also at its control socket."""
        self.say(state="ready", age=age)

    def control(self, age: int) -> Path:
        """A worker's control socket."""
        return self.place / str(age)


def _worker_is_gone(_: Any, worker: Worker) -> None:
    worker.app.control(worker.age).unlink(missing_ok=True)
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


class AsgiWorker(Worker):
    """Uvicorn in a worker of Gunicorn's."""

    def init_signals(self) -> None:
        # those of the arbiter would keep a worker from ending
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(signum, signal.SIG_DFL)

    def run(self) -> None:
        options, application = self.app.options, self.app.application
        listener = listener_of("uvicorn", self.wsgi, application, options.drain_seconds, options.client_seconds)
        process = Process(application, listener, None, self.sockets, options.drain_seconds)

        async def serve() -> None:
            beats = asyncio.create_task(self._beat())
            await process.run(self.app.control(self.age), lambda: self.app.say_ready(self.age))
            beats.cancel()

        run_loop("uvicorn", serve())

    async def _beat(self) -> None:
        while True:
            self.notify()
            await asyncio.sleep(_BEAT_SECONDS)


class _Arbiter(gunicorn_arbiter.Arbiter):
    """Gunicorn's arbiter, told what to do through a control socket as well."""

    LISTENERS: list[socket.socket]

    def __init__(self, app: _Workers) -> None:
        super().__init__(app)
        self._telling = threading.Lock()
        self._stopping = False

    def stop(self, graceful: bool = True) -> None:
        """End all workers."""
        self._stopping = True
        super().stop(graceful)

    def reap_workers(self) -> None:
        """Take note of those that have ended."""
        try:
            super().reap_workers()
        except HaltServer:
            # one that could not load its model ends all, and the next one must not interrupt that
            if not self._stopping:
                raise

    def handle_hup(self) -> None:
        # Gunicorn's own would start all workers anew, and end those that serve
        self.kill_workers(signal.SIGHUP)

    def control(self, request: Request, fds: Sequence[int]) -> Answer:
        """Called in the control thread."""
        with self._telling:
            return self._do(request, fds)

    def welcome(self, age: int) -> None:
        """Called in the thread that hears the workers: one answers now, and may be older than the public socket."""
        with self._telling:
            if len(self.LISTENERS) < 2:
                return
            try:
                ask(self.app.control(age), {"do": "accept"}, fds=[self.LISTENERS[-1].fileno()])
            except DeployError as error:
                # it has ended by now, or will be: Gunicorn kills a worker that does nothing any more
                _log.warning("a worker was not given the public socket: %s", error)

    def _do(self, request: Request, fds: Sequence[int]) -> Answer:
        if request["do"] == "accept":
            sock = socket.socket(fileno=fds[0])
            _at_once(sock)
            former = self.LISTENERS[1:]
            # workers that are started from now on have it, and those that are there are given it
            self.LISTENERS[1:] = [sock]
            self._tell_all(request, fds=[sock.fileno()])
            for other in former:
                other.close()
            return {"port": sock.getsockname()[1]}, ()
        if request["do"] == "handover":
            if len(self.LISTENERS) < 2:
                raise LookupError("this revision does not serve the public port")
            public = self.LISTENERS[-1]
            return {"port": public.getsockname()[1]}, [public.fileno()]
        if request["do"] == "retire":
            # none is started anew for those that end
            self.num_workers = 0
            listeners, self.LISTENERS = self.LISTENERS, []
            self._tell_all(request)
            for sock in listeners:
                sock.close()
            os.kill(os.getpid(), signal.SIGTERM)
            return {}, ()
        raise ValueError(f"unknown request {request['do']!r}")

    def _tell_all(self, request: Request, fds: Sequence[int] = ()) -> None:
        for worker in tuple(self.WORKERS.values()):
            path = self.app.control(worker.age)
            # one that is not up yet is told once it is
            if path.exists():
                ask(path, request, fds=fds)


def _at_once(listener: socket.socket) -> None:
    # Gunicorn sends an answer's head and body by themselves, and the kernel would have the second wait for the first
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def run(
    options: Namespace,
    private: socket.socket,
    load: Callable[[Namespace], tuple[Application, Any]],
    ready: Callable[[], None],
    failed: Callable[[str], None],
) -> int:
    """Serve with workers until told to end; 0 then, 1 if the model could not be served.

    Args:
        options: What the command line says.
        private: The socket that is bound.
        load: Gives what a worker answers with.
        ready: Called once all workers answer.
        failed: Called with the reason if the model cannot be loaded.
    """
    private.listen(_BACKLOG)
    _at_once(private)
    place, master = Path(tempfile.mkdtemp(prefix="longshore-")), os.getpid()
    try:
        if options.workers > 1:
            # before anything has imported prometheus_client
            (place / "metrics").mkdir()
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(place / "metrics")
            import_ahead(options.framework)
        workers = _Workers(options, load, place)
        arbiter = _Arbiter(workers)
        arbiter.LISTENERS = [private]
        hears = threading.Thread(target=_hear, args=(workers, arbiter, ready, failed), name="workers", daemon=True)
        hears.start()
        try:
            arbiter.run()
        except SystemExit as ended:
            if os.getpid() != master:
                # a worker that ends
                raise
            # all workers have ended, so what they have told is all there is
            os.close(workers.tell)
            hears.join()
            return 1 if ended.code else 0
        return 0
    finally:
        if os.getpid() == master:
            shutil.rmtree(place, ignore_errors=True)
            if options.control is not None:
                options.control.unlink(missing_ok=True)


def _hear(workers: _Workers, arbiter: _Arbiter, ready: Callable[[], None], failed: Callable[[str], None]) -> None:
    """Wait until all workers are up, or one cannot be; then welcome those that come in another's stead."""
    up, told = set[int](), False
    with os.fdopen(workers.hear) as lines:
        for line in lines:
            message = json.loads(line)
            if message["state"] == "failed":
                # the others fail likewise
                if not told:
                    failed(message["reason"])
                told = True
                continue
            if workers.started.is_set():
                arbiter.welcome(message["age"])
            up.add(message["age"])
            if len(up) == workers.options.workers and not workers.started.is_set():
                workers.started.set()
                if workers.options.control is not None:
                    serve_control(workers.options.control, arbiter.control)
                ready()
