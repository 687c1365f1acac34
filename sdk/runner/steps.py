"""Start the steps of a run through the helper process, and keep what came of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from longshore.runner.compat import executor_input
from longshore.runner.forkserver import Outcome, Request, StepError, receive, send
from longshore.runner.helper import Helper
from longshore.runner.kfp_hooks import plain_step, with_this_python
from longshore.runner.reports import Artifact, Event, StepFinished, StepOutput, StepReport, StepStarted

__all__ = ["StepRunner"]

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_TAIL_BYTES: Final = 8192
_PYTHON_BOOLEANS: Final = {"True": "true", "False": "false"}


class StepRunner:
    """Runs steps for one pipeline run. Its methods may be called from several threads.

    Args:
        run: Id of the run.
        root: Folder of the run.
        helper: The process that starts them.
        outputs_of: By component, for each output parameter whether it is a string.
        on_event: Called when a step starts, prints a line (with ``verbose``) or ends.
        verbose: Whether lines that steps print are events.
    """

    def __init__(
        self,
        *,
        run: str,
        root: Path,
        helper: Helper,
        outputs_of: Mapping[str, Mapping[str, bool]],
        on_event: Callable[[Event], None],
        verbose: bool,
    ) -> None:
        self._run, self._root, self._helper = run, root, helper
        self._outputs_of, self._on_event, self._verbose = outputs_of, on_event, verbose
        self._lock = threading.Lock()
        self._reports: dict[str, StepReport | None] = {}
        self._channels: set[socket.socket] = set()
        self._stopped = False

    def reports(self) -> tuple[StepReport, ...]:
        """What came of the steps so far, in the order in which they started."""
        with self._lock:
            return tuple(report for report in self._reports.values() if report is not None)

    def stop(self) -> None:
        """Interrupt the steps that run and start no more. ``run_step`` returns once its step has ended."""
        with self._lock:
            self._stopped = True
            for channel in self._channels:
                channel.shutdown(socket.SHUT_WR)

    def run_step(self, full_command: list[str], env_vars: Mapping[str, str] | None = None) -> int:
        """Run one step to its end; takes the place of kfp's ``run_local_subprocess``.

        Returns:
            0 if the step succeeded.
        """
        call = _Call.of(full_command)
        with self._lock:
            if self._stopped:
                return 1
            name, attempt = self._register(call)
        self._on_event(StepStarted(name))
        log = self._root / "logs" / f"{_UNSAFE.sub('.', name)}.log"
        began = time.perf_counter()
        outcome = self._perform(name, call, env_vars or {}, log)
        report = _report(name, outcome, call, log, time.perf_counter() - began, attempt, self._outputs_of)
        with self._lock:
            self._reports[name] = report
        self._on_event(StepFinished(report))
        return 0 if outcome.status == 0 else 1

    def _register(self, call: _Call) -> tuple[str, int]:
        """The step's name and the number of this attempt. The same outputs again are a retry if it failed."""
        base = call.name(self._root / "artifacts")
        name, number = base, 1
        while (known := self._reports.get(name)) is not None and known.state == "succeeded":
            number += 1
            name = f"{base}#{number}"
        attempt = known.attempts + 1 if known else 1
        self._reports.setdefault(name, None)
        return name, attempt

    def _perform(self, name: str, call: _Call, environment: Mapping[str, str], log: Path) -> Outcome:
        folder = self._root / "sources" / log.stem
        folder.mkdir(parents=True, exist_ok=True)
        request = Request(
            run=self._run,
            folder=str(folder),
            source=call.source,
            argv=call.argv,
            command=call.command,
            environment=dict(environment),
        )
        try:
            with log.open("ab") as stream:
                if not self._verbose:
                    with self._started(request, stream.fileno()) as channel:
                        return _outcome(receive(channel))
                lines = _Lines(stream, lambda line: self._on_event(StepOutput(name, line)))
                with _pipe() as (output, write), self._started(request, write.fileno()) as channel:
                    write.close()
                    lines.copy(output.fileno(), until=channel)
                    return _outcome(receive(channel))
        except (EOFError, OSError) as error:
            why = (
                f"the process that starts steps is gone, it may have been killed ({self._helper.last_words() or error})"
            )
            return Outcome(status=1, error=StepError(type=type(error).__name__, message=why, told=True))

    @contextlib.contextmanager
    def _started(self, request: Request, output: int) -> Iterator[socket.socket]:
        """Have the helper start a step that writes to the file descriptor ``output``; yields its channel."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._helper.start_step(theirs, output)
            with self._lock:
                self._channels.add(ours)
                if self._stopped:
                    ours.shutdown(socket.SHUT_WR)
            try:
                send(ours, request)
                yield ours
            finally:
                with self._lock:
                    self._channels.discard(ours)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    read, write = os.pipe()
    with os.fdopen(read, "rb", buffering=0) as output, os.fdopen(write, "wb", buffering=0) as target:
        yield output, target


class _Lines:
    """Copies a step's output to its log and hands on whole lines."""

    def __init__(self, log: IO[bytes], on_line: Callable[[str], None]) -> None:
        self._log, self._on_line = log, on_line
        self._rest = b""

    def copy(self, output: int, *, until: socket.socket) -> None:
        """Copy until the channel has an answer; a process that lives on with the output open is not waited for."""
        os.set_blocking(output, False)
        watched: list[Any] = [output, until]
        while True:
            ready, _, _ = select.select(watched, [], [])
            if output in ready and not self._read(output):
                watched.remove(output)
            if until in ready:
                break
        while output in watched and self._read(output):
            pass
        if self._rest:
            self._on_line(self._rest.decode(errors="replace"))

    def _read(self, output: int) -> bool:
        try:
            part = os.read(output, 1 << 16)
        except BlockingIOError:
            return False
        self._log.write(part)
        *lines, self._rest = (self._rest + part).split(b"\n")
        for line in lines:
            self._on_line(line.decode(errors="replace"))
        return bool(part)


