"""The engine: brings a release up, proves that it answers, records it, and restores what served before if it fails.

It knows no platform and no place to run: what to apply and how to read it is known to the
:class:`~longshore.targets.base.Target`, applying and watching to the :class:`~longshore.targets.base.Runtime`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, Protocol, TypeVar

from longshore.errors import DeployError, InvalidValue, LongshoreError
from longshore.spec import Endpoint, HealthState, Release, Service, Traffic, from_plain, to_plain
from longshore.targets.base import (
    MANAGED_BY,
    PREVIOUS_ANNOTATION,
    RELEASE_ANNOTATION,
    REVISION_LABEL,
    Deployable,
    Manifest,
    Need,
    Ref,
    Runtime,
    Target,
)

__all__ = [
    "PATIENCE_SECONDS",
    "Deployment",
    "Probe",
    "Recorder",
    "check_needs",
    "current_release",
    "deploy",
    "marked",
    "noted",
    "preview_of",
    "previous_release",
    "release_in",
    "remove",
    "serving_in",
]

PATIENCE_SECONDS: Final = 30.0
"""How long a release may wait for what it does not bring itself, unless the user says otherwise."""

_R = TypeVar("_R", bound=Deployable)
_R_contra = TypeVar("_R_contra", bound=Deployable, contravariant=True)

Probe = Callable[[Endpoint], None]
"""Asks an endpoint and raises :class:`~longshore.errors.LongshoreError` if the answer is not good."""


@dataclass(frozen=True, kw_only=True)
class Deployment(Generic[_R]):
    """What a deploy has achieved.

    Args:
        release: What serves now: a :class:`~longshore.spec.Release`, or another thing that a target renders.
        endpoint: Where it answers.
        previous: What served before, None if nothing did.
        seconds: Time from the first request to the platform until the last check passed.
    """

    release: _R
    endpoint: Endpoint
    previous: _R | None
    seconds: float


class Recorder(Protocol[_R_contra]):
    """Is told what became of a release; the model registry is one."""

    def serving(self, release: _R_contra, endpoint: Endpoint, previous: _R_contra | None) -> None:
        """``release`` answers all requests that ``previous`` answered; not called for a part of them."""
        ...

    def failed(self, release: _R_contra, serving: _R_contra | None, reason: str) -> None:
        """``release`` did not come up; ``serving`` is what serves, None if nothing does."""
        ...


def deploy(
    release: _R,
    *,
    target: Target[_R],
    runtime: Runtime,
    probe: Probe | None = None,
    recorder: Recorder[_R] | None = None,
    timeout_seconds: float = 600,
    patience_seconds: float = PATIENCE_SECONDS,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Deployment[_R]:
    """Serve ``release`` and return once its very revision has answered.

    Where the platform can run a revision beside the one that serves, the new one is brought up and probed
    without traffic first, and what it replaces ends after its last check only. On any failure, Ctrl-C included, what
    served before is brought back; where nothing did, nothing is left.

    Args:
        release: What shall serve.
        target: The platform.
        runtime: Where its objects come true.
        probe: Called with the endpoint, first at the revision's own address where there is one.
        recorder: Told the outcome.
        timeout_seconds: For each wait until the revision is ready.
        patience_seconds: How long a stalled revision may wait for what the release does not bring, such as a node
            that a cluster adds on demand.
        on_progress: Called with a sentence whenever something new is known.

    Returns:
        The deployment.

    Raises:
        InvalidValue: If the release names something that is not there; nothing has been touched.
        DeployError: If the revision failed, did not become ready in time or did not pass the probe; its
            ``restored`` names the revision that serves again.
    """
    started = time.monotonic()
    check_needs(release, target, runtime, on_progress)
    refs = target.objects(release.service)
    with runtime.lock(refs[0]):
        previous = _current(refs[0], runtime, type(release))
        release = release.next_to(previous)
        attempt = _Attempt(release.service, target, runtime, previous, timeout_seconds, patience_seconds, on_progress)
        # what cannot stand beside what serves is told before anything is touched
        for each in (attempt.candidate(release), release):
            if each is not None:
                target.render(each)
        try:
            endpoint = attempt.run(release, probe)
        except BaseException as error:
            reason = str(error) or type(error).__name__
            told = attempt.give_up(release, refs, reason, recorder)
            if isinstance(error, LongshoreError):
                raise told from error
            raise
        attempt.retire(release)
    if recorder is not None and release.traffic.percent == 100:
        _record(recorder, release, endpoint, previous)
    return Deployment(release=release, endpoint=endpoint, previous=previous, seconds=time.monotonic() - started)


def remove(service: Service, *, target: Target[Any], runtime: Runtime) -> None:
    """Serve a service's models no more, and leave nothing of it; what is gone already is no error."""
    refs = target.objects(service)
    with runtime.lock(refs[0]):
        runtime.delete(_applied(refs, runtime))
        runtime.delete(_outlived(service, target, runtime, keep=()))


