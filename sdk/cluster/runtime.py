"""Kubernetes as a place where objects come true: the runtime behind every target but ``local``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Final, TypeVar

from longshore.cluster.compare import MANAGER, prepared, unchanged
from longshore.cluster.forward import forwarded
from longshore.cluster.lease import held, held_for_all
from longshore.cluster.logs import LastWords
from longshore.cluster.refusals import together
from longshore.cluster.replicas import KEEPER, kept, least, scaled, takeable
from longshore.cluster.session import APPLY, METADATA, Resource, Session, in_pod
from longshore.cluster.watch import Changes, Query, Watch, list_all
from longshore.errors import ClusterError, LongshoreError
from longshore.spec import Endpoint
from longshore.targets.base import HEARTBEAT_SECONDS, MANAGED_BY, UNSEEN_ANNOTATION, Manifest, Ref, Selection

__all__ = ["ClusterRuntime"]

_T = TypeVar("_T")

# an API server mostly waits for its store, which commits what comes at the same time together
_WRITERS: Final = 24
_ONE_BY_ONE: Final = 3
_GONE_SECONDS: Final = 120.0
_LOCK_SECONDS: Final = 600.0
_SHOWN: Final = 5
_FLEET: Final = "longshore-fleet"
_AUTOSCALERS, _AUTOSCALER = "autoscaling/v2", "HorizontalPodAutoscaler"
# what an object is called and who made it, without what it holds
_METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class ClusterRuntime:
    """Applies objects to a cluster; see :class:`longshore.targets.base.Runtime`.

    Args:
        session: The cluster; by default the one at hand (:meth:`Session.default`).
        force: Take over fields that belong to another field manager; without it that is a conflict.
        writers: How many objects are written at the same time.
    """

    def __init__(self, session: Session | None = None, *, force: bool = False, writers: int = _WRITERS) -> None:
        self.session = session or Session.default()
        self._force = force
        self._writers = writers
        self._generations: dict[Ref, int] = {}
        self._unseen: dict[Ref, str] = {}

    def apply(self, objects: Sequence[Manifest], *, dry_run: bool = False) -> list[Ref]:
        """Apply objects on the server's side, several at a time; what is as wanted already is not written.

        Args:
            objects: What is wanted.
            dry_run: Have the server check and default everything, webhooks included, and keep nothing.

        Returns:
            The objects' identities, in the order of ``objects``.

        Raises:
            ClusterError: If an object was refused; all others have been applied, and the message has all refusals.
        """
        refs, refused = self._apply(objects, dry_run=dry_run)
        if refused:
            raise together(list(refused.values()), len(objects))
        return refs

    def apply_each(self, objects: Sequence[Manifest]) -> Mapping[Ref, LongshoreError]:
        """Apply objects as :meth:`apply`, and return what was refused, and why, in place of raising it."""
        return self._apply(objects, dry_run=False)[1]

    def _apply(self, objects: Sequence[Manifest], *, dry_run: bool) -> tuple[list[Ref], dict[Ref, LongshoreError]]:
        resources = {(m["apiVersion"], m["kind"]): self._resource(m["apiVersion"], m["kind"]) for m in objects}
        wanted = [self._prepared(manifest, resources) for manifest in objects]
        refs = [Ref.of(manifest) for manifest in wanted]
        changing = scaled(manifest for manifest in wanted if manifest["kind"] == _AUTOSCALER)
        scalable = [ref for ref in refs if ref in changing]
        if not dry_run:
            self._hand_over(scalable, changing)
        same = self._unchanged(wanted, resources)

        def write(manifest: Manifest) -> None:
            try:
                self._write(manifest, MANAGER, dry_run=dry_run)
            except ClusterError as error:
                if error.reason != "Conflict":
                    raise
                if not dry_run and self._settle_number(manifest, resources):
                    return
                if not self._force:
                    raise
                self._write(manifest, MANAGER, force=True, dry_run=dry_run)

        refused = self._each([m for m, ref in zip(wanted, refs, strict=True) if ref not in same], write)
        if not dry_run:
            # what was made just now
            self._hand_over(scalable, changing)
        return refs, {Ref.of(manifest): error for manifest, error in refused}

    def get(self, ref: Ref) -> Manifest | None:
        """The object, None if there is none."""
        try:
            return self.session.request("GET", self._path(ref), str(ref))
        except ClusterError as error:
            if error.reason == "NotFound":
                return None
            raise

    def exists(self, ref: Ref) -> bool | None:
        """Whether there is such an object, None if the cluster does not let this user know; its content stays there."""
        try:
            self.session.request("GET", self._path(ref), str(ref), accept=METADATA)
        except ClusterError as error:
            if error.reason == "Forbidden":
                return None
            if error.reason == "NotFound":
                return False
            raise
        return True

    def look(self, what: Ref | Selection) -> Sequence[Manifest] | None:
        """What there is, whoever made it; None if the cluster does not let this user know."""
        try:
            if isinstance(what, Ref):
                found = self.get(what)
                return () if found is None else (found,)
            query = Query(self._resource(what.api_version, what.kind), what.namespace, _selector(what.labels))
            return list(list_all(self.session, query, lambda _: True)[0].values())
        except ClusterError as error:
            if error.reason == "Forbidden":
                return None
            raise

    def observe(
        self, refs: Sequence[Ref], *, also: Sequence[Selection] = (), deadline: float
    ) -> Iterator[Sequence[Manifest]]:
        """Yield the objects and those selected beside them; one watch for all objects of a kind in a namespace."""
        changes = Changes()
        words = LastWords(self.session)
        watches = [Watch(self.session, query, changes, wanted) for query, wanted in self._queries(refs, also)]
        try:
            for watch in watches:
                watch.start()
            while True:
                changes.wait(min(HEARTBEAT_SECONDS, deadline - time.monotonic()))
                with changes.lock:
                    failure = next((watch.failure for watch in watches if watch.failure is not None), None)
                    ready = all(watch.listed for watch in watches)
                    seen = _in_order(refs, watches) if ready else []
                if failure is not None:
                    raise failure
                if ready:
                    yield [self._marked(words.of(manifest)) for manifest in seen]
                if time.monotonic() >= deadline:
                    return
        finally:
            for watch in watches:
                watch.stop()
            for watch in watches:
                watch.join()

    def find(self, selection: Selection) -> Sequence[Manifest]:
        """The objects of a selection that longshore has applied."""
        resource = self._resource(selection.api_version, selection.kind)
        query = Query(resource, selection.namespace, _selector({**MANAGED_BY, **selection.labels}))
        objects, _ = list_all(self.session, query, lambda _: True)
        return list(objects.values())

    def delete(self, refs: Sequence[Ref]) -> None:
        """Delete objects, have the cluster collect what they own, and return when the objects are gone.

        Raises:
            ClusterError: If one cannot be deleted, or is still there after two minutes; says what holds it.
        """
        if not refs:
            return

        def remove(ref: Ref) -> None:
            body = {"propagationPolicy": "Background"}
            try:
                self.session.request("DELETE", self._path(ref), str(ref), body=body)
            except ClusterError as error:
                if error.reason != "NotFound":
                    raise

        if refused := self._each(refs, remove):
            raise together([error for _, error in refused], len(refs))
        left: Sequence[Manifest] = ()
        for left in self.observe(refs, deadline=time.monotonic() + _GONE_SECONDS):
            if not left:
                return
        raise ClusterError(_still_there(left), "Timeout")

    def delete_labelled(self, kinds: Iterable[tuple[str, str]], namespace: str, labels: Mapping[str, str]) -> list[Ref]:
        """Delete what longshore has applied, by labels; returns what was there.

        Args:
            kinds: apiVersion and kind of what to look for.
            namespace: Where.
            labels: Labels beside longshore's own.
        """
        selections = (Selection(api_version, kind, namespace, labels) for api_version, kind in kinds)
        found = [Ref.of(manifest) for selection in selections for manifest in self.find(selection)]
        self.delete(found)
        return found

    @contextmanager
    def lock(self, ref: Ref) -> Iterator[None]:
        """A ``Lease`` beside the object, named after it."""
        namespace = ref.namespace or self.session.namespace
        with held(self.session, namespace, _lease(ref), _LOCK_SECONDS, unless=_FLEET):
            yield

    @contextmanager
    def lock_all(self, refs: Sequence[Ref]) -> Iterator[None]:
        """Keep other deployments of all these objects out: one ``Lease`` in each of their namespaces."""
        groups: dict[str, set[str]] = {}
        for ref in refs:
            groups.setdefault(ref.namespace or self.session.namespace, set()).add(_lease(ref))
        with ExitStack() as leases:
            # always in the same order, so that no two wait for each other
            for namespace, names in sorted(groups.items()):
                leases.enter_context(held_for_all(self.session, namespace, _FLEET, names, _LOCK_SECONDS))
            yield

    def reach(self, endpoint: Endpoint) -> AbstractContextManager[Endpoint]:
        """The endpoint itself in a pod; elsewhere, one on loopback that is forwarded to a pod behind it."""
        return nullcontext(endpoint) if in_pod() else forwarded(self.session, endpoint)

    def _write(self, manifest: Manifest, manager: str, *, force: bool = False, dry_run: bool = False) -> None:
        query = {"fieldManager": manager, "force": str(force).lower(), **({"dryRun": "All"} if dry_run else {})}
        ref = Ref.of(manifest)
        answer = self.session.request(
            "PATCH", self._path(ref), str(ref), query=query, body=manifest, content_type=APPLY
        )
        metadata = answer["metadata"]
        generation = metadata.get("generation", 0)
        if not dry_run:
            # what is new has no status that could be taken for its own
            if self._generations.setdefault(ref, generation) != generation:
                self._unseen[ref] = metadata["resourceVersion"]
            self._generations[ref] = generation

    def _marked(self, manifest: Manifest) -> Manifest:
        """The object; one that nobody has written into since this runtime changed it, as a copy that says so."""
        metadata = manifest["metadata"]
        if self._unseen.get(Ref.of(manifest)) != metadata["resourceVersion"]:
            return manifest
        annotations = {**(metadata.get("annotations") or {}), UNSEEN_ANNOTATION: "true"}
        return {**manifest, "metadata": {**metadata, "annotations": annotations}}

    def _hand_over(self, refs: Sequence[Ref], fewest: Mapping[Ref, int]) -> None:
        """Have the number of replicas of what is scaled held by :data:`KEEPER`, where nobody else holds it."""
        for ref in refs:
            live = self.get(ref)
            number = None if live is None else kept(live, fewest[ref])
            if live is None or number is None:
                continue
            try:
                self._write(least(live, number), KEEPER)
            except ClusterError as error:
                # somebody else holds it by now, and it is theirs
                if error.reason != "Conflict":
                    raise

    def _settle_number(self, manifest: Manifest, resources: Mapping[tuple[str, str], Resource]) -> bool:
        """Apply an object whose number of replicas an autoscaler of longshore's has set.

        As long as the autoscaler is there, the number is left to it.

        Returns:
            Whether the object was applied; otherwise the number is somebody else's.
        """
        number = (manifest.get("spec") or {}).get("replicas")
        live = None if number is None else self.get(Ref.of(manifest))
        if number is None or live is None or not takeable(live):
            return False
        others = self._autoscaled(live)
        if others is None:
            return False
        spec = {key: value for key, value in manifest["spec"].items() if key != "replicas"}
        # first without it: whatever else is in conflict must be told before the number changes
        self._write(self._prepared({**manifest, "spec": spec}, resources), MANAGER, force=self._force)
        if not others:
            self._write(least(manifest, number), KEEPER, force=True)
            self._write(manifest, MANAGER)
        return True

    def _autoscaled(self, live: Manifest) -> bool | None:
        """Whether an autoscaler of longshore's scales an object now; None if one of somebody else's does."""
        ref = Ref.of(live)
        query = Query(self._resource(_AUTOSCALERS, _AUTOSCALER), ref.namespace)
        found, _ = list_all(self.session, query, lambda one: ref in scaled([one]))
        ours = [(m["metadata"].get("labels") or {}).items() >= MANAGED_BY.items() for m in found.values()]
        return any(ours) if all(ours) else None

    def _resource(self, api_version: str, kind: str) -> Resource:
        return self.session.resource(api_version, kind)

    def _path(self, ref: Ref) -> str:
        resource = self._resource(ref.api_version, ref.kind)
        return resource.path(ref.namespace or self.session.namespace, ref.name)

    def _prepared(self, manifest: Manifest, resources: Mapping[tuple[str, str], Resource]) -> Manifest:
        if not resources[manifest["apiVersion"], manifest["kind"]].namespaced:
            return prepared(manifest, None)
        return prepared(manifest, manifest["metadata"].get("namespace") or self.session.namespace)

    def _unchanged(self, wanted: Sequence[Manifest], resources: Mapping[tuple[str, str], Resource]) -> set[Ref]:
        """What need not be written: one list for many objects of a kind, single reads for few."""
        groups: dict[tuple[str, str, str | None], dict[Ref, Manifest]] = {}
        for manifest in wanted:
            ref = Ref.of(manifest)
            groups.setdefault((ref.api_version, ref.kind, ref.namespace), {})[ref] = manifest
        same: set[Ref] = set()

        def compare(live: Manifest, group: Mapping[Ref, Manifest]) -> bool:
            ref = Ref.of(live)
            if ref in group:
                self._generations[ref] = live["metadata"].get("generation", 0)
                if unchanged(group[ref], live):
                    same.add(ref)
            return False

        for (api_version, kind, namespace), group in groups.items():
            if len(group) <= _ONE_BY_ONE:
                for ref in group:
                    if (live := self.get(ref)) is not None:
                        compare(live, group)
                continue

            query = Query(resources[api_version, kind], namespace, _selector(MANAGED_BY))
            list_all(self.session, query, partial(compare, group=group))
        return same

    def _queries(
        self, refs: Sequence[Ref], also: Sequence[Selection]
    ) -> Iterator[tuple[Query, Callable[[Manifest], bool] | None]]:
        groups: dict[tuple[str, str, str | None], set[str]] = {}
        for ref in refs:
            groups.setdefault((ref.api_version, ref.kind, ref.namespace), set()).add(ref.name)
        for (api_version, kind, namespace), names in groups.items():
            resource = self._resource(api_version, kind)
            place = (namespace or self.session.namespace) if resource.namespaced else None
            if len(names) == 1:
                yield Query(resource, place, fields=f"metadata.name={next(iter(names))}"), None
            else:
                yield Query(resource, place, _selector(MANAGED_BY)), _named(names)
        for selection in also:
            resource = self._resource(selection.api_version, selection.kind)
            yield Query(resource, selection.namespace, _selector(selection.labels)), None

    def _each(self, items: Sequence[_T], do: Callable[[_T], None]) -> list[tuple[_T, LongshoreError]]:
        """Do something to all items, several at a time; returns what was refused."""
        refused: list[tuple[_T, LongshoreError]] = []

        def attempt(item: _T) -> None:
            try:
                do(item)
            except LongshoreError as error:
                refused.append((item, error))

        if len(items) < 2:
            for item in items:
                attempt(item)
            return refused
        with ThreadPoolExecutor(self._writers, thread_name_prefix="longshore-write") as pool:
            for _ in pool.map(attempt, items):
                pass
        return refused


def _lease(ref: Ref) -> str:
    return f"longshore-{ref.kind}-{ref.name}".lower()


def _selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _named(names: set[str]) -> Callable[[Manifest], bool]:
    return lambda manifest: manifest["metadata"]["name"] in names


def _in_order(refs: Sequence[Ref], watches: Sequence[Watch]) -> list[Manifest]:
    """The objects of ``refs`` in their order, then all others."""
    place = {(ref.kind, ref.name): index for index, ref in enumerate(refs)}
    objects = [manifest for watch in watches for manifest in watch.objects.values()]
    return sorted(objects, key=lambda m: place.get((m["kind"], m["metadata"]["name"]), len(place)))


def _still_there(left: Sequence[Manifest]) -> str:
    shown = []
    for manifest in left[:_SHOWN]:
        finalizers = manifest["metadata"].get("finalizers") or []
        held_by = (
            f" (held by its finalizers {', '.join(finalizers)}: is their controller running?)" if finalizers else ""
        )
        shown.append(f"{Ref.of(manifest)}{held_by}")
    more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
    return f"still being deleted after {_GONE_SECONDS:g} s: {', '.join(shown)}{more}"
