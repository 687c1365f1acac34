"""Helper process that runs pipeline steps in children forked from a warm interpreter.

``python -m longshore.runner.forkserver FD MODULE...`` serves the Unix socket FD. For each step the runner sends one
byte with two file descriptors: a channel of the step's own and the file for its output. The helper forks a watcher,
the watcher forks the step::

    runner --control--> helper --fork--> watcher --fork--> step
       |______________channel_______________|

The runner writes the request on the channel and reads the outcome from it. When the runner closes its side, or is
killed, the watcher sees the end of the channel and ends the step with its whole process group. Between requests the
helper imports the MODULEs one by one, so that a step finds pandas or scikit-learn loaded already.

Nothing of kfp is changed: a step does what the compiled command of its component does, without the new interpreter.
A command that is anything else (one that calls pip, say) is run as it stands, and a step with environment variables
of its own gets a new interpreter, because libraries read the environment when they are loaded.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Final

__all__ = ["Outcome", "Request", "StepError", "main", "receive", "send"]

GRACE_SECONDS: Final = 10.0
"""How long an interrupted step may take to put things in order before it is killed."""

_LENGTH: Final = struct.Struct("!Q")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One step to be run.

    Args:
        run: Id of the run, for the environment variable ``LONGSHORE_RUN``.
        folder: An existing directory for the step's source file.
        source: Python source of the component; None if ``command`` is to be run as it stands.
        argv: Arguments of kfp's executor.
        command: The command to run where there is no ``source``.
        environment: Variables that the step has of its own.
    """

    run: str
    folder: str
    source: str | None = None
    argv: Sequence[str] = ()
    command: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StepError:
    """The exception that ended a step.

    Args:
        type: Class name.
        message: ``str`` of the exception.
        told: Whether it is a LongshoreError, whose message is written for people.
    """

    type: str
    message: str
    told: bool


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a step ended.

    Args:
        status: Exit status; minus the signal's number if a signal ended it.
        error: The exception that ended it, None if there was none or it could not be told.
    """

    status: int
    error: StepError | None = None


def send(channel: socket.socket, value: Request | Outcome) -> None:
    """Write a message to a channel."""
    body = json.dumps(asdict(value)).encode()
    channel.sendall(_LENGTH.pack(len(body)) + body)


def receive(channel: socket.socket) -> dict[str, Any]:
    """Read a message from a channel.

    Raises:
        EOFError: If the other side is gone.
    """
    (length,) = _LENGTH.unpack(_read(channel, _LENGTH.size))
    message: dict[str, Any] = json.loads(_read(channel, length))
    return message


def _read(channel: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = channel.recv(min(length - len(parts), 1 << 20))
        if not part:
            raise EOFError("the other side closed the channel")
        parts += part
    return bytes(parts)


# ---------------------------------------------------------------------------------------------- helper


def serve(control: socket.socket, modules: Sequence[str]) -> _Step | None:
    """Answer requests until the runner is gone.

    Returns:
        None in the helper; in each forked step, what that process is to do.
    """
    waiting = list(modules)
    while True:
        if waiting and not select.select([control], [], [], 0)[0]:
            _load(waiting.pop(0))
            continue
        message, fds, _, _ = socket.recv_fds(control, 1, 2)
        if not message:
            return None
        _reap()
        if os.fork() == 0:
            control.close()
            with socket.socket(fileno=fds[0]) as channel:
                return _watch(channel, fds[1])
        for fd in fds:
            os.close(fd)


def _load(module: str) -> None:
    # a package that is absent or broken is the affair of the step that needs it
    with contextlib.suppress(Exception):
        importlib.import_module(module)
    # what is loaded now stays shared with the children: the collector would touch and so copy it
    gc.freeze()


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


# --------------------------------------------------------------------------------------------- watcher


def _watch(channel: socket.socket, log: int) -> _Step:
    """Run the request on the channel and tell its outcome there; returns in the step's process only."""
    try:
        request = Request(**receive(channel))
    except EOFError:
        os._exit(0)
    report = tempfile.TemporaryFile()  # noqa: SIM115 - the step's process keeps it open
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(woken)
        os.close(wake)
        return _Step(request, report, log)
    # both sides do this, so that the group exists whichever comes first
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)
    os.close(log)
    status = _wait(pid, channel, woken)
    _kill_group(pid, signal.SIGKILL)
    report.seek(0)
    told = report.read()
    error = StepError(**json.loads(told)) if told else None
    with contextlib.suppress(OSError):
        send(channel, Outcome(status=status, error=error))
    os._exit(0)


