"""Change what a service serves: deploy, roll back, promote, delete, undo."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from longshore import client
from longshore.deployment.lookup import (
    bearers,
    default_namespace,
    deployed_release,
    find_bearer,
    runtime_of,
)
from longshore.deployment.settings import REGISTRY_ANNOTATION, as_deployed, registry_of
from longshore.deployment.smoke import access_of, smoke_test
from longshore.errors import ConfigError
from longshore.release import (
    PATIENCE_SECONDS,
    Deployment,
    Recorder,
    current_release,
    deploy,
    release_in,
    remove,
)
from longshore.spec import ModelSource, Release, Service, Traffic
from longshore.targets import target_of
from longshore.targets.base import Runtime, Target

if TYPE_CHECKING:
    from longshore.cluster import Session

__all__ = ["delete_service", "deploy_model", "promote_service", "rollback_service", "undo_run"]

_log = logging.getLogger("longshore.deployment")


def deploy_model(
    model: ModelSource,
    service: Service,
    *,
    platform: str = "local",
    traffic: Traffic | None = None,
    session: Session | None = None,
    tracking_uri: str | None = None,
    timeout_seconds: float = 120,
    patience_seconds: float = PATIENCE_SECONDS,
    force: bool = False,
    kserve_version: tuple[int, int] | None = None,
    access: client.Access | None = None,
    on_progress: Callable[[str], None] = _log.info,
) -> Deployment[Release]:
    """Serve a model, smoke-tested with its own example rows and recorded in the registry.

    Args:
        model: The model; one with a version is recorded in the registry under its name.
        service: The endpoint that shall serve it.
        platform: One of :data:`PLATFORMS`.
        traffic: The share of the requests that it shall answer; None is all.
        session: The cluster; None is the one at hand. The platform ``local`` has none.
        tracking_uri: The registry; None is the one that the service was recorded in before, or that of this machine.
        timeout_seconds: For each wait until the revision is ready.
        patience_seconds: For what stalls the revision from outside to end.
        force: Take over what somebody else has set in the service's objects, such as a number of replicas.
        kserve_version: Version of KServe in the cluster; None reads it there.
        access: What the smoke test shows the endpoint; None takes a token of the service's Secret, if it names one.
        on_progress: Called with a sentence whenever something new is known.

    Raises:
        ConfigError: If the request cannot be carried out as written.
        ClusterError: If the cluster refuses or cannot be reached.
        DeployError: If the model did not come up or did not answer well; says what serves instead.
    """
    # a parameter that was left empty in a form is an empty text
    if tracking_uri:
        service = replace(service, annotations={**service.annotations, REGISTRY_ANNOTATION: tracking_uri})
    else:
        tracking_uri = registry_of(service)
    release = Release(service=as_deployed(service, platform, model), model=model, traffic=traffic or Traffic())
    # what the platform cannot do is told before anything is asked of it
    target_of(platform, routed=service.router is not None, kserve_version=kserve_version).render(release)
    runtime = runtime_of(platform, session, force=force)
    _check_bearer(platform, service, runtime)
    if platform == "torchserve":
        _warn_of_torchserve(service)
        access = access or access_of(service, runtime)
    try:
        return deploy(
            release,
            target=_target(platform, runtime, service, kserve_version),
            runtime=runtime,
            probe=smoke_test(model, access, platform=platform),
            recorder=_recorder(model, tracking_uri),
            timeout_seconds=timeout_seconds,
            patience_seconds=patience_seconds,
            on_progress=on_progress,
        )
    finally:
        # at the other end of a connection that is kept is what served before, for as long as it drains
        client.close_kept()


def rollback_service(
    name: str,
    *,
    platform: str = "local",
    namespace: str | None = None,
    session: Session | None = None,
    tracking_uri: str | None = None,
    timeout_seconds: float = 120,
    on_progress: Callable[[str], None] = _log.info,
) -> Deployment[Release]:
    """Serve again what a service served before, and record it.

    Raises:
        ConfigError: If there is nothing to go back to.
        DeployError: If the earlier release does not come up; the current one then still serves.
    """
    bearer = find_bearer(name, platform, namespace, session)
    earlier = bearer.earlier
    if earlier is None:
        raise ConfigError(f"{bearer.ref} has no earlier release to go back to")
    return deploy_model(
        earlier.model,
        earlier.service,
        platform=platform,
        traffic=_share_again(earlier, bearer.serving),
        session=session,
        tracking_uri=tracking_uri,
        timeout_seconds=timeout_seconds,
        on_progress=on_progress,
    )


def promote_service(
    name: str,
    *,
    percent: int = 100,
    revision: str | None = None,
    platform: str = "local",
    namespace: str | None = None,
    session: Session | None = None,
    tracking_uri: str | None = None,
    timeout_seconds: float = 120,
    on_progress: Callable[[str], None] = _log.info,
) -> Deployment[Release]:
    """Give the revision that was deployed last a larger share of a service's requests, at last all of them.

    Args:
        name: Name of the service.
        percent: Its share from now on.
        revision: Another one, of those that stand beside it.
        platform: One of :data:`PLATFORMS`.
        namespace: As of :func:`deploy_model`, like all others.
        session: The cluster.
        tracking_uri: The registry; None is the one where the release was recorded.
        timeout_seconds: For the requests to be shared out so.
        on_progress: Called with a sentence whenever something new is known.

    Raises:
        ConfigError: If nothing of that name was deployed.
        DeployError: If it does not answer well; the requests are then shared out as before.
    """
    last = deployed_release(name, platform=platform, namespace=namespace, session=session)
    running = {one.revision: one for one in (*last.beside, last)}
    if revision is not None and revision not in running:
        raise ConfigError(f"{name} has no revision {revision} that runs: there is {', '.join(running)}")
    release = running[revision or last.revision]
    return deploy_model(
        release.model,
        release.service,
        platform=platform,
        traffic=Traffic(percent=percent),
        session=session,
        tracking_uri=tracking_uri,
        timeout_seconds=timeout_seconds,
        on_progress=on_progress,
    )


def delete_service(
    name: str, *, platform: str = "local", namespace: str | None = None, session: Session | None = None
) -> None:
    """Serve a service's models no more, and remove all that was applied for it. What is gone already is no error."""
    place = namespace or default_namespace(platform, session)
    bearer = find_bearer(name, platform, place, session)
    release = bearer.last
    service = Service(name=name, namespace=place) if release is None else release.service
    remove(service, target=target_of(platform, routed=service.router is not None), runtime=bearer.runtime)


