"""Starting a server process, and hearing what becomes of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any, Final

from longshore.errors import ConfigError, DeployError
from longshore.local import state as states
from longshore.local.state import ServiceState
from longshore.storage import is_local, local_path
from longshore.targets.base import Manifest

__all__ = ["KILL_SECONDS", "Child", "bind"]

KILL_SECONDS: Final = 5.0
"""How long a process is given beyond its time to drain before it is killed."""

_BACKLOG: Final = 2048


class Child:
    """A server process that has not yet said whether it is ready.

    It outlives this process on purpose; until then a thread waits for its end, so that none stays as a zombie.

    Args:
        current: The service.
        manifest: The object that says what to start.
        server: The server's name.

    Raises:
        ConfigError: If the model is not on this machine.
        DeployError: If the machine starts no more processes.
    """

    def __init__(self, current: ServiceState, manifest: Manifest, server: str) -> None:
        spec = manifest["spec"]
        place = states.folder(current.name)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._hear, tell = os.pipe()
        try:
            with current.path(server, "log").open("ab") as log:
                self._process = subprocess.Popen(
                    _command(current, spec, server, tell),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[tell],
                    env=_environment(spec["env"]),
                    cwd=place,
                    start_new_session=True,
                )
        except OSError as error:
            os.close(self._hear)
            raise DeployError(f"no process could be started for {server}: {error.strerror or error}") from error
        except BaseException:
            os.close(self._hear)
            raise
        finally:
            os.close(tell)
        self._reaper = threading.Thread(target=self._process.wait, name=f"reaper of {server}", daemon=True)
        self._reaper.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def fileno(self) -> int:
        """The pipe in which it tells its fate, for ``select``."""
        return self._hear

    def outcome(self) -> dict[str, Any]:
        """Its message: ``state`` is ``ready``, with ``port``, or ``failed``, with ``reason``. Nothing follows it."""
        said = b""
        # a long reason arrives in parts; the end of the pipe without a full line is the end of the process
        while not said.endswith(b"\n") and (part := os.read(self._hear, 65536)):
            said += part
        os.close(self._hear)
        if said.endswith(b"\n"):
            message: dict[str, Any] = json.loads(said)
            return message
        self._reaper.join(KILL_SECONDS)
        return {"state": "failed", "reason": f"the server process ended before it was ready{self._how()}"}

    def abandon(self) -> None:
        """End it: nobody waits for it any more. It does not hold its lock from the very start, so others cannot."""
        os.close(self._hear)
        self._process.terminate()
        self._reaper.join(KILL_SECONDS)
        if self._reaper.is_alive():
            self._process.kill()

    def _how(self) -> str:
        code = self._process.returncode
        if code is None:
            return ""
        return f" (killed by {signal.Signals(-code).name})" if code < 0 else f" (exit code {code})"


def _command(current: ServiceState, spec: Mapping[str, Any], server: str, tell: int) -> list[str]:
    model = spec["model"]
    if not is_local(model["uri"]):
        raise ConfigError(
            f"{model['uri']} is not on this machine: package the model into a local repository first "
            "(package_model with repository=PATH)"
        )
    options = {
        "--model": str(local_path(model["uri"]).absolute()),
        "--framework": spec["framework"],
        "--name": model["name"],
        "--revision": spec["revision"],
        "--digest": model["digest"],
        "--model-version": model["version"],
        "--control": str(current.control(server)),
        "--lock": str(current.path(server, "lock")),
        "--notify-fd": str(tell),
        "--drain-seconds": str(spec["drainSeconds"]),
    }
    given = [part for key, value in options.items() if value is not None for part in (key, value)]
    return [sys.executable, "-m", "longshore.serving", *given]


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    # this one changes what kfp is, and belongs to pipeline steps
    inherited = {key: value for key, value in os.environ.items() if key != "_KFP_RUNTIME"}
    return {**inherited, "PYTHONUNBUFFERED": "1", **extra}


def bind(name: str, port: int | None) -> int:
    """A new listening socket on 127.0.0.1, as a file descriptor that is the caller's.

    Args:
        name: The service, for the message.
        port: The port, None for one that the kernel chooses.

    Raises:
        DeployError: If the port cannot be had.
    """
    listener = socket.socket()
    # a port whose last connections are still closing is free
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port or 0))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise DeployError(
            f"{name} cannot listen on port {port} of 127.0.0.1: {error.strerror}. "
            "Choose another port, or end what uses this one"
        ) from error
    return listener.detach()
