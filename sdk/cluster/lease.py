"""One deployment of a service at a time, across machines: a ``Lease`` object is the lock.

Whoever holds it writes into it again and again. A holder that is gone does not, and after the lease's duration another
takes over: judged by how long the object stayed the same to the one who waits, so that no two clocks are compared.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import socket
import threading
import time
import uuid
from collections.abc import Collection, Iterator
from typing import Any, Final

from longshore.cluster.session import Resource, Session
from longshore.cluster.watch import Query, list_all
from longshore.errors import ClusterError
from longshore.targets.base import MANAGED_BY

__all__ = ["held", "held_for_all"]

_LEASES: Final = Resource("coordination.k8s.io/v1", "Lease", "leases", namespaced=True)
_DURATION: Final = 20
_RENEW_SECONDS: Final = 5.0
_ASK_SECONDS: Final = 0.5


@contextlib.contextmanager
def held(
    session: Session, namespace: str, name: str, wait_seconds: float, *, unless: str | None = None
) -> Iterator[None]:
    """Hold a lease.

    Args:
        session: The cluster.
        namespace: Namespace of the lease.
        name: Its name.
        wait_seconds: How long to wait for another holder to let go.
        unless: A lease that is for this one, too: nobody else holds that, either.

    Raises:
        ClusterError: If another holds it for longer than that; names the holder.
    """
    lease = _Lease(session, namespace, name)
    lease.take(wait_seconds)
    if unless is not None:
        other, left = _Lease(session, namespace, unless), None
        while other.version() not in (None, left):
            # its holder waits for this one
            lease.give_back()
            left = other.wait(wait_seconds)
            lease.take(wait_seconds)
    done = threading.Event()
    renewer = threading.Thread(target=lease.keep, args=(done,), name=f"lease {name}", daemon=True)
    renewer.start()
    try:
        yield
    finally:
        done.set()
        renewer.join()
        with contextlib.suppress(ClusterError):
            lease.give_back()


@contextlib.contextmanager
def held_for_all(
    session: Session, namespace: str, name: str, others: Collection[str], wait_seconds: float
) -> Iterator[None]:
    """Hold one lease in place of many, such as those of all services that are deployed together.

    Whoever holds one of the others looks at this one afterwards and gives way (``held(unless=...)``), and whoever holds
    this one waits for the others: one of both sees the other.

    Args:
        session: The cluster.
        namespace: Namespace of the leases.
        name: Name of the one lease.
        others: Names of the others: those that are held now are waited for.
        wait_seconds: How long to wait for each.

    Raises:
        ClusterError: If another holds one for longer than that; names the holder.
    """
    with held(session, namespace, name, wait_seconds):
        query = Query(_LEASES, namespace, ",".join(f"{key}={value}" for key, value in MANAGED_BY.items()))
        found, _ = list_all(session, query, lambda lease: lease["metadata"]["name"] in others)
        for _, other in found:
            _Lease(session, namespace, other).wait(wait_seconds)
        yield


class _Lease:
    def __init__(self, session: Session, namespace: str, name: str) -> None:
        self._session = session
        self._subject = f"Lease {namespace}/{name}"
        self._collection = _LEASES.path(namespace)
        self._path = _LEASES.path(namespace, name)
        self._name = name
        # a process can hold several: no two deployments are the same holder
        self._holder = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._version = ""

    def take(self, wait_seconds: float) -> None:
        """Hold it, once nobody else does."""
        for current, free in self._watched(wait_seconds):
            if current is None:
                if self._create():
                    return
            elif free and self._replace(current["metadata"]["resourceVersion"], self._holder):
                return

    def version(self) -> str | None:
        """Its version, None if nobody holds it."""
        current = self._read()
        held = current is not None and (current.get("spec") or {}).get("holderIdentity")
        return current["metadata"]["resourceVersion"] if current is not None and held else None

    def wait(self, wait_seconds: float) -> str | None:
        """Return once nobody holds it: the version that a holder who is gone has left, None without one."""
        current = next(current for current, free in self._watched(wait_seconds) if free)
        return None if current is None else current["metadata"]["resourceVersion"]

    def _watched(self, wait_seconds: float) -> Iterator[tuple[dict[str, Any] | None, bool]]:
        """The lease as it is, None without one, and whether it is free; again and again until it is so for too long."""
        deadline = time.monotonic() + wait_seconds
        seen, since = "", time.monotonic()
        while True:
            current = self._read()
            if current is None:
                yield None, True
                continue
            version = current["metadata"]["resourceVersion"]
            if version != seen:
                seen, since = version, time.monotonic()
            spec = current.get("spec") or {}
            holder = spec.get("holderIdentity")
            expired = time.monotonic() - since > (spec.get("leaseDurationSeconds") or _DURATION)
            yield current, not holder or expired
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"another deployment of this service is under way (lease {self._subject.split()[1]}, "
                    f"held by {holder}): wait for its end",
                    "Locked",
                )
            time.sleep(_ASK_SECONDS)

    def keep(self, done: threading.Event) -> None:
        while not done.wait(_RENEW_SECONDS):
            # a cluster that is away for a moment does not end a deployment
            with contextlib.suppress(ClusterError):
                self._replace(self._version, self._holder, patience=_RENEW_SECONDS)

    def give_back(self) -> None:
        body = {"preconditions": {"resourceVersion": self._version}}
        self._session.request("DELETE", self._path, self._subject, body=body, patience=_RENEW_SECONDS)

    def _read(self) -> dict[str, Any] | None:
        try:
            return self._session.request("GET", self._path, self._subject)
        except ClusterError as error:
            if error.reason == "NotFound":
                return None
            raise

    def _create(self) -> bool:
        return self._write("POST", self._collection, self._body("", self._holder))

    def _replace(self, version: str, holder: str, *, patience: float | None = None) -> bool:
        return self._write("PUT", self._path, self._body(version, holder), patience)

    def _write(self, method: str, path: str, body: dict[str, Any], patience: float | None = None) -> bool:
        try:
            answer = self._session.request(method, path, self._subject, body=body, patience=patience)
        except ClusterError as error:
            if error.reason in ("Conflict", "AlreadyExists"):
                return False
            raise
        self._version = answer["metadata"]["resourceVersion"]
        return True

    def _body(self, version: str, holder: str) -> dict[str, Any]:
        now = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        metadata: dict[str, Any] = {"name": self._name, "labels": dict(MANAGED_BY)}
        if version:
            metadata["resourceVersion"] = version
        spec = {"holderIdentity": holder, "leaseDurationSeconds": _DURATION, "renewTime": now}
        return {"apiVersion": _LEASES.api_version, "kind": _LEASES.kind, "metadata": metadata, "spec": spec}
