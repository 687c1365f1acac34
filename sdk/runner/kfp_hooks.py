"""The places where ``kfp.local`` is made to start steps differently and to keep quiet.

kfp offers no extension point for this, so four of its module functions are replaced while a run lasts. They are
looked up by name and checked first: an unknown kfp is refused with a clear message.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from longshore.errors import ConfigError

__all__ = ["RunStep", "hooked", "plain_step", "with_this_python"]

RunStep = Callable[..., int]
"""``(full_command, env_vars) -> exit status``, as kfp's ``run_local_subprocess``."""

_TASKS: Final = "kfp.local.subprocess_task_handler"
_LOGS: Final = "kfp.local.logging_utils"
_MARK: Final = '"$program_path/ephemeral_component.py"'

# the script that kfp compiles for a Python component that installs nothing
_SCRIPT: Final = re.compile(
    r'\s*program_path=\$\(mktemp -d\)\s+printf "%s" "\$0" > "\$program_path/ephemeral_component\.py"'
    r"\s+_KFP_RUNTIME=true python3 -m kfp\.dsl\.executor_main\s+--component_module_path"
    r'\s+"\$program_path/ephemeral_component\.py"\s+"\$@"\s*'
)


def plain_step(command: Sequence[str]) -> tuple[str, list[str]] | None:
    """The source and the executor's arguments of a command that only runs a Python component, else None."""
    if len(command) > 3 and list(command[:2]) == ["sh", "-ec"] and _SCRIPT.fullmatch(command[2]):
        return command[3], list(command[4:])
    return None


def with_this_python(command: Sequence[str]) -> list[str]:
    """The command with this interpreter in place of ``python3``, in the scripts but not in source or arguments."""
    scripts = next((i + 1 for i, part in enumerate(command) if _MARK in part), len(command))
    return [part.replace("python3", sys.executable) for part in command[:scripts]] + list(command[scripts:])


@contextlib.contextmanager
def hooked(run_step: RunStep, *, root: Path, log: TextIO, warn: Callable[[str], None]) -> Iterator[None]:
    """Have ``kfp.local`` use ``run_step``, keep its artifacts in ``root`` and its messages in ``log``.

    Args:
        run_step: Called in place of kfp's ``run_local_subprocess``.
        root: Folder for artifacts and workspace.
        log: File for what kfp prints, logs and warns of.
        warn: Called with what kfp logs as a warning or an error.

    Raises:
        ConfigError: If the installed kfp does not have the functions that are to be replaced.
    """
    with contextlib.ExitStack() as stack:
        for module, name, replacement in (
            (_TASKS, "run_local_subprocess", run_step),
            # kfp would also replace "python3" inside of parameter values and paths
            (_TASKS, "replace_python_executable", lambda full_command, new_executable: full_command),  # noqa: ARG005
            # these two change global state, and from several threads they leave it changed
            (_LOGS, "indented_print", contextlib.nullcontext),
            (_LOGS, "local_logger_context", contextlib.nullcontext),
        ):
            stack.enter_context(_replaced(module, name, replacement))
        stack.enter_context(_session(root))
        stack.enter_context(_messages_to(log, warn))
        yield


@contextlib.contextmanager
def _replaced(module_name: str, name: str, replacement: object) -> Iterator[None]:
    import kfp

    try:
        module = importlib.import_module(module_name)
        original = getattr(module, name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"kfp {kfp.__version__} has no {module_name}.{name}, which the local runner needs: "
            "install kfp 2.17, the version that longshore is made for"
        ) from error
    setattr(module, name, replacement)
    try:
        yield
    finally:
        setattr(module, name, original)


@contextlib.contextmanager
def _session(root: Path) -> Iterator[None]:
    from kfp import local
    from kfp.local import config

    before = config.LocalExecutionConfig.instance
    workspace = root / "workspace"
    workspace.mkdir()
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(root / "artifacts"),
        workspace_root=str(workspace),
        raise_on_error=True,
    )
    try:
        yield
    finally:
        config.LocalExecutionConfig.instance = before


@contextlib.contextmanager
def _messages_to(log: TextIO, warn: Callable[[str], None]) -> Iterator[None]:
    root = logging.getLogger()
    # logging.warning() without a handler would install one for good
    handlers = root.handlers[:]
    catch = _KfpMessages(log, warn)
    root.addFilter(catch)
    with warnings.catch_warnings(), contextlib.redirect_stdout(_OwnThreadsTo(log, sys.stdout)):
        warnings.simplefilter("always")
        # "you may be attempting to run a custom image": that is what a local run is
        warnings.filterwarnings("ignore", message="You may be attemping", category=RuntimeWarning)
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=log)
        try:
            yield
        finally:
            root.removeFilter(catch)
            root.handlers[:] = handlers


class _KfpMessages(logging.Filter):
    """Takes what ``kfp.local`` logs on the root logger out of the application's log."""

    def __init__(self, log: TextIO, warn: Callable[[str], None]) -> None:
        super().__init__()
        self._log, self._warn = log, warn

    def filter(self, record: logging.LogRecord) -> bool:
        if "local" not in Path(record.pathname).parts or "kfp" not in Path(record.pathname).parts:
            return True
        message = record.getMessage()
        print(f"{record.levelname.lower()}: {message}", file=self._log)
        if record.levelno >= logging.WARNING:
            self._warn(message)
        return False


class _OwnThreadsTo(io.TextIOBase):
    """A standard output that takes what this thread and later ones print; the application's threads keep theirs."""

    def __init__(self, log: TextIO, original: TextIO) -> None:
        self._log, self._original = log, original
        self._others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}

    def _current(self) -> TextIO:
        return self._original if threading.get_ident() in self._others else self._log

    def write(self, text: str) -> int:
        return self._current().write(text)

    def flush(self) -> None:
        self._current().flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)
