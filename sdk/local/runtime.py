"""Model servers as processes on this machine: the runtime behind ``LocalTarget``.

There is no supervisor. A process lives by itself, tells through a pipe when it is ready, and hands the service's
listening socket to its successor: the connections that wait in it are answered by whoever accepts next, so none is
lost while one process takes over from another.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from longshore.errors import ConfigError, DeployError
from longshore.local import state as states
from longshore.local.front import Front, find_program
from longshore.local.process import KILL_SECONDS, Child, bind
from longshore.local.state import Record, ServiceState
from longshore.serving.control import ask
from longshore.spec import Endpoint, Router
from longshore.targets.base import HEARTBEAT_SECONDS, Manifest, Ref, Selection
from longshore.targets.nginx import nginx_configuration

__all__ = ["KIND", "LocalRuntime", "revision_status", "service_shares", "service_url"]

KIND: Final = ("local.longshore.dev/v1alpha1", "ModelServer")
_REMEMBERED: Final = 5


class LocalRuntime:
    """Applies ``ModelServer`` objects as processes; see :class:`longshore.targets.base.Runtime`.

    A revision with traffic 0 runs beside what serves. One with traffic 100 takes the service's socket over as soon as
    it is ready, which :meth:`observe` sees to, and every other revision ends. With a router, the service's address is
    an Nginx in front of the revisions, told who gets what once all that have a part are ready.
    """

    def __init__(self) -> None:
        self._starting: dict[tuple[str, str], Child] = {}

    def apply(self, objects: Sequence[Manifest]) -> list[Ref]:
        """Start what does not run; raises DeployError or ConfigError if that cannot be."""
        return [self._apply(manifest) for manifest in objects]

    def get(self, ref: Ref) -> Manifest | None:
        """The object with its status as it is now."""
        found = states.load(ref.name) if (ref.api_version, ref.kind) == KIND else None
        return None if found is None else _with_status(found)

    def exists(self, ref: Ref) -> bool:
        """Whether the service is on this machine."""
        return self.get(ref) is not None

    def look(self, what: Ref | Selection) -> Sequence[Manifest]:
        """The service, if that is what is looked for."""
        found = self.get(what) if isinstance(what, Ref) else None
        return () if found is None else (found,)

    def observe(
        self,
        refs: Sequence[Ref],
        *,
        also: Sequence[Selection] = (),  # noqa: ARG002 - an object's status says it all
        deadline: float,
    ) -> Iterator[Sequence[Manifest]]:
        """Yield the objects after each thing that a starting process says; ends when none will say more."""
        try:
            while True:
                for ref in refs:
                    self._give_traffic(ref.name)
                yield [manifest for ref in refs if (manifest := self.get(ref)) is not None]
                if not self._hear(refs, deadline):
                    return
        finally:
            self._abandon(refs)

    def find(self, selection: Selection) -> Sequence[Manifest]:  # noqa: ARG002
        """None: a service is one object."""
        return ()

    def delete(self, refs: Sequence[Ref]) -> None:
        """End all processes of the services, and forget them."""
        self._abandon(refs)
        for ref in refs:
            found = states.load(ref.name)
            if found is not None:
                _end_all(found)
                states.remove(found)

    def lock(self, ref: Ref) -> AbstractContextManager[None]:
        """One deployment of a service at a time, across processes."""
        return states.deploy_lock(ref.name)

    def reach(self, endpoint: Endpoint) -> AbstractContextManager[Endpoint]:
        """The endpoint itself: it is on this machine."""
        return contextlib.nullcontext(endpoint)

    def _apply(self, manifest: Manifest) -> Ref:
        ref = Ref.of(manifest)
        if (ref.api_version, ref.kind) != KIND:
            raise ConfigError(f"{ref} cannot be made on this machine: the local runtime knows {KIND[1]} only")
        spec = manifest["spec"]
        revision = spec["revision"]
        if spec["router"] is not None:
            # before anything is started for nothing
            find_program()
        known = states.load(ref.name)
        current = ServiceState(name=ref.name, manifest=manifest) if known is None else replace(known, manifest=manifest)
        current = self._ensure(current, manifest)
        for other in _parts(spec) - {revision}:
            if other in current.records:
                # what answers the rest has to be there, too, even if its process was killed
                current = self._ensure(current, current.records[other].manifest)
        states.save(current)
        return ref

    def _ensure(self, current: ServiceState, manifest: Manifest) -> ServiceState:
        """Start a revision's process unless it runs."""
        spec = manifest["spec"]
        revision = spec["revision"]
        record = current.records.get(revision)
        if (current.name, revision) in self._starting:
            return current.with_record(revision, manifest=manifest)
        if record is None or not current.alive(revision):
            return self._start(current, manifest)
        if record.state in ("failed", "starting"):
            # on its way out, or left behind by a deploy that was killed: nobody hears what it says
            _end(current, revision)
            return self._start(current, manifest)
        if record.state == "draining":
            current.wait_gone(revision, spec["drainSeconds"] + KILL_SECONDS)
            return self._start(current, manifest)
        return current.with_record(revision, manifest=manifest)

    def _start(self, current: ServiceState, manifest: Manifest) -> ServiceState:
        revision = manifest["spec"]["revision"]
        run = os.environ.get("LONGSHORE_RUN")
        if run is not None and run != current.run:
            # noted once a run: what it deploys later in its course is not what served before it
            serves = None if current.active is None else current.records[current.active].manifest
            current = replace(current, run=run, before=serves)
        child = Child(current, manifest)
        self._starting[current.name, revision] = child
        record = Record(
            revision=revision,
            manifest=manifest,
            state="starting",
            pid=child.pid,
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            run=run,
        )
        # a process that is started anew does not have the public socket of the one that died
        active = None if current.active == revision and current.routed is None else current.active
        return _pruned(replace(current, active=active, records={**current.records, revision: record}))

    def _hear(self, refs: Sequence[Ref], deadline: float) -> bool:
        """Wait for a word of a starting process; False if none will come in time."""
        children = self._children(refs)
        remaining = deadline - time.monotonic()
        if not children or remaining <= 0:
            return False
        heard, _, _ = select.select(list(children.values()), [], [], min(remaining, HEARTBEAT_SECONDS))
        for name, revision in [key for key, child in children.items() if child in heard]:
            self._note(name, revision, self._starting.pop((name, revision)).outcome())
        return True

    def _children(self, refs: Sequence[Ref]) -> dict[tuple[str, str], Child]:
        names = {ref.name for ref in refs}
        return {key: child for key, child in self._starting.items() if key[0] in names}

    def _note(self, name: str, revision: str, message: dict[str, Any]) -> None:
        current = states.load(name)
        if current is None or revision not in current.records:
            return
        if message["state"] == "ready":
            states.save(current.with_record(revision, state="ready", port=message["port"]))
        else:
            reason = _with_log(current, revision, message["reason"])
            states.save(current.with_record(revision, state="failed", reason=reason))

    def _give_traffic(self, name: str) -> None:
        """Have the revisions serve that shall, once they are ready, and end all others."""
        current = states.load(name)
        if current is None:
            return
        spec = current.manifest["spec"]
        parts = _parts(spec)
        ready = [one for one in parts if one in current.records and current.records[one].state == "ready"]
        if not parts or len(ready) < len(parts) or not all(map(current.alive, parts)):
            return
        if spec["router"] is not None:
            current = _share_out(current)
        elif current.active != spec["revision"] or spec["port"] not in (None, current.port):
            current = _switch(current, spec["revision"], spec["port"])
        # with a router, what was given its part last has it again if the one that is tried out now fails
        keep = {*parts, spec["revision"], current.active}
        for other, record in current.records.items():
            if other not in keep and record.state in ("starting", "ready") and current.alive(other):
                with contextlib.suppress(DeployError):
                    ask(current.control(other), {"do": "retire"})
                current = current.with_record(other, state="draining")
        states.save(current)

    def _abandon(self, refs: Sequence[Ref]) -> None:
        for key in self._children(refs):
            self._starting.pop(key).abandon()
            self._note(
                *key, {"state": "failed", "reason": "it was ended before it was ready: nobody waited any longer"}
            )