def undo_run(run: str) -> None:
    """Have what a pipeline run deployed on this machine serve no more: what served before the run does again.

    Args:
        run: Id of the run, as ``LONGSHORE_RUN`` has it in the run's steps.

    Raises:
        DeployError: If what served before does not come up.
    """
    from longshore.local import LocalRuntime, before_run, deployed_by

    runtime = LocalRuntime()
    for ref in deployed_by(run):
        undone, before = current_release(ref, runtime), before_run(ref, run)
        earlier = None if before is None else release_in(before)
        if earlier is not None:
            deploy_model(earlier.model, earlier.service, traffic=_share_again(earlier, undone))
            continue
        with runtime.lock(ref):
            runtime.delete([ref])
        if undone is not None and (recorder := _recorder(undone.model, registry_of(undone.service))) is not None:
            recorder.failed(undone, None, "the run was interrupted")


def _target(
    platform: str, runtime: Runtime, service: Service, kserve_version: tuple[int, int] | None
) -> Target[Release]:
    if platform == "kserve" and kserve_version is None:
        from longshore import cluster

        assert isinstance(runtime, cluster.ClusterRuntime)  # noqa: S101 - for the type checker
        kserve_version = cluster.kserve_version(runtime.session)
    return target_of(platform, routed=service.router is not None, kserve_version=kserve_version)


def _check_bearer(platform: str, service: Service, runtime: Runtime) -> None:
    """A service cannot change between having a router and having none while it serves."""
    routed = service.router is not None
    for bearer in bearers(platform, service.name, service.namespace, runtime):
        release = bearer.last
        if release is not None and (release.service.router is not None) != routed:
            was, wanted = ("without a router", "with one") if routed else ("with a router", "without one")
            raise ConfigError(
                f"{service.name} is served {was}, and {wanted} it has other objects: deploy it under another name and "
                "move its clients, or delete the service first"
            )


def _warn_of_torchserve(service: Service) -> None:
    if service.torchserve is None or service.torchserve.instead is None:
        from longshore.targets.torchserve import WARNING

        _log.warning(WARNING)


def _recorder(model: ModelSource, tracking_uri: str | None) -> Recorder[Release] | None:
    if model.version is None:
        return None
    from longshore.registry import RegistryRecorder

    return RegistryRecorder(tracking_uri)


def _share_again(earlier: Release, current: Release | None) -> Traffic:
    """What an earlier release gets again: its part if what answered the rest is there still, else all."""
    traffic = earlier.traffic
    running = set() if current is None else {current.revision, *current.traffic.others}
    if not traffic.others or not running.issuperset(traffic.others):
        return Traffic()
    return Traffic(percent=traffic.percent, mirror_percent=traffic.mirror_percent, rest=traffic.rest)
