"""The platform ``seldon``: a SeldonDeployment (``machinelearning.seldon.io/v1``) of Seldon Core 1.

A SeldonDeployment has a predictor for each revision, named after it, and shares requests out by Istio or Ambassador. A
predictor keeps its pods as long as it stays in there: a new revision is tried out beside what serves, without requests,
and what it replaces goes once it has passed. Inside the cluster, Seldon has no address that stays over revisions; a
Service of longshore's leads to the one with the largest share.

Source: SeldonIO/seldon-core v1.18.2, operator/apis and operator/controllers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from longshore.errors import InvalidValue
from longshore.spec import Endpoint, Health, Release, Resources, SeldonExplainer, SeldonGateway, Service
from longshore.spec.quantity import quantity
from longshore.targets.availability import DISRUPTION_BUDGET, check_scaling, disruption_budget, scales, spread
from longshore.targets.base import REVISION_LABEL, SERVICE_LABEL, Manifest, Need, Ref, Selection
from longshore.targets.pods import LINGER_SECONDS, container_resources, pod_security, scheduling, secret_refs
from longshore.targets.routes import shares
from longshore.targets.seldon_graph import (
    DRAIN_SECONDS,
    containers,
    graph,
    is_packaged,
    options_of,
    protocol_of,
    root_of,
)
from longshore.targets.seldon_health import DEPLOYMENT_LABEL, VIRTUAL_SERVICE, seldon_health

__all__ = ["SeldonTarget"]

_API_VERSION: Final = "machinelearning.seldon.io/v1"
_KIND: Final = "SeldonDeployment"
_HTTP: Final = 8000
_GRPC: Final = 5001
_NOT_RCLONE: Final = frozenset({"file", "hf", "oci", "oci+native"})
_OURS: Final = ("longshore.dev/", "seldon.io/")


class SeldonTarget:
    """Renders a release as a SeldonDeployment; see :class:`longshore.targets.base.Target`."""

    def previews(self, service: Service) -> bool:  # noqa: ARG002
        """Yes: each predictor has a Service of its own."""
        return True

    def render(self, release: Release) -> list[Manifest]:
        """The SeldonDeployment with the revision and what stands beside it, and the service's address in the cluster.

        Raises:
            InvalidValue: If the release asks for what Seldon does not have.
        """
        for one in (release, *release.beside):
            _check(one)
        _check_beside(release)
        service = release.service
        metadata = {
            "name": service.name,
            "namespace": service.namespace,
            "labels": dict(service.labels),
            # Seldon looks for its settings here as well as in the spec, and hands only those of the spec on to pods
            "annotations": {**service.annotations, **_settings(service)},
        }
        spec = {
            "protocol": protocol_of(release),
            # the first one is whom Seldon calls the service's address
            "predictors": [*_beside(release), _predictor(release, release)],
        }
        manifests: list[Manifest] = [
            {"apiVersion": _API_VERSION, "kind": _KIND, "metadata": metadata, "spec": spec},
            _address(release),
        ]
        if max(service.scaling.min_replicas, service.scaling.max_replicas or 0) > 1:
            # Seldon's own are one for each predictor and select the pods of all: no pod could be evicted
            place = {**metadata, "annotations": dict(service.annotations)}
            manifests.append(disruption_budget(place, {DEPLOYMENT_LABEL: service.name}))
        return manifests

    def objects(self, service: Service) -> list[Ref]:
        """The SeldonDeployment, the Service and the budget."""
        kinds = ((_API_VERSION, _KIND), ("v1", "Service"), DISRUPTION_BUDGET)
        return [Ref(api_version, kind, service.name, service.namespace) for api_version, kind in kinds]

    def needs(self, release: Release) -> Mapping[str, Ref | Need]:
        """The Secrets of its containers and of the storage."""
        options = options_of(release.service)
        named: dict[str, str | None] = {"SeldonOptions.storage_secret": options.storage_secret}
        if options.explainer is not None:
            named["SeldonExplainer.storage_secret"] = options.explainer.storage_secret
        for node in root_of(release).walk():
            named |= {f"SeldonNode.secrets[{i}] of {node.name}": name for i, name in enumerate(node.secrets)}
        return secret_refs(release.service, named)

    def children(self, release: Release) -> Sequence[Selection]:
        """What Seldon makes of it, down to the pods, and the events of the namespace."""
        service = release.service
        labels = {DEPLOYMENT_LABEL: service.name}
        kinds = [("apps/v1", "Deployment"), ("v1", "Pod")]
        if scales(service.scaling) and not options_of(service).keda:
            kinds.append(("autoscaling/v2", "HorizontalPodAutoscaler"))
        made = [Selection(api_version, kind, service.namespace, labels) for api_version, kind in kinds]
        if _by_istio(service):
            # Seldon gives it no label
            made.append(Selection(*VIRTUAL_SERVICE, service.namespace))
        return (*made, Selection("v1", "Event", service.namespace))

    def revisions(self, service: Service) -> Sequence[Selection]:  # noqa: ARG002
        """None: they are in the SeldonDeployment."""
        return ()

    def health(self, release: Release, observed: Sequence[Manifest]) -> Health:
        """The verdict on the revision's own Deployments and pods, then on who gets its requests."""
        return seldon_health(release, self.render(release)[0], observed, routed=_by_istio(release.service))

    def endpoint(self, release: Release, observed: Sequence[Manifest]) -> Endpoint:  # noqa: ARG002
        """The service at its gateway, or in the cluster, and the revision's predictor."""
        service, options, protocol = release.service, options_of(release.service), protocol_of(release)
        domain = f"{service.namespace}.svc.cluster.local"
        inside, path = f"http://{service.name}.{domain}", f"/seldon/{service.namespace}/{service.name}"
        outside = None if options.gateway is None or options.gateway.url is None else options.gateway.url.rstrip("/")
        return Endpoint(
            name=service.name,
            url=f"{outside}{path}" if outside else inside,
            grpc_url=outside or f"{inside}:{_GRPC}",
            ingress_path=path,
            model=root_of(release).name,
            revision=release.revision,
            revision_url=f"http://{release.revision}.{domain}:{_HTTP}",
            protocols=(protocol, f"grpc-{protocol}"),
            # a gateway knows gRPC by them
            headers={"seldon": service.name, "namespace": service.namespace},
            takes="rows" if is_packaged(release) else "tensors",
        )


