"""What is known of the servers on this machine, in files that outlive every process.

One folder a service, below :func:`longshore.home.local_state`: ``service.json`` (the object that was applied last and a
record of each server), a log, a lock and a control socket for each server. A server is one process of a revision, which
has several if it has replicas. It holds its lock for life, and the kernel frees it however the process ends: so it is
known whether it lives.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TextIO

from longshore import home
from longshore.errors import DeployError
from longshore.locks import acquire, is_held
from longshore.spec.checks import check_dns_label
from longshore.targets.base import Manifest

__all__ = ["Record", "ServiceState", "deploy_lock", "folder", "load", "names", "remove", "save", "servers", "tail"]

_SOCKET_PATH_LIMIT: Final = 100
_LOCK_WAIT_SECONDS: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class Record:
    """One server.

    Args:
        revision: Its revision.
        replica: Which of the revision's servers it is, from 1.
        manifest: The object that asked for it last.
        state: ``starting``, ``ready``, ``failed`` or ``draining``, as it was last told.
        pid: Its process.
        port: Its own port, once it is ready.
        reason: Why it failed.
        since: When it was started, ISO 8601 in UTC.
        run: The pipeline run that asked for it, None outside one.
    """

    revision: str
    replica: int = 1
    manifest: Manifest
    state: str
    pid: int
    port: int | None = None
    reason: str = ""
    since: str = ""
    run: str | None = None

    @property
    def server(self) -> str:
        """Its name."""
        return _server(self.revision, self.replica)


@dataclass(frozen=True, kw_only=True)
class ServiceState:
    """One service.

    Args:
        name: Its name.
        manifest: The object that was applied last.
        port: The public port, once there was one.
        active: The revision that serves it; with a router the one that was given its part last.
        routed: How Nginx shares requests out, as the object has it; None where there is none in front.
        records: Servers by name: the first of a revision has the revision's.
        run: The pipeline run that last started a revision, None if none ever did.
        before: The object that served when that run began with this service, None if nothing did.
    """

    name: str
    manifest: Manifest
    port: int | None = None
    active: str | None = None
    routed: dict[str, Any] | None = None
    records: dict[str, Record] = field(default_factory=dict)
    run: str | None = None
    before: Manifest | None = None

    def with_record(self, server: str, **changes: Any) -> ServiceState:
        """The state with one record changed."""
        return replace(self, records={**self.records, server: replace(self.records[server], **changes)})

    def servers_of(self, revision: str) -> list[str]:
        """The servers that a revision shall have, by name; none if nothing is known of it."""
        record = self.records.get(revision)
        return [] if record is None else servers(record.manifest)

    def path(self, server: str, suffix: str) -> Path:
        """Path of a server's ``log`` or ``lock``."""
        return folder(self.name) / f"{server}.{suffix}"

    def control(self, server: str) -> Path:
        """Path of a server's control socket; socket paths must be short."""
        path = self.path(server, "sock")
        if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT:
            return path
        short = Path(tempfile.gettempdir()) / f"longshore-{os.getuid()}"
        short.mkdir(mode=0o700, exist_ok=True)
        # not through a link: whoever made it could turn it elsewhere
        found = short.lstat()
        if found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise DeployError(f"{short} must be a folder that only you can open: remove it, it is made anew")
        return short / hashlib.sha256(os.fsencode(path)).hexdigest()[:24]

    def alive(self, server: str) -> bool:
        """Whether the server's process lives."""
        return is_held(self.path(server, "lock"))

    def wait_gone(self, server: str, timeout_seconds: float) -> bool:
        """Wait until the server's process is gone; False if it is not within the time."""
        with self.path(server, "lock").open("a") as lock:
            return acquire(lock.fileno(), timeout_seconds)


def servers(manifest: Manifest) -> list[str]:
    """Names of the servers that an object's revision shall have; the first has the revision's own."""
    spec = manifest["spec"]
    return [_server(spec["revision"], replica) for replica in range(1, spec["replicas"] + 1)]


def _server(revision: str, replica: int) -> str:
    # names of revisions have no dots
    return revision if replica == 1 else f"{revision}.{replica}"


def folder(name: str) -> Path:
    """The folder of a service."""
    check_dns_label("name", name)
    return home.local_state() / name


def names() -> list[str]:
    """Names of all services."""
    return sorted(path.parent.name for path in home.local_state().glob("*/service.json"))


def load(name: str) -> ServiceState | None:
    """The state of a service, None if there is none.

    Raises:
        DeployError: If its file cannot be understood.
    """
    path = folder(name) / "service.json"
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        records = {revision: Record(**record) for revision, record in plain.pop("records").items()}
        return ServiceState(**plain, records=records)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DeployError(
            f"{path} is not what this version of longshore writes ({error}): "
            f"end the server processes of {name} by hand and remove {path.parent}, then deploy again"
        ) from error


def save(state: ServiceState) -> None:
    """Write a service's state: whole, or not at all."""
    place = folder(state.name)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    plain = {**vars(state), "records": {revision: vars(record) for revision, record in state.records.items()}}
    work = place / f"service.json.{os.getpid()}.{threading.get_ident()}"
    try:
        work.write_text(json.dumps(plain, indent=1), encoding="utf-8")
        work.replace(place / "service.json")
    except OSError as error:
        work.unlink(missing_ok=True)
        raise DeployError(f"the state of {state.name} could not be written: {error.strerror or error}") from error


def remove(state: ServiceState) -> None:
    """Forget a service whose processes have ended."""
    for server in state.records:
        state.control(server).unlink(missing_ok=True)
    place = folder(state.name)
    # the file that makes it a service goes first
    (place / "service.json").unlink(missing_ok=True)
    shutil.rmtree(place)


def tail(path: Path, lines: int = 5) -> str:
    """The last lines of a log that are not empty."""
    try:
        with path.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - 8192))
            text = log.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])


@contextlib.contextmanager
def deploy_lock(name: str, *, timeout_seconds: float = _LOCK_WAIT_SECONDS) -> Iterator[None]:
    """Hold a service for oneself; the lock ends with the process at the latest.

    Raises:
        DeployError: If another process still holds it after the time.
    """
    check_dns_label("name", name)
    root = home.local_state()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(root / f"{name}.deploy", name, timeout_seconds) as lock:
        lock.truncate(0)
        lock.write(f"process {os.getpid()}")
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)
            if not (folder(name) / "service.json").exists():
                Path(lock.name).unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path, name: str, timeout_seconds: float) -> Iterator[TextIO]:
    deadline = time.monotonic() + timeout_seconds
    while True:
        with path.open("a+") as lock:
            if not acquire(lock.fileno(), max(0.0, deadline - time.monotonic())):
                lock.seek(0)
                holder = lock.read().strip() or "another process"
                raise DeployError(
                    f"{name} has been in the hands of {holder} for {timeout_seconds:g} s: "
                    "wait until its deployment is through, or end that process"
                )
            if _is_at(lock, path):
                yield lock
                return


def _is_at(stream: TextIO, path: Path) -> bool:
    """Whether an open file still has its name: a lock on one that was removed keeps nobody out."""
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False
