"""Waiting for workers: until they can answer, until they have answered, and for other deploys."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from longshore import home, locks
from longshore.errors import DeployError
from longshore.torchserve.server import ModelServer
from longshore.torchserve.versions import Version

__all__ = ["Progress", "WorkerDied", "alone", "await_workers", "unregister_drained"]

Progress = Callable[[str], None]

_POLL_SECONDS: Final = 0.2


class WorkerDied(DeployError):
    """A worker ended before it had loaded its model; TorchServe starts another one again and again."""


def await_workers(server: ModelServer, model: str, version: str, deadline: float, on_progress: Progress) -> Version:
    """Wait until a version has its workers.

    Raises:
        DeployError: If it has not by then.
        WorkerDied: If one of them ends.
    """
    last, processes = "", dict[str, int]()
    while True:
        this = server.describe(model, version)
        if this.ready:
            return this
        for worker in this.workers:
            # that is all that TorchServe tells of one that has died: its place has another process
            if worker.pid is not None and processes.setdefault(worker.id, worker.pid) != worker.pid:
                raise WorkerDied(f"a worker of {model} {version} died before it had loaded the model")
        if str(this) != last:
            last = str(this)
            on_progress(last)
        if time.monotonic() > deadline:
            raise DeployError(f"in time there were not enough workers: {last}")
        time.sleep(_POLL_SECONDS)


def unregister_drained(server: ModelServer, version: Version, deadline: float, on_progress: Progress) -> None:
    """Unregister a version that gets no more requests, once it has answered all it got.

    Raises:
        DeployError: If it has not by then; it stays registered.
    """
    if not _drained(server, version, deadline):
        raise DeployError(
            f"version {version.version} of {version.model} still answers what it was asked: unregister it later"
        )
    server.unregister(version.model, version.version)
    on_progress(f"version {version.version} of {version.model} is unregistered")


def _drained(server: ModelServer, version: Version, deadline: float) -> bool:
    """Wait until a version that gets no more requests has answered all it got; False if the time is not enough.

    A worker takes one thing at a time, from one queue in order. So one that says something of itself now has answered
    what it began before. One whose handler says nothing is waited for as long as TorchServe lets it work.
    """
    seen: set[int] = set()
    ends = time.monotonic() + version.response_timeout_seconds
    while True:
        this = server.describe(version.model, version.version)
        busy = {worker.pid for worker in this.workers if worker.status == "READY"} - seen
        if not busy or (time.monotonic() > ends and not this.queued):
            return True
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        told = None
        with contextlib.suppress(DeployError):
            # while all are at work the question waits, too
            told = server.about(version.model, version.version, timeout_seconds=left).get("pid")
        if told in busy and isinstance(told, int):
            seen.add(told)
        else:
            time.sleep(_POLL_SECONDS)


@contextmanager
def alone(server: ModelServer, model: str, timeout_seconds: float) -> Iterator[None]:
    """One deploy of a model at a time on one server, from this machine."""
    key = hashlib.sha256(f"{server.management} {model}".encode()).hexdigest()[:16]
    path = home.home() / "locks" / f"torchserve-{key}"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a") as lock:
        if not locks.acquire(lock.fileno(), timeout_seconds):
            raise DeployError(
                f"{model} on {server.management} has been in the hands of another deploy for {timeout_seconds:g} s: "
                "wait for it"
            )
        yield
