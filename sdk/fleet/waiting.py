"""Waiting for many releases at once, and asking once what many of them need."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from longshore.spec import Health, HealthState, Release
from longshore.targets.base import Manifest, Ref, Runtime, Selection, Target

__all__ = ["Known", "Seen", "Wait"]


class Wait:
    """One release that is waited for."""

    def __init__(self, release: Release, target: Target[Release]) -> None:
        self._release, self._target = release, target
        self.refs = [Ref.of(manifest) for manifest in target.render(release)]
        self.children = target.children(release)
        self.health = Health.progressing("nothing was observed yet")
        self._stamp: object = None
        self._stalled: float | None = None

    def look(self, seen: Seen) -> Health:
        """The verdict, worked out anew where something has changed."""
        own = [seen.by_ref[ref] for ref in self.refs if ref in seen.by_ref]
        beside = [m for m in seen.others if any(_selects(one, m) for one in self.children)]
        stamp = [m["metadata"].get("resourceVersion") for m in (*own, *beside)]
        if stamp != self._stamp:
            self._stamp = stamp
            self.health = self._target.health(self._release, [*own, *beside])
            if self.health.state is not HealthState.STALLED:
                self._stalled = None
        return self.health

    def verdict(self, patience_seconds: float) -> str | None:
        """Why it is given up, None if it is not."""
        if self.health.state is HealthState.FAILED:
            return self.health.why
        if self.health.state is not HealthState.STALLED:
            return None
        self._stalled = self._stalled or time.monotonic()
        if time.monotonic() - self._stalled < patience_seconds:
            return None
        return f"{self.health.why} (nothing changed for {patience_seconds:g} s)"


class Seen:
    """What was observed, by identity; what was not asked for by name apart."""

    def __init__(self, manifests: Sequence[Manifest], refs: Sequence[Ref]) -> None:
        wanted = set(refs)
        self.by_ref: dict[Ref, Manifest] = {}
        self.others: list[Manifest] = []
        for manifest in manifests:
            ref = Ref.of(manifest)
            if ref in wanted:
                self.by_ref[ref] = manifest
            else:
                self.others.append(manifest)


class Known:
    """A runtime that is asked once for what many services need."""

    def __init__(self, runtime: Runtime, found: Mapping[Ref, Manifest], kinds: set[tuple[str, str]]) -> None:
        self._runtime, self._found, self._kinds = runtime, found, kinds
        self._answers: dict[object, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def exists(self, ref: Ref) -> bool | None:
        """As the runtime."""
        there: bool | None = self._once(("exists", ref), lambda: self._runtime.exists(ref))
        return there

    def look(self, what: Ref | Selection) -> Sequence[Manifest] | None:
        """As the runtime; what bears releases is known."""
        if isinstance(what, Ref) and (what.api_version, what.kind) in self._kinds:
            return [self._found[what]] if what in self._found else []
        question = (what, "") if isinstance(what, Ref) else (what.api_version, what.kind, what.namespace)
        found: Sequence[Manifest] | None = self._once(question, lambda: self._runtime.look(what))
        return found

    def _once(self, question: object, ask: Callable[[], Any]) -> Any:
        if question not in self._answers:
            self._answers[question] = ask()
        return self._answers[question]


def _selects(selection: Selection, manifest: Manifest) -> bool:
    labels = manifest["metadata"].get("labels") or {}
    same = (selection.api_version, selection.kind) == (manifest["apiVersion"], manifest["kind"])
    return same and labels.items() >= selection.labels.items() and _place(manifest) == selection.namespace


def _place(manifest: Manifest) -> str | None:
    place: str | None = manifest["metadata"].get("namespace")
    return place