def _parts(spec: Mapping[str, Any]) -> set[str]:
    """The revisions that have to be ready for a service to be as an object asks for it."""
    router = spec["router"]
    if router is None:
        return {spec["revision"]} if spec["traffic"] else set()
    if not router["shares"]:
        return set()
    return {*router["shares"], *([spec["revision"]] if router["mirrorPercent"] else ())}


def _front(name: str) -> Front:
    return Front(name, states.folder(name) / "nginx")


def _share_out(current: ServiceState) -> ServiceState:
    """Have Nginx share the service's requests out as its object asks."""
    spec, front = current.manifest["spec"], _front(current.name)
    router = spec["router"]
    hosts = {revision: f"127.0.0.1:{current.records[revision].port}" for revision in _parts(spec)}
    mirrored = router["mirrorPercent"]

    def configure(port: int) -> str:
        return nginx_configuration(
            router["shares"],
            hosts,
            (spec["revision"], mirrored) if mirrored else None,
            router=Router(
                kind="nginx",
                client=router["client"],
                sticky=router["sticky"],
                requests_per_second=router["requestsPerSecond"],
                timeout_seconds=router["timeoutSeconds"],
            ),
            salt=current.name,
            listen=f"127.0.0.1:{port}",
            place=".",
            user="root" if os.geteuid() == 0 else None,
            keeps_idle=front.keeps_idle,
        )

    port = spec["port"] or current.port
    if port is None or current.routed is None or not front.alive:
        port = front.start(configure, port)
    elif current.routed != {"router": router, "hosts": hosts, "port": port}:
        if port != current.port:
            # who cannot have a port is told so better here than in Nginx's log
            os.close(bind(current.name, port))
        front.reload(configure(port), port, spec["drainSeconds"])
    active = spec["revision"] if spec["traffic"] else current.active
    return replace(current, active=active, port=port, routed={"router": router, "hosts": hosts, "port": port})