def current_release(service: Ref, runtime: Runtime) -> Release | None:
    """The release that was last given traffic there, None if there is none."""
    return _current(service, runtime, Release)


def _current(service: Ref, runtime: Runtime, kind: type[_R]) -> _R | None:
    manifest = runtime.get(service)
    return None if manifest is None else serving_in(manifest, kind)


def serving_in(manifest: Manifest, kind: type[_R]) -> _R | None:
    """The release that an object says is given requests, None if there is none."""
    release = noted(manifest, RELEASE_ANNOTATION, kind)
    if release is not None and release.traffic.percent == 0:
        # a deploy was killed while it tried this one out: it never served
        return noted(manifest, PREVIOUS_ANNOTATION, kind)
    return release


def previous_release(service: Ref, runtime: Runtime) -> Release | None:
    """The release that the current one replaced, None if there was none: deploying it is a rollback."""
    return _annotated(service, runtime, PREVIOUS_ANNOTATION, Release)


def _annotated(service: Ref, runtime: Runtime, annotation: str, kind: type[_R]) -> _R | None:
    manifest = runtime.get(service)
    return None if manifest is None else noted(manifest, annotation, kind)


def release_in(manifest: Manifest, annotation: str = RELEASE_ANNOTATION) -> Release | None:
    """The release that an object was made for, None if no engine made it."""
    return noted(manifest, annotation, Release)


def noted(manifest: Manifest, annotation: str, kind: type[_R]) -> _R | None:
    """What an annotation of an object says of a release, None if it is not there."""
    text = (manifest["metadata"].get("annotations") or {}).get(annotation)
    return None if text is None else from_plain(kind, json.loads(text))


def preview_of(release: _R, before: _R | None) -> _R:
    """The release without requests: what serves now answers them as it does."""
    traffic = Traffic(percent=0)
    if before is not None:
        others = before.traffic.others
        traffic = replace(traffic, rest={**others, before.revision: before.traffic.percent if others else 100})
    return replace(release, traffic=traffic, beside=()).next_to(before)


def check_needs(release: _R, target: Target[_R], runtime: Runtime, on_progress: Callable[[str], None]) -> None:
    """Refuse a release that names what is not there: its pods would only wait for it.

    Raises:
        InvalidValue: Naming the field.
    """
    for field, need in target.needs(release).items():
        look = need if isinstance(need, Ref) else need.look
        complaint = _complaint(need, runtime)
        if complaint is None:
            on_progress(f"{release.revision}: {look} may not be looked for: whether it is there, its pods will say")
        elif complaint:
            raise InvalidValue(field, need.name if isinstance(need, Ref) else need.value, complaint)


def _complaint(need: Ref | Need, runtime: Runtime) -> str | None:
    """What is wrong, empty if nothing is; None if this process may not know."""
    if isinstance(need, Need):
        found = runtime.look(need.look)
        return None if found is None else need.complaint(found) or ""
    there = runtime.exists(need)
    missing = f"there is no {need.kind} of this name in the namespace {need.namespace}"
    return None if there is None else "" if there else missing


def _applied(refs: Sequence[Ref], runtime: Runtime) -> list[Ref]:
    """Those of the objects that are there and longshore has applied: others may have the same name."""
    found = []
    for ref in refs:
        manifest = runtime.get(ref)
        labels = {} if manifest is None else manifest["metadata"].get("labels") or {}
        if labels.items() >= MANAGED_BY.items():
            found.append(ref)
    return found


