"""Serve a model on a platform that is given by name: the engine with everything it needs.

The facade over target, runtime, smoke test and registry, for components, the command line and plain Python.
"""

from __future__ import annotations

import base64
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from longshore import client
from longshore.errors import ConfigError, DeployError, InvalidValue, MissingExtra
from longshore.release import (
    PATIENCE_SECONDS,
    Deployment,
    Probe,
    Recorder,
    current_release,
    deploy,
    previous_release,
    release_in,
    remove,
)
from longshore.spec import (
    Endpoint,
    KServeOptions,
    ModelSource,
    Release,
    SeldonOptions,
    SeldonV2Options,
    Service,
    Traffic,
)
from longshore.storage import fetch_directory
from longshore.targets import PLATFORMS, ROUTABLE, target_of
from longshore.targets.base import Ref, Runtime, Target

if TYPE_CHECKING:
    from longshore.cluster import Session
    from longshore.monitoring import DriftReport, ServingStats
    from longshore.packaging import ModelCard

__all__ = [
    "PLATFORMS",
    "ask",
    "default_namespace",
    "delete_service",
    "deploy_model",
    "deployed_release",
    "earlier_release",
    "example_rows",
    "find_endpoint",
    "observe_endpoint",
    "predict",
    "promote_service",
    "replay_table",
    "rollback_service",
    "send_feedback",
    "undo_run",
    "with_storage_secret",
]

REGISTRY_ANNOTATION: Final = "longshore.dev/registry"
"""Where a service's deployments are recorded, if not in the registry of this machine: a rollback needs it."""

_log = logging.getLogger(__name__)


def _runtime(platform: str, session: Session | None, *, force: bool = False) -> Runtime:
    if platform != "local":
        from longshore.cluster import ClusterRuntime

        return ClusterRuntime(session, force=force)
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        raise ConfigError(
            "the platform 'local' starts a server on this machine, and in a pod that server would end with the step: "
            "run the pipeline with 'longshore run --local', or choose the platform 'rest'"
        )
    from longshore.local import LocalRuntime

    return LocalRuntime()


def _target(
    platform: str, runtime: Runtime, service: Service, kserve_version: tuple[int, int] | None
) -> Target[Release]:
    if platform == "kserve" and kserve_version is None:
        from longshore import cluster

        assert isinstance(runtime, cluster.ClusterRuntime)  # noqa: S101 - for the type checker
        kserve_version = cluster.kserve_version(runtime.session)
    return target_of(platform, routed=service.router is not None, kserve_version=kserve_version)


def _bearers(platform: str, name: str, namespace: str) -> list[Ref]:
    """The objects that bear a service's release: without a router, then with one."""
    found = target_of(platform).objects(Service(name=name, namespace=namespace))[:1]
    if platform in ROUTABLE:
        from longshore.targets.routed import routed_bearer

        found.append(routed_bearer(name, namespace))
    return found


def _bearer(platform: str, name: str, namespace: str, runtime: Runtime) -> Ref:
    """The object that bears the release of a service; if there is none, the one that would without a router."""
    bearers = _bearers(platform, name, namespace)
    return next((ref for ref in bearers if _release_at(ref, runtime) is not None), bearers[0])


def _release_at(ref: Ref, runtime: Runtime) -> Release | None:
    manifest = runtime.get(ref)
    return None if manifest is None else release_in(manifest)


def _check_bearer(platform: str, service: Service, runtime: Runtime) -> None:
    """A service cannot change between having a router and having none while it serves."""
    routed = service.router is not None
    for ref in _bearers(platform, service.name, service.namespace):
        release = _release_at(ref, runtime)
        if release is not None and (release.service.router is not None) != routed:
            was, wanted = ("without a router", "with one") if routed else ("with a router", "without one")
            raise ConfigError(
                f"{service.name} is served {was}, and {wanted} it has other objects: deploy it under another name and "
                "move its clients, or delete the service first"
            )


