"""The engine for many services: brings all up, and takes back what fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from longshore.errors import ConfigError, InvalidValue, LongshoreError, RegistryError
from longshore.fleet.waiting import Known, Seen, Wait
from longshore.release import PATIENCE_SECONDS, Recorder, check_needs, marked, noted, preview_of, serving_in
from longshore.spec import HealthState, Release
from longshore.targets.base import (
    PREVIOUS_ANNOTATION,
    REVISION_LABEL,
    SERVICE_LABEL,
    Manifest,
    Ref,
    Runtime,
    Selection,
    Target,
)

__all__ = ["FleetReport", "FleetRuntime", "check_fleet", "deploy_fleet"]

_SHOWN: Final = 5


@dataclass(frozen=True, kw_only=True)
class FleetReport:
    """What came of a fleet, by ``NAMESPACE/NAME`` of its services.

    Args:
        deployed: Those that serve a new release.
        unchanged: Those that served it already.
        failed: Why the others do not; they serve what they served before.
        unrecorded: Why the registry does not know of some that were deployed.
        seconds: Time from the first request until all were done.
    """

    deployed: Sequence[str]
    unchanged: Sequence[str]
    failed: Mapping[str, str] = field(default_factory=dict)
    unrecorded: Mapping[str, str] = field(default_factory=dict)
    seconds: float


class FleetRuntime(Runtime, Protocol):
    """A place where many objects come true at once; :class:`longshore.cluster.ClusterRuntime` is one."""

    def apply_each(self, objects: Sequence[Manifest]) -> Mapping[Ref, LongshoreError]:
        """Make the objects desired, and return what was refused, and why."""
        ...

    def lock_all(self, refs: Sequence[Ref]) -> AbstractContextManager[None]:
        """Keep other deployments of all these objects out."""
        ...


def deploy_fleet(
    releases: Sequence[Release],
    *,
    target: Target[Release],
    runtime: FleetRuntime,
    recorder: Recorder[Release] | None = None,
    timeout_seconds: float = 600,
    patience_seconds: float = PATIENCE_SECONDS,
    on_progress: Callable[[str], None] = lambda _: None,
) -> FleetReport:
    """Serve releases of different services, each with all of its service's requests.

    New revisions come up without requests first; those that are up get them; what they replace ends then. A service
    that nothing served yet is brought up at once.

    Args:
        releases: The releases.
        target: The platform; its revisions run beside each other.
        runtime: Where their objects come true.
        recorder: Told the outcome of those with a version.
        timeout_seconds: For each of the two waits.
        patience_seconds: How long a stalled revision may wait for what the release does not bring.
        on_progress: Called with a sentence whenever something new is known.

    Returns:
        The outcome of each service.

    Raises:
        ConfigError: If a release cannot be carried out as written, or needs what is not there; nothing has been done.
    """
    started = time.monotonic()
    check_fleet(releases, target)
    bearers = {_key(release): target.objects(release.service)[0] for release in releases}
    with runtime.lock_all(list(bearers.values())):
        fleet = _Fleet(releases, bearers, target, runtime, timeout_seconds, patience_seconds, on_progress)
        report = fleet.run()
    unrecorded = {} if recorder is None else fleet.record(recorder, report)
    return replace(report, unrecorded=unrecorded, seconds=time.monotonic() - started)


class _Fleet:
    """A fleet under way."""

    def __init__(
        self,
        releases: Sequence[Release],
        bearers: Mapping[str, Ref],
        target: Target[Release],
        runtime: FleetRuntime,
        timeout_seconds: float,
        patience_seconds: float,
        on_progress: Callable[[str], None],
    ) -> None:
        self._releases = {_key(release): release for release in releases}
        self._bearers, self._target, self._runtime = bearers, target, runtime
        self._timeout, self._patience, self._tell = timeout_seconds, patience_seconds, on_progress
        self._found = self._listed()
        self._before = {
            key: None if (found := self._found.get(ref)) is None else serving_in(found, Release)
            for key, ref in bearers.items()
        }
        self._failed: dict[str, str] = {}

    def run(self) -> FleetReport:
        """Bring all up; see :func:`deploy_fleet`."""
        self._check_needs()
        unchanged = {key for key, release in self._releases.items() if self._before[key] == release}
        beside = {
            key: preview_of(release, before)
            for key, release in self._releases.items()
            if (before := self._before[key]) is not None and release.revision not in _running(before)
        }
        at_once = {key: release for key, release in self._releases.items() if key not in beside}
        previews = [m for key, release in beside.items() for m in self._of_revision(release)]
        self._apply([*previews, *(m for release in at_once.values() for m in self._whole(release))])
        self._await({**beside, **at_once}, "up")
        up = {key: self._releases[key] for key in beside if key not in self._failed}
        self._apply([m for release in up.values() for m in self._whole(release)])
        self._await(up, "given the requests")
        self._take_back()
        self._end_others()
        done = [key for key in self._releases if key not in self._failed]
        return FleetReport(
            deployed=[key for key in done if key not in unchanged],
            unchanged=[key for key in done if key in unchanged],
            failed=self._failed,
            seconds=0.0,
        )

    def record(self, recorder: Recorder[Release], report: FleetReport) -> dict[str, str]:
        """Tell the registry; returns why it could not be told of some."""
        missed = {}
        for key in (*report.deployed, *report.failed):
            release, before = self._releases[key], self._before[key]
            if release.model.version is None:
                continue
            try:
                if key in report.failed:
                    recorder.failed(release, before, report.failed[key])
                else:
                    recorder.serving(release, self._target.endpoint(release, []), before)
            except RegistryError as error:
                missed[key] = str(error)
        return missed

    def _listed(self) -> dict[Ref, Manifest]:
        """What bears the releases now."""
        kinds = {(ref.api_version, ref.kind, ref.namespace) for ref in self._bearers.values()}
        selections = [Selection(api_version, kind, namespace or "") for api_version, kind, namespace in kinds]
        return {Ref.of(m): m for selection in selections for m in self._runtime.find(selection)}

    def _check_needs(self) -> None:
        known = Known(self._runtime, self._found, {(ref.api_version, ref.kind) for ref in self._bearers.values()})
        wrong = []
        for key, release in self._releases.items():
            try:
                check_needs(release, self._target, known, lambda _: None)
            except InvalidValue as error:
                wrong.append(f"{key}: {error}")
        if wrong:
            more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
            raise ConfigError(f"nothing was deployed: {'; '.join(wrong[:_SHOWN])}{more}")

    def _whole(self, release: Release) -> list[Manifest]:
        return marked(self._target.render(release), release, self._replaces(release))

    def _replaces(self, release: Release) -> Release | None:
        key = _key(release)
        before = self._before[key]
        if before is None or before.revision != release.revision:
            return before
        return noted(self._found[self._bearers[key]], PREVIOUS_ANNOTATION, Release)

    def _of_revision(self, release: Release) -> list[Manifest]:
        """What the revision has of its own, and not the object that shares requests out."""
        bearer = self._bearers[_key(release)]
        return [m for m in marked(self._target.render(release), release, None) if Ref.of(m) != bearer]

    def _apply(self, objects: Sequence[Manifest]) -> None:
        services = {Ref.of(m): f"{m['metadata'].get('namespace')}/{_service_of(m)}" for m in objects}
        for ref, error in self._runtime.apply_each(objects).items():
            self._failed.setdefault(services[ref], str(error))

    def _await(self, wanted: Mapping[str, Release], what: str) -> None:
        waiting = {key: release for key, release in wanted.items() if key not in self._failed}
        if not waiting:
            return
        waits = {key: Wait(release, self._target) for key, release in waiting.items()}
        also = {
            (one.api_version, one.kind, one.namespace, *sorted(one.labels.items())): one
            for wait in waits.values()
            for one in wait.children
        }
        refs = [ref for wait in waits.values() for ref in wait.refs]
        deadline, told = time.monotonic() + self._timeout, len(waits)
        for seen in self._runtime.observe(refs, also=list(also.values()), deadline=deadline):
            objects = Seen(seen, refs)
            for key in [*waits]:
                health = waits[key].look(objects)
                why = waits[key].verdict(self._patience)
                if health.state is HealthState.READY:
                    del waits[key]
                elif why is not None:
                    self._failed[key] = why
                    del waits[key]
            if not waits:
                return
            if told - len(waits) >= max(1, len(waiting) // 10):
                told = len(waits)
                self._tell(f"{len(waiting) - told} of {len(waiting)} are {what}, {told} to go: {_some(waits)}")
        for key, wait in waits.items():
            self._failed[key] = f"not ready after {self._timeout:g} s: {wait.health.why}"

    def _take_back(self) -> None:
        """Have what failed as it was before."""
        failed = {key: self._before[key] for key in self._failed if self._before[key] != self._releases[key]}
        if not failed:
            return
        self._tell(f"{len(failed)} failed and stay as they were: {_some({key: self._failed[key] for key in failed})}")
        objects = [m for before in failed.values() if before is not None for m in self._as_it_was(before)]
        for error in self._runtime.apply_each(objects).values():
            self._tell(f"what served before could not be restored: {error}")
        self._delete([self._bearers[key] for key, before in failed.items() if before is None])

    def _as_it_was(self, release: Release) -> list[Manifest]:
        earlier = noted(self._found[self._bearers[_key(release)]], PREVIOUS_ANNOTATION, Release)
        return marked(self._target.render(release), release, earlier)

    def _end_others(self) -> None:
        """End the revisions that have no part any more."""
        keep = {key: self._before[key] if key in self._failed else release for key, release in self._releases.items()}
        kept = {key: () if one is None else _running(one) for key, one in keep.items()}
        selections = {
            (one.api_version, one.kind, one.namespace): replace(one, labels={})
            for release in self._releases.values()
            for one in self._target.revisions(release.service)
        }
        gone = []
        for manifest in (m for selection in selections.values() for m in self._runtime.find(selection)):
            metadata = manifest["metadata"]
            labels = metadata.get("labels") or {}
            key, revision = f"{metadata.get('namespace')}/{labels.get(SERVICE_LABEL)}", labels.get(REVISION_LABEL)
            if key in kept and revision is not None and revision not in kept[key] and "ownerReferences" not in metadata:
                gone.append(Ref.of(manifest))
        self._delete(gone)

    def _delete(self, refs: Sequence[Ref]) -> None:
        if refs:
            self._tell(f"ending {len(refs)} objects that serve no more")
        try:
            self._runtime.delete(refs)
        except LongshoreError as error:
            # they answer nobody, and the next deploy tries again
            self._tell(f"some that serve no more could not be ended: {error}")


def check_fleet(releases: Sequence[Release], target: Target[Release]) -> None:
    """Refuse what cannot be deployed together.

    Raises:
        ConfigError: Naming the service or the field.
    """
    known = set()
    for release in releases:
        key, service = _key(release), release.service
        if key in known:
            raise InvalidValue("Service.name", service.name, "two services of the fleet have this name")
        known.add(key)
        if release.traffic.percent != 100:
            raise InvalidValue("Traffic.percent", release.traffic.percent, "in a fleet each release gets all requests")
        if service.router is not None or not (target.previews(service) and target.revisions(service)):
            raise ConfigError(
                f"{key}: on this platform a revision replaces the one before in place: deploy its services one by one"
            )
        # what the platform cannot do is told before anything is asked of it
        target.render(release)


def _key(release: Release) -> str:
    return f"{release.service.namespace}/{release.service.name}"


def _running(release: Release) -> tuple[str, ...]:
    return (release.revision, *release.traffic.others)


def _service_of(manifest: Manifest) -> str | None:
    name: str | None = (manifest["metadata"].get("labels") or {}).get(SERVICE_LABEL)
    return name


def _some(told: Mapping[str, Any]) -> str:
    shown = [f"{key}: {one.health.why if isinstance(one, Wait) else one}" for key, one in list(told.items())[:1]]
    return "; ".join(shown)