def _outlived(service: Service, target: Target[Any], runtime: Runtime, keep: Collection[str | None]) -> list[Ref]:
    """Objects of revisions that nobody asks any more; what a platform has made of one goes with it."""
    return [ref for ref, revision in _of_revisions(service, target, runtime) if revision not in keep]


def _of_revisions(service: Service, target: Target[Any], runtime: Runtime) -> Iterator[tuple[Ref, str]]:
    """The objects that revisions have of their own, and whose they are."""
    for manifest in (manifest for selection in target.revisions(service) for manifest in runtime.find(selection)):
        metadata = manifest["metadata"]
        revision = (metadata.get("labels") or {}).get(REVISION_LABEL)
        if revision is not None and not metadata.get("ownerReferences"):
            yield Ref.of(manifest), revision


@dataclass(frozen=True)
class _Attempt(Generic[_R]):
    """One deploy under way: what it may fall back on."""

    service: Service
    target: Target[_R]
    runtime: Runtime
    previous: _R | None
    timeout_seconds: float
    patience_seconds: float
    on_progress: Callable[[str], None]

    def candidate(self, release: _R) -> _R | None:
        """The release without requests, to be tried out first; None where that is not possible or it serves already."""
        before, traffic = self.previous, release.traffic
        serves = before is not None and release.revision in (before.revision, *before.traffic.others)
        if serves or not self.target.previews(self.service) or not (traffic.percent or traffic.mirror_percent):
            return None
        return preview_of(release, before)

    def run(self, release: _R, probe: Probe | None) -> Endpoint:
        """Bring the release up, first without traffic where that is possible, and probe it."""
        before = self.previous
        if before is not None and before.traffic.base == release.revision and not self.target.revisions(self.service):
            # what is taken back gets nothing any more while the platform starts what served before once again
            self.bring_up(replace(before, traffic=Traffic(percent=0, base=before.traffic.base)))
        if (candidate := self.candidate(release)) is not None:
            self._probe(probe, self.bring_up(candidate).at_revision())
        endpoint = self.bring_up(release)
        if release.traffic.percent == 100:
            self._probe(probe, endpoint)
        elif endpoint.revision_url is not None:
            # the service's own address is answered by another revision, too
            self._probe(probe, endpoint.at_revision())
        # what served before keeps all it has until here
        return self.bring_up(release) if self.drop_unwanted(release) else endpoint

    def _probe(self, probe: Probe | None, endpoint: Endpoint) -> None:
        if probe is not None:
            with self.runtime.reach(endpoint) as reachable:
                probe(reachable)

    def bring_up(self, release: _R) -> Endpoint:
        """Apply and wait; raises DeployError with the platform's reason."""
        refs = self.runtime.apply(marked(self.target.render(release), release, self._replaces(release)))
        last, stalled_since = "nothing was observed yet", None
        deadline = time.monotonic() + self.timeout_seconds
        for observed in self.runtime.observe(refs, also=self.target.children(release), deadline=deadline):
            health = self.target.health(release, observed)
            if health.state is HealthState.READY:
                return self.target.endpoint(release, observed)
            if health.state is HealthState.FAILED:
                raise DeployError(health.why)
            now = time.monotonic()
            stalled_since = (stalled_since or now) if health.state is HealthState.STALLED else None
            if stalled_since is not None and now - stalled_since >= self.patience_seconds:
                raise DeployError(f"{health.why} (nothing changed for {self.patience_seconds:g} s)")
            if health.why != last:
                last = health.why
                self.on_progress(f"{release.revision}: {last}")
        raise DeployError(f"not ready after {self.timeout_seconds:g} s: {last}")

    def drop_unwanted(self, release: _R) -> bool:
        """Delete what a release before had and this one does not have; return whether there was any."""
        wanted = {Ref.of(manifest) for manifest in self.target.render(release)}
        # which kinds there may be depends on what a service asks for
        services = [release.service, self.service, *([] if self.previous is None else [self.previous.service])]
        named = dict.fromkeys(ref for service in services for ref in self.target.objects(service))
        others = [ref for ref in named if ref not in wanted]
        gone = _applied(others, self.runtime)
        gone += [
            ref
            for ref, revision in _of_revisions(self.service, self.target, self.runtime)
            if revision == release.revision and ref not in wanted
        ]
        if gone:
            self.on_progress(f"{release.revision}: {', '.join(map(str, gone))}: no longer wanted")
            self.runtime.delete(gone)
        return bool(gone)

    def _replaces(self, release: _R) -> _R | None:
        if self.previous is None or self.previous.revision != release.revision:
            return self.previous
        # deploying once more what serves already must not forget what came before it
        first = self.target.objects(release.service)[0]
        return _annotated(first, self.runtime, PREVIOUS_ANNOTATION, type(release))

    def give_up(self, release: _R, refs: list[Ref], reason: str, recorder: Recorder[_R] | None) -> DeployError:
        """Bring back what served before and return what to tell the user."""
        complaint = self._restore(release, refs)
        serving = None if complaint else self.previous
        message = f"{release.service.name}: revision {release.revision} was not deployed: {reason}"
        if complaint:
            message += f". What served before could not be restored: {complaint}"
        elif serving is None:
            message += ". Nothing served before, and nothing was left behind"
        else:
            message += f". Revision {serving.revision} serves as before"
        if recorder is not None:
            try:
                recorder.failed(release, serving, reason)
            except LongshoreError as error:
                message += f". The failure could not be recorded: {error}"
        return DeployError(message, restored=serving.revision if serving else None)

    def retire(self, serves: _R | None) -> None:
        """End the revisions that have no part any more."""
        keep = () if serves is None else (serves.revision, *serves.traffic.others)
        try:
            if gone := _outlived(self.service, self.target, self.runtime, keep):
                self.on_progress(f"ending {', '.join(map(str, gone))}")
                self.runtime.delete(gone)
        except LongshoreError as error:
            # it answers nobody, and the next deploy tries again
            self.on_progress(f"a revision that serves no more could not be ended: {error}")

    def _restore(self, release: _R, refs: list[Ref]) -> str | None:
        """Return why restoring failed, None if it did not."""
        try:
            if self.previous is None:
                self.runtime.delete(_applied(refs, self.runtime))
            elif self.previous != release and self.previous == _annotated(
                refs[0], self.runtime, RELEASE_ANNOTATION, type(release)
            ):
                # refused before it was tried: what serves was not touched, only what stands beside it may have been
                self.drop_unwanted(self.previous)
                if others := marked(self.target.render(self.previous), self.previous, None)[1:]:
                    self.runtime.apply(others)
            elif self.previous == release:
                return "the failing revision is the one that served before"
            else:
                self.on_progress(f"{self.previous.revision}: restoring what served before")
                # an autoscaler that came with what failed must not have a say any more
                self.drop_unwanted(self.previous)
                self.bring_up(self.previous)
            self.retire(self.previous)
        except LongshoreError as error:
            return str(error)
        return None


def _record(recorder: Recorder[_R], release: _R, endpoint: Endpoint, previous: _R | None) -> None:
    try:
        recorder.serving(release, endpoint, previous)
    except LongshoreError as error:
        raise DeployError(
            f"revision {release.revision} serves at {endpoint.url}, but this could not be recorded: {error}. "
            "Run the step again once that is mended: it changes nothing that serves"
        ) from error


def marked(manifests: list[Manifest], release: Deployable, previous: Deployable | None) -> list[Manifest]:
    """The objects with longshore's label, and on the first of them what it serves and what it served before."""
    first, *others = [_with(manifest, "labels", MANAGED_BY) for manifest in manifests]
    annotations = {RELEASE_ANNOTATION: _dump(release)}
    if previous is not None:
        annotations[PREVIOUS_ANNOTATION] = _dump(previous)
    return [_with(first, "annotations", annotations), *others]


def _with(manifest: Manifest, field: str, entries: Mapping[str, str]) -> Manifest:
    metadata = {**manifest["metadata"], field: {**manifest["metadata"].get(field, {}), **entries}}
    return {**manifest, "metadata": metadata}


def _dump(release: Deployable) -> str:
    return json.dumps(to_plain(release), sort_keys=True, separators=(",", ":"))