def default_namespace(platform: str, session: Session | None = None) -> str:
    """The namespace that a service goes to where none is given: that of this pod, or of the kubeconfig's context."""
    if platform == "local":
        return "default"
    from longshore.cluster import Session

    return (session or Session.default()).namespace


def _as_deployed(service: Service, platform: str, model: ModelSource) -> Service:
    """The service with what a rollback must find again, whatever the defaults are by then."""
    if platform == "rest" and service.image is None:
        from longshore.targets.pods import server_image

        return replace(service, image=server_image(service.framework))
    if platform == "tensorflow-serving" and service.image is None:
        from longshore.targets.tfserving import SERVER_IMAGE

        return replace(service, image=SERVER_IMAGE)
    if platform == "seldon" and service.image is None:
        from longshore.targets.seldon_graph import own_image

        return replace(service, image=own_image(Release(service=service, model=model)))
    if platform == "kserve" and service.image is None:
        from longshore.targets.kserve_torchserve import torchserve_container

        return replace(service, image=torchserve_container(Release(service=service, model=model)).get("image"))
    if platform == "torchserve":
        from longshore.targets.torchserve import as_deployed

        return as_deployed(service, packaged=model.digest is not None)
    return service


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
        tracking_uri: The registry; None is the one of this machine.
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
    if tracking_uri is not None:
        service = replace(service, annotations={**service.annotations, REGISTRY_ANNOTATION: tracking_uri})
    release = Release(service=_as_deployed(service, platform, model), model=model, traffic=traffic or Traffic())
    # what the platform cannot do is told before anything is asked of it
    target_of(platform, routed=service.router is not None, kserve_version=kserve_version).render(release)
    runtime = _runtime(platform, session, force=force)
    _check_bearer(platform, service, runtime)
    if platform == "torchserve":
        _warn_of_torchserve(service)
        access = access or _access(service, runtime)
    try:
        return deploy(
            release,
            target=_target(platform, runtime, service, kserve_version),
            runtime=runtime,
            probe=_smoke_test(model, access, platform=platform),
            recorder=_recorder(model, tracking_uri),
            timeout_seconds=timeout_seconds,
            patience_seconds=patience_seconds,
            on_progress=on_progress,
        )
    finally:
        # at the other end of a connection that is kept is what served before, for as long as it drains
        client.close_kept()


def with_storage_secret(service: Service, platform: str, secret: str | None) -> Service:
    """The service with a Secret that opens the model's storage to a platform that fetches models itself.

    Args:
        service: The service.
        platform: One of :data:`PLATFORMS`; those whose pods fetch models have their keys in ``Service.secrets``.
        secret: Name of the Secret; with None the service stays as it is.
    """
    if secret is None:
        return service
    if platform == "kserve":
        return replace(service, kserve=replace(service.kserve or KServeOptions(), storage_secret=secret))
    if platform == "seldon":
        return replace(service, seldon=replace(service.seldon or SeldonOptions(), storage_secret=secret))
    if platform == "seldon-v2":
        return replace(service, seldon_v2=replace(service.seldon_v2 or SeldonV2Options(), storage_secret=secret))
    raise InvalidValue("storage_secret", secret, f"on the platform {platform}, name it in secrets")


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
    runtime = _runtime(platform, session)
    ref = _bearer(platform, name, namespace or default_namespace(platform, session), runtime)
    earlier = previous_release(ref, runtime)
    if earlier is None:
        raise ConfigError(f"{ref} has no earlier release to go back to")
    return deploy_model(
        earlier.model,
        earlier.service,
        platform=platform,
        traffic=_share_again(earlier, current_release(ref, runtime)),
        session=session,
        tracking_uri=tracking_uri or _registry_of(earlier.service),
        timeout_seconds=timeout_seconds,
        on_progress=on_progress,
    )


