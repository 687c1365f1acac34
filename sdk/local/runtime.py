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
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from longshore.errors import ConfigError, DeployError
from longshore.local import state as states
from longshore.local.front import check_certificate, find_program
from longshore.local.process import KILL_SECONDS, Child, bind
from longshore.local.sharing import certificate_of, front_of, parts, share_out
from longshore.local.state import Record, ServiceState, servers
from longshore.local.status import with_log, with_status
from longshore.serving.control import ask
from longshore.spec import Endpoint
from longshore.targets.base import HEARTBEAT_SECONDS, Manifest, Ref, Selection

__all__ = ["KIND", "LocalRuntime"]

KIND: Final = ("local.longshore.dev/v1alpha1", "ModelServer")
_REMEMBERED: Final = 5


class LocalRuntime:
    """Applies ``ModelServer`` objects as processes; see :class:`longshore.targets.base.Runtime`.

    A revision with traffic 0 runs beside what serves. One with traffic 100 takes the service's socket over as soon as
    it is ready, which :meth:`observe` sees to, and every other revision ends. With a router, the service's address is
    an Nginx in front of the revisions, told who gets what once all servers of those that have a part are ready.
    """

    def __init__(self) -> None:
        self._starting: dict[tuple[str, str], Child] = {}

    def apply(self, objects: Sequence[Manifest]) -> list[Ref]:
        """Start what does not run; raises DeployError or ConfigError if that cannot be."""
        return [self._apply(manifest) for manifest in objects]

    def get(self, ref: Ref) -> Manifest | None:
        """The object with its status as it is now."""
        found = states.load(ref.name) if (ref.api_version, ref.kind) == KIND else None
        return None if found is None else with_status(found)

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
        if spec["router"] is not None:
            # before anything is started for nothing
            find_program()
            if (tls := certificate_of(spec)) is not None:
                check_certificate(tls)
        known = states.load(ref.name)
        current = ServiceState(name=ref.name, manifest=manifest) if known is None else replace(known, manifest=manifest)
        try:
            current = self._ensure(current, manifest)
            for other in parts(spec) - {spec["revision"]}:
                if other in current.records:
                    # what answers the rest has to be there, too, even if a process of it was killed
                    current = self._ensure(current, current.records[other].manifest)
            states.save(current)
        except BaseException:
            # nothing is known of those that were started before one could not be
            self._abandon([ref])
            raise
        return ref

    def _ensure(self, current: ServiceState, manifest: Manifest) -> ServiceState:
        """Start the servers of a revision that do not run."""
        for replica, server in enumerate(servers(manifest), start=1):
            record = current.records.get(server)
            if (current.name, server) not in self._starting:
                if record is None or not current.alive(server):
                    current = self._start(current, manifest, server, replica)
                elif record.state in ("failed", "starting"):
                    # on its way out, or left behind by a deploy that was killed: nobody hears what it says
                    _end(current, server)
                    current = self._start(current, manifest, server, replica)
                elif record.state == "draining":
                    current.wait_gone(server, manifest["spec"]["drainSeconds"] + KILL_SECONDS)
                    current = self._start(current, manifest, server, replica)
            current = current.with_record(server, manifest=manifest)
        return current

    def _start(self, current: ServiceState, manifest: Manifest, server: str, replica: int) -> ServiceState:
        run = os.environ.get("LONGSHORE_RUN")
        if run is not None and run != current.run:
            # noted once a run: what it deploys later in its course is not what served before it
            serves = None if current.active is None else current.records[current.active].manifest
            current = replace(current, run=run, before=serves)
        child = Child(current, manifest, server)
        self._starting[current.name, server] = child
        record = Record(
            revision=manifest["spec"]["revision"],
            replica=replica,
            manifest=manifest,
            state="starting",
            pid=child.pid,
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            run=run,
        )
        # a process that is started anew does not have the public socket of the one that died
        active = None if current.active == server and current.routed is None else current.active
        return _pruned(replace(current, active=active, records={**current.records, server: record}))

    def _hear(self, refs: Sequence[Ref], deadline: float) -> bool:
        """Wait for a word of a starting process; False if none will come in time."""
        children = self._children(refs)
        remaining = deadline - time.monotonic()
        if not children or remaining <= 0:
            return False
        heard, _, _ = select.select(list(children.values()), [], [], min(remaining, HEARTBEAT_SECONDS))
        for name, server in [key for key, child in children.items() if child in heard]:
            self._note(name, server, self._starting.pop((name, server)).outcome())
        return True

    def _children(self, refs: Sequence[Ref]) -> dict[tuple[str, str], Child]:
        names = {ref.name for ref in refs}
        return {key: child for key, child in self._starting.items() if key[0] in names}

    def _note(self, name: str, server: str, message: dict[str, Any]) -> None:
        current = states.load(name)
        if current is None or server not in current.records:
            return
        if message["state"] == "ready":
            states.save(current.with_record(server, state="ready", port=message["port"]))
        else:
            reason = with_log(current, server, message["reason"])
            states.save(current.with_record(server, state="failed", reason=reason))

    def _give_traffic(self, name: str) -> None:
        """Have the revisions serve that shall, once they are ready, and end all others."""
        current = states.load(name)
        if current is None:
            return
        spec = current.manifest["spec"]
        revisions = parts(spec)
        if not revisions or not all(_is_ready(current, revision) for revision in revisions):
            return
        if spec["router"] is not None:
            current = share_out(current)
        elif current.active != spec["revision"] or spec["port"] not in (None, current.port):
            current = _switch(current, spec["revision"], spec["port"])
        # with a router, what was given its part last has it again if the one that is tried out now fails
        revisions |= {spec["revision"], *([] if current.active is None else [current.active])}
        keep = {server for revision in revisions for server in current.servers_of(revision)}
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


def _is_ready(current: ServiceState, revision: str) -> bool:
    """Whether all servers of a revision answer."""
    names = current.servers_of(revision)
    return bool(names) and all(
        server in current.records and current.records[server].state == "ready" and current.alive(server)
        for server in names
    )


def _pruned(current: ServiceState) -> ServiceState:
    """Forget the oldest revisions that have ended, and their logs."""
    records = current.records.values()
    live = {record.revision for record in records if record.state == "starting" or current.alive(record.server)}
    kept = {current.active, *parts(current.manifest["spec"]), *live}
    ended = [record for record in records if record.replica == 1 and record.revision not in kept]
    old = {record.revision for record in sorted(ended, key=lambda record: record.since)[:-_REMEMBERED]}
    forgotten = {server for server, record in current.records.items() if record.revision in old}
    for server in forgotten:
        for path in (current.path(server, "log"), current.path(server, "lock"), current.control(server)):
            path.unlink(missing_ok=True)
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


def _end(current: ServiceState, server: str) -> None:
    """End a server's process: asked first, killed if it does not."""
    record = current.records[server]
    grace = record.manifest["spec"]["drainSeconds"] + KILL_SECONDS
    for signum, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, KILL_SECONDS)):
        # only while it holds its lock the number is surely its own
        if not current.alive(server):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, signum)
        if current.wait_gone(server, seconds):
            return
    raise DeployError(f"process {record.pid} of revision {record.revision} could not be ended")


def _end_all(current: ServiceState) -> None:
    # first what others ask, so that nobody is led to a process that has ended
    front_of(current.name).stop(current.manifest["spec"]["drainSeconds"])
    alive = [server for server in current.records if current.alive(server)]
    for server in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(current.records[server].pid, signal.SIGTERM)
    for server in alive:
        _end(current, server)