def _by_istio(service: Service) -> bool:
    gateway = options_of(service).gateway
    return gateway is not None and gateway.kind == "istio"


def _predictor_name(release: Release) -> str:
    """The name by which Seldon's Service for the predictor has the revision's."""
    return release.revision.removeprefix(f"{release.service.name}-")


def _beside(release: Release) -> Iterator[dict[str, Any]]:
    for one in release.beside:
        yield _predictor(one, release)


def _predictor(one: Release, release: Release) -> dict[str, Any]:
    """The predictor of a revision.

    Args:
        one: The revision.
        release: The release that it belongs to or stands beside.
    """
    service, options = one.service, options_of(one.service)
    scaling = service.scaling
    copied = _mirror(one, release)
    predictor: dict[str, Any] = {
        "name": _predictor_name(one),
        "traffic": copied or _shares(release).get(one.revision, 0),
        # Seldon's metrics have it as predictor_version: the executor's by the annotation, a microservice's by the label
        "annotations": {**_handed_on(service.annotations), **_timeouts(service), "version": one.revision},
        "labels": {
            **service.labels,
            SERVICE_LABEL: service.name,
            REVISION_LABEL: one.revision,
            "version": one.revision,
        },
        "graph": graph(one),
        "componentSpecs": [{"spec": _pod(one), **_autoscaler(service)}],
    }
    if copied:
        predictor["shadow"] = True
    if not scales(scaling):
        predictor["replicas"] = scaling.min_replicas
    engine: dict[str, Any] = {}
    if options.engine != Resources():
        engine["resources"] = container_resources(options.engine)
    if options.engine_env:
        engine["env"] = [{"name": name, "value": value} for name, value in options.engine_env.items()]
    if engine:
        predictor["svcOrchSpec"] = engine
    if options.explainer is not None:
        predictor["explainer"] = _explainer(options.explainer)
    return predictor