def _share_again(earlier: Release, current: Release | None) -> Traffic:
    """What an earlier release gets again: its part if what answered the rest is there still, else all."""
    traffic = earlier.traffic
    running = set() if current is None else {current.revision, *current.traffic.others}
    if not traffic.others or not running.issuperset(traffic.others):
        return Traffic()
    return Traffic(percent=traffic.percent, mirror_percent=traffic.mirror_percent, rest=traffic.rest)


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
        tracking_uri=tracking_uri or _registry_of(release.service),
        timeout_seconds=timeout_seconds,
        on_progress=on_progress,
    )


def deployed_release(
    name: str, *, platform: str = "local", namespace: str | None = None, session: Session | None = None
) -> Release:
    """The release that was deployed last, whatever its share, with what stands beside it.

    Raises:
        ConfigError: If nothing of that name was deployed.
    """
    runtime = _runtime(platform, session)
    ref = _bearer(platform, name, namespace or default_namespace(platform, session), runtime)
    release = _release_at(ref, runtime)
    if release is None:
        raise ConfigError(f"{ref} bears no release of longshore's: see what is deployed, and where (--namespace)")
    return release


def earlier_release(
    name: str, *, platform: str = "local", namespace: str | None = None, session: Session | None = None
) -> Release | None:
    """The release that the one of now replaced, None if there was none."""
    runtime = _runtime(platform, session)
    ref = _bearer(platform, name, namespace or default_namespace(platform, session), runtime)
    return previous_release(ref, runtime)


def delete_service(
    name: str, *, platform: str = "local", namespace: str | None = None, session: Session | None = None
) -> None:
    """Serve a service's models no more, and remove all that was applied for it. What is gone already is no error."""
    place = namespace or default_namespace(platform, session)
    runtime = _runtime(platform, session)
    release = _release_at(_bearer(platform, name, place, runtime), runtime)
    service = Service(name=name, namespace=place) if release is None else release.service
    remove(service, target=target_of(platform, routed=service.router is not None), runtime=runtime)


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
            deploy_model(
                earlier.model,
                earlier.service,
                traffic=_share_again(earlier, undone),
                tracking_uri=_registry_of(earlier.service),
            )
            continue
        with runtime.lock(ref):
            runtime.delete([ref])
        if undone is not None and (recorder := _recorder(undone.model, _registry_of(undone.service))) is not None:
            recorder.failed(undone, None, "the run was interrupted")


def _registry_of(service: Service) -> str | None:
    return service.annotations.get(REGISTRY_ANNOTATION)


def _recorder(model: ModelSource, tracking_uri: str | None) -> Recorder[Release] | None:
    if model.version is None:
        return None
    from longshore.registry import RegistryRecorder

    return RegistryRecorder(tracking_uri)


def _card(model: ModelSource) -> ModelCard:
    from longshore.packaging import read_card

    with tempfile.TemporaryDirectory(prefix="longshore-") as scratch:
        return read_card(fetch_directory(model.uri, Path(scratch)))


def _warn_of_torchserve(service: Service) -> None:
    if service.torchserve is None or service.torchserve.instead is None:
        from longshore.targets.torchserve import WARNING

        _log.warning(WARNING)


def _access(service: Service, runtime: Runtime) -> client.Access | None:
    """What opens a service to its own smoke test: a token of its Secret; None where it names none, or one not there.

    Raises:
        ConfigError: If this process may not read it.
    """
    name = None if service.torchserve is None else service.torchserve.token_secret
    if name is None:
        return None
    found = runtime.look(Ref("v1", "Secret", name, service.namespace))
    if found is None:
        raise ConfigError(
            f"the Secret {name} may not be read here, and the smoke test needs a token of it: give one (access), or "
            f"have the step's Role allow it (longshore rbac --secret {name})"
        )
    values = [base64.b64decode(value).decode("latin-1") for one in found for value in (one.get("data") or {}).values()]
    lines = [line.strip() for value in values for line in value.splitlines()]
    token = next((line for line in lines if line and not line.startswith("#")), None)
    return None if token is None else client.Access(token=token)


