"""Many models by the name of a platform: the engine with everything it needs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from longshore.deployment import REGISTRY_ANNOTATION
from longshore.fleet.engine import FleetReport, check_fleet, deploy_fleet
from longshore.release import PATIENCE_SECONDS, Recorder, marked
from longshore.spec import ModelSource, Release, Service
from longshore.targets import target_of
from longshore.targets.base import Manifest, Target

if TYPE_CHECKING:
    from longshore.cluster import Session

__all__ = ["deploy_models", "render_models"]

_log: Final = logging.getLogger(__name__)


def deploy_models(
    services: Iterable[tuple[ModelSource, Service]],
    *,
    platform: str = "seldon-v2",
    session: Session | None = None,
    tracking_uri: str | None = None,
    timeout_seconds: float = 600,
    patience_seconds: float = PATIENCE_SECONDS,
    force: bool = False,
    on_progress: Callable[[str], None] = _log.info,
) -> FleetReport:
    """Serve many models, and record those that have a version in the registry. Nobody is asked for predictions.

    Args:
        services: Each model with the endpoint that shall serve it.
        platform: One of :data:`longshore.targets.PLATFORMS` whose revisions run beside each other.
        session: The cluster; None is the one at hand.
        tracking_uri: The registry; None is the one of this machine.
        timeout_seconds: For each of the two waits, until all new revisions are up and until they have the requests.
        patience_seconds: For what stalls a revision from outside to end.
        force: Take over what somebody else has set in the objects.
        on_progress: Called with a sentence whenever something new is known.

    Raises:
        ConfigError: If a service cannot be carried out as written; nothing has been done.
        ClusterError: If the cluster cannot be reached.
    """
    releases = _releases(services, tracking_uri)
    target = _target(releases, platform)
    from longshore.cluster import ClusterRuntime

    return deploy_fleet(
        releases,
        target=target,
        runtime=ClusterRuntime(session, force=force),
        recorder=_recorder(releases, tracking_uri),
        timeout_seconds=timeout_seconds,
        patience_seconds=patience_seconds,
        on_progress=on_progress,
    )


def render_models(
    services: Iterable[tuple[ModelSource, Service]], *, platform: str = "seldon-v2", tracking_uri: str | None = None
) -> list[Manifest]:
    """What :func:`deploy_models` would apply where nothing serves yet.

    Raises:
        ConfigError: If a service cannot be carried out as written.
    """
    releases = _releases(services, tracking_uri)
    target = _target(releases, platform)
    return [manifest for release in releases for manifest in marked(target.render(release), release, None)]


def _releases(services: Iterable[tuple[ModelSource, Service]], tracking_uri: str | None) -> list[Release]:
    note = {} if tracking_uri is None else {REGISTRY_ANNOTATION: tracking_uri}
    return [
        Release(service=replace(service, annotations={**service.annotations, **note}) if note else service, model=model)
        for model, service in services
    ]


def _target(releases: Sequence[Release], platform: str) -> Target[Release]:
    target = target_of(platform)
    check_fleet(releases, target)
    return target


def _recorder(releases: Sequence[Release], tracking_uri: str | None) -> Recorder[Release] | None:
    if all(release.model.version is None for release in releases):
        return None
    from longshore.registry import RegistryRecorder

    return RegistryRecorder(tracking_uri)