def _shares(release: Release) -> dict[str, int]:
    """Percent of the requests by revision; one with nothing beside it answers all."""
    return shares(release) if release.beside else {release.revision: 100}


def _mirror(one: Release, release: Release) -> int:
    """Percent of the requests that a revision gets a copy of; the first one of a service answers all."""
    return one.traffic.mirror_percent if release.beside else 0


def _pod(release: Release) -> dict[str, Any]:
    service = release.service
    pod: dict[str, Any] = {
        "containers": containers(release),
        **scheduling(service),
        "topologySpreadConstraints": spread({DEPLOYMENT_LABEL: service.name, REVISION_LABEL: release.revision}),
    }
    if any("scratch" in str(container.get("volumeMounts")) for container in pod["containers"]):
        pod["volumes"] = [{"name": "scratch", "emptyDir": {}}]
    if is_packaged(release):
        pod["terminationGracePeriodSeconds"] = LINGER_SECONDS + DRAIN_SECONDS + 7
        # older schemas of Seldon's do not know the rest, and its own containers in the pod are not that restricted
        pod["securityContext"] = {name: value for name, value in pod_security().items() if name != "seccompProfile"}
    return pod


def _autoscaler(service: Service) -> dict[str, Any]:
    scaling, triggers = service.scaling, options_of(service).keda
    if not scales(scaling):
        return {}
    if triggers:
        rendered = []
        for trigger in triggers:
            one: dict[str, Any] = {"type": trigger.type, "metadata": dict(trigger.metadata)}
            if trigger.authentication is not None:
                one["authenticationRef"] = {"name": trigger.authentication}
            rendered.append(one)
        bounds = {"minReplicaCount": scaling.min_replicas, "maxReplicaCount": scaling.max_replicas}
        return {"kedaSpec": {**bounds, "triggers": rendered}}
    # the form of metrics that all versions of Seldon take
    metric = {"name": scaling.metric, "targetAverageUtilization": scaling.target}
    bounds = {"minReplicas": scaling.min_replicas, "maxReplicas": scaling.max_replicas}
    return {"hpaSpec": {**bounds, "metrics": [{"type": "Resource", "resource": metric}]}}


def _explainer(explainer: SeldonExplainer) -> dict[str, Any]:
    rendered: dict[str, Any] = {"type": explainer.type}
    given = {
        "modelUri": explainer.uri,
        "envSecretRefName": explainer.storage_secret,
        "serviceAccountName": explainer.service_account,
    }
    rendered |= {name: value for name, value in given.items() if value is not None}
    if explainer.config:
        rendered["config"] = dict(explainer.config)
    container: dict[str, Any] = {}
    if explainer.image is not None:
        container["image"] = explainer.image
    if explainer.resources != Resources():
        container["resources"] = container_resources(explainer.resources)
    if container:
        rendered["containerSpec"] = {"name": "explainer", **container}
    return rendered


def _address(release: Release) -> Manifest:
    """Where clients inside the cluster ask: the pods of the revision with the largest share."""
    service = release.service
    largest = max(_shares(release).items(), key=lambda item: item[1])[0]
    ports = [("http", service.port or 80, _HTTP), ("grpc", _GRPC, _GRPC)]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": service.name,
            "namespace": service.namespace,
            "labels": {**service.labels, SERVICE_LABEL: service.name},
            "annotations": dict(service.annotations),
        },
        "spec": {
            "type": "ClusterIP",
            # Seldon's label of the pods with an orchestrator
            "selector": {"seldon-app": largest},
            "ports": [
                {"name": name, "port": port, "targetPort": target, "protocol": "TCP"} for name, port, target in ports
            ],
        },
    }


def _handed_on(annotations: Mapping[str, str]) -> dict[str, str]:
    """The user's annotations, which reach the pods."""
    return {name: value for name, value in annotations.items() if not name.startswith(_OURS)}


def _timeouts(service: Service) -> dict[str, str]:
    """In milliseconds; the orchestrator reads them in its pod, Ambassador in the SeldonDeployment."""
    options = options_of(service)
    given = {"rest": options.rest_timeout_seconds, "grpc": options.grpc_timeout_seconds}
    return {f"seldon.io/{name}-timeout": str(1000 * value) for name, value in given.items() if value is not None}