def _smoke_test(
    model: ModelSource, access: client.Access | None = None, *, platform: str | None = None
) -> Probe | None:
    """Asks for the model's own example rows; None where longshore did not package the model."""
    from longshore import tfserving

    if platform == "tensorflow-serving":
        return tfserving.smoke_test(None if model.digest is None else _card(model), access=access)
    if model.digest is None:
        _log.info("%s has no longshore card with example rows: it is served without a smoke test", model.uri)
        return None
    card = _card(model)
    rows, classes = card.example, card.signature.classes

    def ask(endpoint: Endpoint) -> None:
        if endpoint.takes != "rows":
            if platform == "kserve" and "tensorflow" in endpoint.protocols:
                tfserving.smoke_test(card, access=access)(endpoint)
            return
        try:
            client.probe(endpoint, rows, classes, access=access)
        except MissingExtra as error:
            _log.warning("%s is served without a smoke test: %s", endpoint.url, error)

    return ask


def _reached(endpoint: Endpoint, session: Session | None = None) -> AbstractContextManager[Endpoint]:
    """The endpoint as this process can call it: one in a cluster is forwarded, unless this is a pod itself."""
    if endpoint.in_cluster is None:
        return nullcontext(endpoint)
    from longshore.cluster import ClusterRuntime

    return ClusterRuntime(session).reach(endpoint)


def predict(
    endpoint: Endpoint,
    rows: Any,
    *,
    protocol: str | None = None,
    access: client.Access | None = None,
    timeout_seconds: float = 30,
    session: Session | None = None,
) -> list[Any]:
    """Predict rows, wherever the endpoint is: one inside a cluster is forwarded, unless this is a pod itself.

    Args:
        endpoint: Where to ask: what a deploy returned, or :func:`find_endpoint`; ``Endpoint.through`` gives it behind
            an ingress.
        rows: Mappings from column to value, sequences of values, a DataFrame or an array.
        protocol: One of ``longshore.client.PROTOCOLS``; None is the first of them that the endpoint speaks. ``v2`` and
            ``grpc-v2`` go through KServe's SDK (extra ``kserve``).
        access: Token and certificates.
        timeout_seconds: For the request.
        session: The cluster that the endpoint is in; None is the one at hand.

    Returns:
        One prediction per row.

    Raises:
        InputError: If the model refuses the rows; the message is the server's.
        DeployError: If nothing answers or the answer is no prediction.
        ClusterError: If the endpoint is in a cluster and no pod behind it is ready.
    """
    options = {"protocol": protocol, "access": access, "timeout_seconds": timeout_seconds}
    return ask(endpoint, rows, session=session, **options).predictions


def ask(endpoint: Endpoint, rows: Any, *, session: Session | None = None, **options: Any) -> client.Answer:
    """Predict rows, and keep what :func:`send_feedback` takes; see :func:`predict`."""
    with _reached(endpoint, session) as reachable:
        if reachable is endpoint:
            return client.ask(endpoint, rows, **options)
        # what is forwarded has another address the next time
        with client.Client(reachable, **options) as one:
            return one.ask(rows)


def send_feedback(
    endpoint: Endpoint,
    answer: client.Answer,
    reward: float,
    *,
    truth: Any = None,
    session: Session | None = None,
    **options: Any,
) -> None:
    """Say how good an answer was, so that an experiment can be judged on it.

    Args:
        endpoint: Where it was asked for; only Seldon's protocol knows feedback.
        answer: What :func:`ask` gave, perhaps long ago.
        reward: A finite number; the more the better.
        truth: What would have been right, one value for each row.
        session: The cluster that the endpoint is in; None is the one at hand.
        options: As of :func:`predict`.

    Raises:
        ConfigError: If the endpoint speaks a protocol without feedback.
        InputError: If it is refused; the message is the server's.
        DeployError: If nothing answers.
        ClusterError: If the endpoint is in a cluster and no pod behind it is ready.
    """
    with _reached(endpoint, session) as reachable:
        client.send_feedback(reachable, answer, reward, truth=truth, **options)


