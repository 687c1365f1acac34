"""How the servers of a service on this machine are, as of now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from longshore.local import state as states
from longshore.local.sharing import front_of
from longshore.local.state import Record, ServiceState
from longshore.targets.base import Manifest

__all__ = ["server_status", "service_shares", "service_url", "with_log", "with_status"]

# a revision is as its worst server is
_WORST: Final = ("failed", "stopped", "draining", "starting", "ready")


def with_status(current: ServiceState) -> Manifest:
    """A service's object with its status."""
    serves = current.active is not None and current.alive(current.active)
    revisions = dict.fromkeys(record.revision for record in current.records.values())
    status = {
        "url": service_url(current),
        "active": current.active if serves else None,
        "revisions": [_revision_status(current, revision) for revision in revisions],
    }
    if current.routed is not None and front_of(current.name).alive:
        status["routed"] = current.routed["router"]
    return {**current.manifest, "status": status}


def service_url(current: ServiceState) -> str | None:
    """The service's address, None if nothing listens there."""
    if current.routed is not None:
        listens = front_of(current.name).alive
    else:
        listens = current.active is not None and current.alive(current.active)
    secure = current.routed is not None and current.routed["router"]["tls"] is not None
    scheme = "https" if secure else "http"
    return f"{scheme}://127.0.0.1:{current.port}" if listens and current.port is not None else None


def service_shares(current: ServiceState) -> Mapping[str, int]:
    """Percent of the service's requests by revision."""
    if current.routed is None:
        return {} if current.active is None else {current.active: 100}
    shares: Mapping[str, int] = current.routed["router"]["shares"]
    return shares


def server_status(current: ServiceState, record: Record) -> dict[str, Any]:
    """What is known of a server."""
    state, reason = record.state, record.reason
    alive = current.alive(record.server)
    if not alive and state not in ("failed", "starting"):
        gone = state == "draining"
        state = "stopped"
        reason = "retired" if gone else with_log(current, record.server, "the server process has ended")
    return {
        "state": state,
        "reason": reason,
        "pid": record.pid if alive else None,
        "url": f"http://127.0.0.1:{record.port}" if alive and record.port is not None else None,
        "since": record.since,
        "log": str(current.path(record.server, "log")),
    }


def _revision_status(current: ServiceState, revision: str) -> dict[str, Any]:
    found = [current.records[server] for server in current.servers_of(revision) if server in current.records]
    servers = [server_status(current, record) for record in found]
    worst = min(servers, key=lambda server: _WORST.index(server["state"]))
    return {
        "name": revision,
        "state": worst["state"],
        "reason": worst["reason"],
        "url": next((server["url"] for server in servers if server["url"] is not None), None),
        "traffic": service_shares(current).get(revision, 0) if any(server["pid"] for server in servers) else 0,
        "servers": servers,
    }


def with_log(current: ServiceState, server: str, reason: str) -> str:
    """A reason with what the server's log says of it."""
    path = current.path(server, "log")
    last = states.tail(path, lines=1)
    # the log's last line most often is the reason already
    seen = f"; its log ends with: {last}" if last and reason.splitlines()[-1] not in last else ""
    return f"{reason}{seen} (log: {path})"