def _pruned(current: ServiceState) -> ServiceState:
    """Forget the oldest revisions that have ended, and their logs."""
    kept = {current.active, *_parts(current.manifest["spec"])}
    ended = [
        record
        for record in current.records.values()
        if record.revision not in kept and record.state != "starting" and not current.alive(record.revision)
    ]
    old = sorted(ended, key=lambda record: record.since)[:-_REMEMBERED]
    for record in old:
        for path in (current.path(record.revision, "log"), current.path(record.revision, "lock")):
            path.unlink(missing_ok=True)
        current.control(record.revision).unlink(missing_ok=True)
    forgotten = {record.revision for record in old}
    return replace(current, records={k: v for k, v in current.records.items() if k not in forgotten})


def _switch(current: ServiceState, revision: str, wanted: int | None) -> ServiceState:
    """Hand the service's listening socket to a revision."""
    active = current.active
    keeps_port = wanted is None or wanted == current.port
    if keeps_port and active is not None and active != revision and current.alive(active):
        _, (fd, *_) = ask(current.control(active), {"do": "handover"})
    else:
        fd = bind(current.name, wanted if wanted is not None else current.port)
    try:
        answer, _ = ask(current.control(revision), {"do": "accept"}, fds=[fd])
    finally:
        os.close(fd)
    return replace(current, active=revision, port=answer["port"])


def _with_log(current: ServiceState, revision: str, reason: str) -> str:
    path = current.path(revision, "log")
    last = states.tail(path, lines=1)
    # the log's last line most often is the reason already
    seen = f"; its log ends with: {last}" if last and reason.splitlines()[-1] not in last else ""
    return f"{reason}{seen} (log: {path})"


def _with_status(current: ServiceState) -> Manifest:
    revisions = [revision_status(current, record) for record in current.records.values()]
    serves = current.active is not None and current.alive(current.active)
    status = {"url": service_url(current), "active": current.active if serves else None, "revisions": revisions}
    if current.routed is not None and _front(current.name).alive:
        status["routed"] = current.routed["router"]
    return {**current.manifest, "status": status}


def service_url(current: ServiceState) -> str | None:
    """The service's address, None if nothing listens there."""
    if current.routed is not None:
        listens = _front(current.name).alive
    else:
        listens = current.active is not None and current.alive(current.active)
    return f"http://127.0.0.1:{current.port}" if listens and current.port is not None else None


def revision_status(current: ServiceState, record: Record) -> dict[str, Any]:
    """What the object's status says of a revision, as it is now."""
    state, reason = record.state, record.reason
    alive = current.alive(record.revision)
    if not alive and state not in ("failed", "starting"):
        gone = state == "draining"
        state = "stopped"
        reason = "retired" if gone else _with_log(current, record.revision, "the server process has ended")
    return {
        "name": record.revision,
        "state": state,
        "reason": reason,
        "pid": record.pid if alive else None,
        "url": f"http://127.0.0.1:{record.port}" if alive and record.port is not None else None,
        "traffic": service_shares(current).get(record.revision, 0) if alive else 0,
        "since": record.since,
        "log": str(current.path(record.revision, "log")),
    }


def service_shares(current: ServiceState) -> Mapping[str, int]:
    """Percent of the service's requests by revision."""
    if current.routed is None:
        return {} if current.active is None else {current.active: 100}
    shares: Mapping[str, int] = current.routed["router"]["shares"]
    return shares


def _end(current: ServiceState, revision: str) -> None:
    """End a revision's process: asked first, killed if it does not."""
    record = current.records[revision]
    grace = record.manifest["spec"]["drainSeconds"] + KILL_SECONDS
    for signum, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, KILL_SECONDS)):
        # only while it holds its lock the number is surely its own
        if not current.alive(revision):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, signum)
        if current.wait_gone(revision, seconds):
            return
    raise DeployError(f"process {record.pid} of revision {revision} could not be ended")


def _end_all(current: ServiceState) -> None:
    # first what others ask, so that nobody is led to a process that has ended
    _front(current.name).stop(current.manifest["spec"]["drainSeconds"])
    alive = [revision for revision in current.records if current.alive(revision)]
    for revision in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(current.records[revision].pid, signal.SIGTERM)
    for revision in alive:
        _end(current, revision)