def _wait(pid: int, channel: socket.socket, woken: int) -> int:
    """The exit status of ``pid``, which is ended when the channel is."""
    watched: list[Any] = [woken, channel]
    patience: float | None = None
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        ready, _, _ = select.select(watched, [], [], patience)
        if woken in ready:
            os.read(woken, 4096)
        elif channel in ready:
            watched, patience = [woken], GRACE_SECONDS
            _kill_group(pid, signal.SIGINT)
        else:
            patience = None
            _kill_group(pid, signal.SIGKILL)


def _kill_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


# ------------------------------------------------------------------------------------------------ step


@dataclass(frozen=True)
class _Step:
    """What a step's process is to do, once it has left the stack of the helper."""

    request: Request
    report: IO[bytes]
    log: int

    def run(self) -> None:
        """Take on the step's identity and do its work; does not return if that is another program."""
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        # a shell that starts jobs in the background has them ignore the interrupt
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for target in (1, 2):
            os.dup2(self.log, target)
        os.close(self.log)
        request = self.request
        os.environ["LONGSHORE_RUN"] = request.run
        if request.source is None:
            os.execvpe(request.command[0], list(request.command), {**os.environ, **request.environment})  # noqa: S606
        if request.environment:
            self._run_in_new_interpreter()
        _reseed()
        execute(request, self.report)

    def _run_in_new_interpreter(self) -> None:
        plain = {**asdict(self.request), "environment": {}}
        with tempfile.TemporaryFile() as body:
            body.write(json.dumps(plain).encode())
            body.seek(0)
            for stream in (body, self.report):
                os.set_inheritable(stream.fileno(), True)
            command = [sys.executable, "-m", __spec__.name, "--step", str(body.fileno()), str(self.report.fileno())]
            os.execve(sys.executable, command, {**os.environ, **self.request.environment})  # noqa: S606


def _reseed() -> None:
    # Python's own generator is seeded anew after a fork, numpy's global one is not: all steps would draw the same
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def execute(request: Request, report: IO[bytes]) -> None:
    """Do in this process what the compiled command of a Python component does."""
    from kfp.dsl import executor_main

    # whole lines at once: the log is read while the step runs, and os._exit loses nothing
    sys.stdout, sys.stderr = (
        os.fdopen(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False) for fd in (1, 2)
    )
    path = Path(request.folder) / "ephemeral_component.py"
    path.write_text(request.source or "", encoding="utf-8")
    sys.argv = [str(executor_main.__file__), "--component_module_path", str(path), *request.argv]
    try:
        executor_main.executor_main()
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - it is told and ends the process
        _tell(error, report)
        # from kfp's executor on: this module is no part of the user's story
        traceback.print_exception(error.with_traceback(error.__traceback__ and error.__traceback__.tb_next))
        sys.exit(1)


def _tell(error: BaseException, report: IO[bytes]) -> None:
    from longshore.errors import LongshoreError

    told = StepError(type=type(error).__name__, message=str(error), told=isinstance(error, LongshoreError))
    report.write(json.dumps(asdict(told)).encode())
    report.flush()


def main(arguments: Sequence[str]) -> None:
    """Entry point of the helper and of a step in a new interpreter."""
    if arguments[0] == "--step":
        with os.fdopen(int(arguments[1]), "rb") as body:
            request = Request(**json.load(body))
        execute(request, os.fdopen(int(arguments[2]), "wb"))
        return
    # Python warns of threads that libraries have started: those it is known of here survive a fork
    warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
    _load("kfp.dsl.executor_main")
    _load("longshore.errors")
    step = serve(socket.socket(fileno=int(arguments[0])), arguments[1:])
    if step is None:
        # nothing to finish: taking a loaded interpreter apart would only cost time
        os._exit(0)
    step.run()


if __name__ == "__main__":
    main(sys.argv[1:])
