"""The process that holds all that a cluster consists of, and undoes it when whoever asked for it is gone.

``Keeper`` is the caller's end; ``python -m harness.keeper`` the process. They are joined by a socket: when the caller
closes it, or dies of whatever cause, the keeper ends every process that it started and undoes every command that it
ran, in reverse order. Should the keeper itself be killed, the kernel kills its processes, and what it had written to
its journal is undone by the next keeper that comes to the same slot, or by ``sweep``.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from harness.system import locked

__all__ = ["SLOTS", "CommandFailed", "Keeper", "end_detached", "leftovers", "runs_folder", "sweep"]

SLOTS = 16
"""Clusters at a time on one machine: each has a folder and a network of its own."""

_TERM_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1


class CommandFailed(Exception):
    """A command of the harness failed; the message has its own words."""


def runs_folder() -> Path:
    """Where the folders and locks of all clusters of this user are."""
    return Path(tempfile.gettempdir()) / f"longshore-cluster-{os.getuid()}"


class Keeper:
    """The caller's end.

    Args:
        detached: The keeper stays when the caller ends; :meth:`close` or a TERM ends it.
    """

    def __init__(self, *, detached: bool = False) -> None:
        ours, theirs = socket.socketpair()
        # who reads the output of the caller must not wait for a keeper that stays
        output = subprocess.DEVNULL if detached else None
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness.keeper", *(["--detached"] if detached else [])],
                stdin=theirs.fileno(),
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=Path(__file__).parents[1],
            )
        self._socket = ours
        self._answers = ours.makefile("rb")
        hello = self._ask({"do": "hello"})
        self.slot: int = hello["slot"]
        self.folder = Path(hello["folder"])
        self.pid: int = self._process.pid

    def spawn(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        net: str | None = None,
        kill: bool = False,
    ) -> int:
        """Start a process that lives no longer than the keeper; its output goes to ``NAME.log`` in the folder.

        Args:
            name: What to call it.
            argv: The command.
            env: Its whole environment beside PATH and HOME.
            net: Name of a network namespace to start it in.
            kill: End it by KILL: it has nothing to put in order.

        Returns:
            Its process id.
        """
        request = {"do": "spawn", "name": name, "argv": _texts(argv), "env": dict(env or {}), "net": net, "kill": kill}
        pid: int = self._ask(request)["pid"]
        return pid

    def run(self, *argv: str | Path, undo: Sequence[str | Path] = ()) -> str:
        """Run a command to its end and return its output; ``undo`` is run at the end, even if the command failed."""
        output: str = self._ask({"do": "run", "argv": _texts(argv), "undo": _texts(undo)})["output"]
        return output

    def exited(self, name: str) -> int | None:
        """The exit code of a process, None while it runs."""
        code: int | None = self._ask({"do": "poll", "name": name})["code"]
        return code

    def stop(self, name: str, *, kill: bool = False) -> None:
        """End a process, by KILL if asked now or when it was started."""
        self._ask({"do": "stop", "name": name, "kill": kill})

    def log(self, name: str, lines: int = 15) -> str:
        """The last lines that a process wrote."""
        path = self.folder / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def check(self, name: str) -> None:
        """Raise CommandFailed if a process that should run has ended."""
        code = self.exited(name)
        if code is not None:
            raise CommandFailed(f"{name} has ended with code {code}; its log ends with:\n{self.log(name)}")

    def let_go(self) -> None:
        """Close this end and leave a detached keeper to itself."""
        self._answers.close()
        self._socket.close()

    def close(self) -> None:
        """Undo everything and wait for the end of it."""
        with contextlib.suppress(OSError, CommandFailed):
            self._ask({"do": "close"})
        self.let_go()
        self._process.wait(60)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        line = self._answers.readline()
        if not line:
            raise CommandFailed("the keeper has ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise CommandFailed(answer["error"])
        return answer


def _texts(argv: Sequence[str | Path]) -> list[str]:
    return [str(part) for part in argv]


class _Slot:
    """A folder that no other keeper uses as long as this process lives, and its journal."""

    def __init__(self, *, detached: bool) -> None:
        root = runs_folder()
        root.mkdir(mode=0o700, exist_ok=True)
        for number in range(SLOTS):
            lock = os.open(root / f"{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                continue
            self.number, self.folder, self._lock = number, root / str(number), lock
            # first of all: whoever reads it must not take the keeper before for this one
            os.truncate(lock, 0)
            os.write(lock, json.dumps({"pid": os.getpid(), "detached": detached}).encode())
            _undo_folder(self.folder)
            self.folder.mkdir(mode=0o700)
            return
        raise SystemExit(f"all {SLOTS} slots in {root} are taken")

    def note(self, undo: Sequence[str]) -> None:
        with (self.folder / "journal").open("a") as journal:
            journal.write(json.dumps(undo) + "\n")

    def give_back(self) -> None:
        _undo_folder(self.folder)
        os.truncate(self._lock, 0)


def _undo_folder(folder: Path) -> None:
    """Undo what the journal in ``folder`` says, and remove the folder."""
    journal = folder / "journal"
    if journal.exists():
        for line in reversed(journal.read_text().splitlines()):
            # what was never done cannot be undone: that is no error
            _insist(json.loads(line))
    shutil.rmtree(folder, ignore_errors=True)


def _insist(argv: Sequence[str]) -> None:
    """Run a command that undoes; the kernel may need a moment until the last process of a thing is gone."""
    for _ in range(20):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if "busy" not in done.stderr.lower():
            return
        time.sleep(0.1)


def sweep() -> list[Path]:
    """Undo what killed keepers left behind; returns their folders."""
    swept = []
    for folder in leftovers():
        with (runs_folder() / f"{folder.name}.lock").open("r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            _undo_folder(folder)
            swept.append(folder)
    return swept


def end_detached() -> list[Path]:
    """End the clusters that were started to stay, and undo what killed ones left; returns their folders."""
    ended = sweep()
    for folder in leftovers():
        lock = runs_folder() / f"{folder.name}.lock"
        holder = json.loads(lock.read_text() or "{}")
        if holder.get("detached"):
            os.kill(holder["pid"], signal.SIGTERM)
            with locked(lock):
                ended.append(folder)
    return ended


def leftovers() -> list[Path]:
    """Folders of clusters, running or not."""
    root = runs_folder()
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.exists() else []


class _Server:
    """The keeper's process."""

    def __init__(self, *, detached: bool) -> None:
        self._slot = _Slot(detached=detached)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._at_once: set[str] = set()
        self._libc = ctypes.CDLL(None)

    def serve(self, requests: IO[bytes], answers: socket.socket) -> bool:
        """Answer until the caller is gone; True if it asked for the end."""
        for line in requests:
            request = json.loads(line)
            closing = request["do"] == "close"
            try:
                answer = {} if closing else getattr(self, f"_{request.pop('do')}")(**request)
            except (OSError, CommandFailed) as error:
                answer = {"error": str(error)}
            if closing:
                self.end()
            answers.sendall(json.dumps(answer).encode() + b"\n")
            if closing:
                return True
        return False

    def end(self) -> None:
        for name in reversed(list(self._children)):
            self._tell_to_end(name)
        deadline = time.monotonic() + _TERM_SECONDS
        for name in reversed(list(self._children)):
            self._end_one(self._children.pop(name), max(0.1, deadline - time.monotonic()))
        self._slot.give_back()

    def _hello(self) -> dict[str, Any]:
        return {"slot": self._slot.number, "folder": str(self._slot.folder)}

    def _tell_to_end(self, name: str) -> None:
        child = self._children[name]
        child.kill() if name in self._at_once else child.terminate()

    def _spawn(self, name: str, argv: list[str], env: dict[str, str], net: str | None, kill: bool) -> dict[str, Any]:
        if kill:
            self._at_once.add(name)
        if net is not None:
            # not `ip netns exec`, which mounts /sys anew and so hides the control groups
            argv = ["nsenter", f"--net=/run/netns/{net}", *argv]
        # a process started anew goes on in the log of the one before it
        with (self._slot.folder / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "HOME": str(self._slot.folder), **env},
                cwd=self._slot.folder,
                start_new_session=True,
                preexec_fn=self._die_with_parent,  # noqa: PLW1509 - the keeper has one thread
            )
        self._children[name] = child
        return {"pid": child.pid}

    def _die_with_parent(self) -> None:
        self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def _run(self, argv: list[str], undo: list[str]) -> dict[str, Any]:
        if undo:
            self._slot.note(undo)
        done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise CommandFailed(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
        return {"output": done.stdout}

    def _poll(self, name: str) -> dict[str, Any]:
        return {"code": self._children[name].poll() if name in self._children else 0}

    def _stop(self, name: str, kill: bool) -> dict[str, Any]:
        if kill:
            self._at_once.add(name)
        self._tell_to_end(name)
        child = self._children.pop(name)
        self._end_one(child, _TERM_SECONDS)
        return {}

    @staticmethod
    def _end_one(child: subprocess.Popen[bytes], seconds: float) -> None:
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _main() -> None:
    caller = socket.socket(fileno=os.dup(0))
    detached = "--detached" in sys.argv
    server = _Server(detached=detached)

    def leave(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        server.end()
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    closed = False
    with contextlib.suppress(OSError):
        closed = server.serve(caller.makefile("rb"), caller)
    if closed:
        return
    if detached:
        while True:
            signal.pause()
    server.end()


if __name__ == "__main__":
    _main()