def _settings(service: Service) -> dict[str, str]:
    gateway = options_of(service).gateway
    return {**_timeouts(service), **({} if gateway is None else _gateway(gateway))}


def _gateway(gateway: SeldonGateway) -> dict[str, str]:
    retries = str(gateway.retries) if gateway.retries else None
    given: dict[str, str | None]
    if gateway.kind == "istio":
        given = {
            "istio-gateway": gateway.gateway,
            "istio-host": ",".join(gateway.hosts) or None,
            "istio-retries": retries,
            "istio-retries-timeout": str(gateway.retry_seconds) if retries else None,
        }
    else:
        headers = ":".join(f"{name}:{value}" for name, value in gateway.headers.items())
        given = {"ambassador-header": headers or None, "ambassador-id": gateway.id, "ambassador-retries": retries}
    return {f"seldon.io/{name}": value for name, value in given.items() if value is not None}


def _check(release: Release) -> None:
    service = release.service
    if service.router is not None:
        raise InvalidValue("Service.router", service.router.kind, "Seldon shares requests out by itself: leave it out")
    protocol_of(release)
    _check_scaling(release)
    scheme, found, rest = release.model.uri.partition("://")
    if scheme == "hf" and found and "pretrained_model" in str(graph(release)):
        if rest.count("/") != 1 or ":" in rest:
            raise InvalidValue("ModelSource.uri", release.model.uri, "write hf://OWNER/MODEL")
    elif not found or scheme in _NOT_RCLONE:
        raise InvalidValue(
            "ModelSource.uri",
            release.model.uri,
            "Seldon's pods fetch models by rclone: package the model into a store that it knows, such as s3:// "
            "(package_model with repository=URI), or give pvc://CLAIM/PATH",
        )
    if scheme == "pvc" and not rest.partition("/")[0]:
        raise InvalidValue("ModelSource.uri", release.model.uri, "write pvc://CLAIM/PATH")


def _check_scaling(release: Release) -> None:
    service, options = release.service, options_of(release.service)
    scaling = service.scaling
    if options.keda:
        if not scales(scaling):
            raise InvalidValue("Scaling.max_replicas", scaling.max_replicas, "KEDA scales up to it: set it")
        if scaling.min_replicas < 1:
            raise InvalidValue("Scaling.min_replicas", 0, "Seldon holds a service without pods for not ready: use 1")
        return
    check_scaling("seldon", scaling, service.resources)
    if not scales(scaling):
        return
    asked = {node.name: node.resources for node in root_of(release).walk() if not node.is_own}
    if options.engine != Resources():
        asked["the orchestrator"] = options.engine
    for name, resources in asked.items():
        request = getattr(resources, scaling.metric)
        if not quantity(request or "0"):
            field = "SeldonOptions.engine" if name == "the orchestrator" else "SeldonNode.resources"
            raise InvalidValue(
                f"{field}.{scaling.metric}",
                request,
                f"scaling goes by percent of what all containers request, and {name} requests none",
            )


def _check_beside(release: Release) -> None:
    known = {release.revision, *(one.revision for one in release.beside)}
    # without a base it was not placed beside anything yet
    for revision in release.traffic.others if release.traffic.base is not None else ():
        if revision not in known:
            raise InvalidValue(
                "Traffic.base", revision, "a SeldonDeployment holds all revisions, and what this one is is not known"
            )
    copied = [one.revision for one in (release, *release.beside) if one.traffic.mirror_percent]
    if len(copied) > 1:
        raise InvalidValue(
            "Traffic.mirror_percent", release.traffic.mirror_percent, f"{copied[1]} gets copies: Seldon copies to one"
        )
    for one in release.beside:
        if protocol_of(one) != protocol_of(release):
            raise InvalidValue(
                "SeldonOptions.protocol",
                protocol_of(release),
                f"what serves speaks {protocol_of(one)}, and a SeldonDeployment speaks one: deploy this under another "
                "name and move its clients",
            )
