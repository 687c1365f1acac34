"""Revisions beside each other on a platform that runs one at a time, with a router in front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol

from longshore.errors import InvalidValue
from longshore.spec import Endpoint, Health, HealthState, Release, Router, Service, Traffic
from longshore.targets.base import REVISION_LABEL, SERVICE_LABEL, Manifest, Need, Ref, Selection, Target
from longshore.targets.nginx import ROUTE_LABEL
from longshore.targets.routes import (
    Lane,
    lane_service,
    route_children,
    route_endpoint,
    route_health,
    route_manifests,
    route_needs,
    route_objects,
)

__all__ = ["LaneTarget", "RoutedTarget", "routed_bearer"]


class LaneTarget(Target[Release], Protocol):
    """A platform whose revisions can run beside each other, each under a name of its own (``Release.object_name``)."""

    def lane(self, release: Release) -> Lane:
        """The revision's pods."""
        ...


class RoutedTarget:
    """Runs each revision as a service of its own of another platform; see :class:`longshore.targets.base.Target`.

    A new revision is tried out before it has traffic, and the one before stays in memory until the new one has passed
    its last check: to take a change back, only requests are moved.

    Args:
        inner: The platform.
    """

    def __init__(self, inner: LaneTarget) -> None:
        self._inner: Final = inner

    def previews(self, service: Service) -> bool:  # noqa: ARG002
        """Yes: in its lane."""
        return True

    def render(self, release: Release) -> list[Manifest]:
        """The service's address, what shares its requests out, and the revision with its lane.

        Raises:
            InvalidValue: If the release asks for what the platform does not have.
        """
        own = _own(release)
        lane = self._inner.lane(own)
        labels = {SERVICE_LABEL: release.service.name, REVISION_LABEL: release.revision}
        revision = [_labelled(manifest, labels) for manifest in self._inner.render(own)]
        return [*route_manifests(release, lane), lane_service(release, lane), *revision]

    def objects(self, service: Service) -> list[Ref]:
        """The service's address, and what shares its requests out."""
        return route_objects(service)

    def children(self, release: Release) -> Sequence[Selection]:
        """What the platform and the router want to see."""
        return (*self._inner.children(_own(release)), *route_children(release.service))

    def needs(self, release: Release) -> Mapping[str, Ref | Need]:
        """What the platform needs, and the Secret of the router's certificate."""
        return {**self._inner.needs(_own(release)), **route_needs(release.service)}

    def revisions(self, service: Service) -> Sequence[Selection]:
        """The platform's objects and the lanes."""
        kinds = dict.fromkeys((ref.api_version, ref.kind) for ref in self._inner.objects(replace(service, router=None)))
        labels = {SERVICE_LABEL: service.name}
        kinds[("v1", "Service")] = None
        return [Selection(api_version, kind, service.namespace, labels) for api_version, kind in kinds]

    def health(self, release: Release, observed: Sequence[Manifest]) -> Health:
        """The verdict on the revision, and then on who gets its requests."""
        own = _own(release)
        routes = {(ref.kind, ref.name) for ref in route_objects(release.service)}
        beside: list[Manifest] = []
        inside: list[Manifest] = []
        for manifest in observed:
            metadata = manifest["metadata"]
            routed = (manifest["kind"], metadata["name"]) in routes or ROUTE_LABEL in (metadata.get("labels") or {})
            (beside if routed else inside).append(manifest)
        health = self._inner.health(own, inside)
        if health.state is not HealthState.READY:
            return health
        return route_health(release, [*beside, *(m for m in inside if m["kind"] == "Event")])

    def endpoint(self, release: Release, observed: Sequence[Manifest]) -> Endpoint:
        """The service's address, and the revision's own."""
        return route_endpoint(release, self._inner.endpoint(_own(release), observed))


def routed_bearer(name: str, namespace: str) -> Ref:
    """The object that bears the release of every service with a router."""
    return route_objects(Service(name=name, namespace=namespace, router=Router(kind="nginx")))[0]


def _own(release: Release) -> Release:
    """The release as the platform sees it: all of a service that has the revision's name for its objects."""
    service = release.service
    kind = service.router.kind if service.router is not None else None
    if service.kserve is not None and service.kserve.mode == "Knative":
        raise InvalidValue("Service.router", kind, "Knative shares requests out by itself")
    if service.kserve is not None and (service.kserve.protocol or "").startswith("grpc"):
        raise InvalidValue(
            "Service.router", kind, "routers share out HTTP requests: ask for v1 or v2, or go without one"
        )
    return replace(release, service=replace(service, router=None), traffic=Traffic(), lane=release.revision, beside=())


def _labelled(manifest: Manifest, labels: dict[str, str]) -> Manifest:
    metadata = manifest["metadata"]
    return {**manifest, "metadata": {**metadata, "labels": {**metadata.get("labels", {}), **labels}}}