def find_endpoint(
    name: str, *, platform: str = "local", namespace: str | None = None, session: Session | None = None
) -> Endpoint:
    """Where a service answers that was deployed by longshore.

    Raises:
        ConfigError: If there is none of that name.
    """
    return _served(name, platform, namespace, session)[0]


def example_rows(
    name: str, *, platform: str = "local", namespace: str | None = None, session: Session | None = None
) -> Sequence[Mapping[str, Any]]:
    """Rows of its training data that a service's model came with.

    Raises:
        ConfigError: If there is no such service, or longshore did not package its model.
    """
    model = _served(name, platform, namespace, session)[1].model
    if model.digest is None:
        raise ConfigError(f"{model.uri} has no longshore card with example rows: give rows to predict")
    return _card(model).example


def _served(name: str, platform: str, namespace: str | None, session: Session | None) -> tuple[Endpoint, Release]:
    runtime = _runtime(platform, session)
    ref = _bearer(platform, name, namespace or default_namespace(platform, session), runtime)
    release = current_release(ref, runtime)
    if release is None:
        raise ConfigError(f"{ref} bears no release of longshore's: see what is deployed, and where (--namespace)")
    target = target_of(platform, routed=release.service.router is not None)
    found = [runtime.get(ref) for ref in target.objects(release.service)]
    return target.endpoint(release, [manifest for manifest in found if manifest is not None]), release


def replay_table(
    endpoint: Endpoint,
    model: ModelSource,
    table: str,
    *,
    batch_size: int = 1,
    max_requests: int = 1000,
    max_p99_seconds: float | None = None,
    protocol: str | None = None,
    access: client.Access | None = None,
) -> client.ProbeReport:
    """Send a table's rows to an endpoint as its clients would.

    Args:
        endpoint: Where to send them.
        model: The model that serves there.
        table: Path of a data set that a longshore step wrote; its target column is left out.
        batch_size: Rows in one request.
        max_requests: At most so many requests.
        max_p99_seconds: Bound on the 99th percentile of latency; None sets none.
        protocol: One of ``longshore.client.PROTOCOLS``; None is the first of them that the endpoint speaks.
        access: Token and certificates.

    Raises:
        DeployError: If a request failed, an answer cannot come from the model, or the bound was not kept.
    """
    from longshore.packaging import frame_to_rows
    from longshore.training import read_dataset

    card = _card(model)
    rows = frame_to_rows(card.signature, read_dataset(table).head(batch_size * max_requests))
    options: dict[str, Any] = {"batch_size": batch_size, "protocol": protocol, "access": access}
    if endpoint.takes == "tensors" and model.format == "tensorflow":
        from longshore import tfserving

        rows = list(tfserving.tensor_rows(card, rows))
        options["output"] = tfserving.OUTPUT
    with _reached(endpoint) as reachable:
        report = client.replay(reachable, rows, card.signature.classes, **options)
    if report.failed:
        raise DeployError(f"{report.failed} of {report.requests} requests failed; the first: {report.first_error}")
    if max_p99_seconds is not None and report.p99_seconds > max_p99_seconds:
        raise DeployError(
            f"the 99th percentile of {report.requests} requests took {report.p99_seconds:.3g} s, "
            f"at most {max_p99_seconds:g} s are allowed"
        )
    return report


def observe_endpoint(endpoint: Endpoint, model: ModelSource) -> tuple[ServingStats, DriftReport]:
    """What an endpoint's revision has served, and whether its inputs look like the model's training data.

    Args:
        endpoint: The endpoint; its metrics are read at the revision's own address where it has one.
        model: The model that serves there.
    """
    from longshore.monitoring import assess, bin_counts, read_metrics, summarise

    with _reached(endpoint.at_revision()) as reachable:
        samples = read_metrics(f"{reachable.url.rstrip('/')}/metrics")
    stats = summarise(samples, revision=endpoint.revision)
    return stats, assess(_card(model).baseline, bin_counts(samples, revision=endpoint.revision, version=model.version))
