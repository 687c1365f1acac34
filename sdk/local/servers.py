"""The servers on this machine, for people: which there are, ending them, their logs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from longshore.errors import ConfigError
from longshore.local import state as states
from longshore.local.runtime import KIND, LocalRuntime
from longshore.local.sharing import front_of
from longshore.local.status import server_status, service_shares, service_url
from longshore.targets.base import Manifest, Ref

__all__ = ["ServerStatus", "before_run", "deployed_by", "list_servers", "log_paths", "stop"]


@dataclass(frozen=True, kw_only=True)
class ServerStatus:
    """One server process, for people.

    Args:
        name: The service.
        percent: Its revision's share of the service's requests.
        state: ``serving``; ``ready`` without traffic; ``starting``, ``failed``, ``draining`` or ``stopped``.
        url: Where clients ask it: the service's address if it serves, else its own.
        revision: The revision.
        model: Name of the model.
        version: Its version in the registry.
        pid: The process, None if there is none any more.
        since: When it was started, ISO 8601 in UTC.
        log: Its log.
    """

    name: str
    state: str
    percent: int
    url: str | None
    revision: str
    model: str
    version: str | None
    pid: int | None
    since: str
    log: Path


def list_servers() -> list[ServerStatus]:
    """The server processes on this machine, and the services that should have one and do not."""
    found = []
    for name in states.names():
        current = states.load(name)
        if current is None:
            continue
        for record in current.records.values():
            status, shares = server_status(current, record), service_shares(current)
            has_part = record.revision == current.active or record.revision in shares
            serves = has_part and record.server in current.servers_of(record.revision)
            if not serves and (status["pid"] is None or status["state"] == "failed"):
                continue
            model = record.manifest["spec"]["model"]
            found.append(
                ServerStatus(
                    name=name,
                    state="serving" if serves and status["state"] == "ready" else status["state"],
                    url=service_url(current) if serves and status["url"] else status["url"],
                    percent=shares.get(record.revision, 0) if serves and status["pid"] else 0,
                    revision=record.revision,
                    model=model["name"],
                    version=model["version"],
                    pid=status["pid"],
                    since=record.since,
                    log=current.path(record.server, "log"),
                )
            )
    return found


def deployed_by(run: str) -> list[Ref]:
    """The services whose active revision a pipeline run brought up."""
    found = [current for name in states.names() if (current := states.load(name)) is not None]
    return [
        Ref(*KIND, current.name)
        for current in found
        if current.active is not None and current.records[current.active].run == run
    ]


def before_run(ref: Ref, run: str) -> Manifest | None:
    """The object that served before a pipeline run first deployed to its service, None if nothing did."""
    current = states.load(ref.name)
    return None if current is None or current.run != run else current.before


def stop(name: str) -> None:
    """End a service on this machine and forget it.

    Raises:
        ConfigError: If there is none of that name.
    """
    if states.load(name) is None:
        known = ", ".join(states.names()) or "none"
        raise ConfigError(f"no server {name!r} runs on this machine; there is {known}")
    with states.deploy_lock(name):
        LocalRuntime().delete([Ref(*KIND, name)])


def log_paths(name: str, revision: str | None = None) -> list[Path]:
    """The logs of a service's revision, by default of the one that serves, else of the latest.

    Those of its servers come first; where an Nginx shares requests out, its own is the last.

    Raises:
        ConfigError: If there is no such service or revision.
    """
    current = states.load(name)
    if current is None:
        raise ConfigError(f"no server {name!r} runs on this machine; there is {', '.join(states.names()) or 'none'}")
    chosen = revision or current.active or current.manifest["spec"]["revision"]
    if chosen not in current.records:
        known = ", ".join(dict.fromkeys(record.revision for record in current.records.values()))
        raise ConfigError(f"{name} has no revision {chosen!r}; there is {known}")
    found = [current.path(server, "log") for server in current.servers_of(chosen)]
    return found if current.routed is None else [*found, front_of(name).log]