@dataclass(frozen=True)
class _Call:
    """What kfp wants to be run.

    Args:
        source: The component's source; None if the command does more than run it.
        argv: Arguments of kfp's executor.
        command: The command, with this interpreter in it.
        inputs: kfp's ExecutorInput.
    """

    source: str | None
    argv: tuple[str, ...]
    command: tuple[str, ...]
    inputs: Mapping[str, Any]

    @classmethod
    def of(cls, full_command: Sequence[str]) -> _Call:
        position = full_command.index("--executor_input") + 1
        inputs = executor_input(full_command[position])
        command = [*full_command[:position], json.dumps(inputs), *full_command[position + 1 :]]
        source, argv = plain_step(command) or (None, [])
        return cls(source, tuple(argv), tuple(with_this_python(command)), inputs)

    @property
    def output_file(self) -> Path:
        return Path(self.inputs["outputs"]["outputFile"])

    @property
    def component(self) -> str:
        return self.output_file.parent.name

    def name(self, artifacts: Path) -> str:
        """The step's name: kfp keeps ``ARTIFACTS/RUN/[ITERATION/...]COMPONENT/executor_output.json``."""
        return "/".join(self.output_file.parent.relative_to(artifacts).parts[1:])


def _outcome(message: Mapping[str, Any]) -> Outcome:
    error = message["error"]
    return Outcome(status=message["status"], error=error and StepError(**error))


def _report(
    name: str,
    outcome: Outcome,
    call: _Call,
    log: Path,
    seconds: float,
    attempt: int,
    outputs_of: Mapping[str, Mapping[str, bool]],
) -> StepReport:
    if outcome.status != 0:
        return StepReport(
            name=name,
            state="failed",
            seconds=seconds,
            log=log,
            error=_why(outcome, log),
            error_type=outcome.error.type if outcome.error else None,
            attempts=attempt,
        )
    written = json.loads(call.output_file.read_text()) if call.output_file.is_file() else {}
    return StepReport(
        name=name,
        state="succeeded",
        seconds=seconds,
        log=log,
        outputs={**written.get("parameterValues", {}), **_files(call, outputs_of.get(call.component, {}))},
        artifacts=_artifacts(call, written),
        attempts=attempt,
    )


def _why(outcome: Outcome, log: Path) -> str:
    error = outcome.error
    if error is not None:
        return error.message if error.told else f"{error.type}: {error.message} (see {log})"
    if outcome.status < 0:
        name = signal.Signals(-outcome.status).name
        hint = ", as the system does to a process when memory runs out" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint} (see {log})"
    return f"its process ended with exit status {outcome.status}: {_last_line(log)} (see {log})"


def _last_line(log: Path) -> str:
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = stream.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


def _files(call: _Call, strings: Mapping[str, bool]) -> dict[str, Any]:
    """Output parameters that the step wrote to files of their own (``dsl.OutputPath``)."""
    found: dict[str, Any] = {}
    for name, target in call.inputs["outputs"].get("parameters", {}).items():
        path = Path(target["outputFile"])
        if path.is_file():
            text = path.read_text()
            # kfp tells what cannot be read
            with contextlib.suppress(ValueError):
                found[name] = text if strings.get(name, True) else json.loads(_PYTHON_BOOLEANS.get(text, text))
    return found


def _artifacts(call: _Call, written: Mapping[str, Any]) -> dict[str, Artifact]:
    found = {}
    for name, listed in call.inputs["outputs"].get("artifacts", {}).items():
        declared = listed["artifacts"][0]
        actual = written.get("artifacts", {}).get(name, {"artifacts": [declared]})["artifacts"][0]
        found[name] = Artifact(
            type=declared.get("type", {}).get("schemaTitle", "system.Artifact"),
            uri=actual["uri"],
            metadata=actual.get("metadata", {}),
        )
    return found
