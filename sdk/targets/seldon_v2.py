"""The platform ``seldon-v2``: Models, Experiments, Pipelines and Servers (``mlops.seldon.io/v1alpha1``).

Each revision is a Model of its own, named after it: Seldon's status never says which version of an object it is about,
so only a name that was never used before tells. An Experiment named after the service shares the requests out. Its
name is what clients ask for, for good: ``NAME.experiment`` in the header ``seldon-model``. The model in a request's
path must not have that dot: Seldon's agent, which puts in the one that was drawn, would leave the rest behind it.

Of an Experiment's candidates, Seldon leads requests to those before the first one that has no replica that answers; to
the others, and to the mirror, it does not. So a Model is brought up first, is named in the Experiment once it is
available, and stands there after those that serve already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from longshore.errors import InvalidValue
from longshore.spec import Endpoint, Health, Release, SeldonV2Options, SeldonV2Server, Service
from longshore.spec.quantity import quantity
from longshore.spec.seldon_v2 import SELDON_V2_MODEL, SELDON_V2_REQUEST, step_of
from longshore.targets.base import REVISION_LABEL, SERVICE_LABEL, Manifest, Need, Ref, Selection
from longshore.targets.pods import container_resources, environment, scheduling, secret_refs
from longshore.targets.seldon_v2_health import CAPABILITIES, offered, seldon_v2_health

__all__ = ["SeldonV2Target"]

_API_VERSION: Final = "mlops.seldon.io/v1alpha1"
_EXPERIMENT: Final = (_API_VERSION, "Experiment")
_KNOWN: Final = frozenset(name for names in CAPABILITIES.values() for name in names)
# what longshore packages is read by joblib, whatever it was trained with
_PACKAGED: Final = {"xgboost": "sklearn", "lightgbm": "sklearn"}
_NOT_RCLONE: Final = frozenset({"file", "hf", "oci", "oci+native", "pvc"})
_SERVER_NAME: Final = 52
_PODS: Final = ("image", "env", "secrets", "service_account", "node_selector", "tolerations")


class SeldonV2Target:
    """Renders a release for Seldon Core 2; see :class:`longshore.targets.base.Target`."""

    def previews(self, service: Service) -> bool:  # noqa: ARG002
        """Yes: a Model is asked by its own name."""
        return True

    def render(self, release: Release) -> list[Manifest]:
        """The Experiment, and what belongs to the revision alone.

        Raises:
            InvalidValue: If the release asks for what Seldon does not have.
        """
        options = options_of(release.service)
        _check(release, options)
        rendered = [_experiment(release, options), _model(release, options)]
        if options.own_server is not None:
            rendered.append(_server(release, options.own_server))
        if options.explainer is not None:
            rendered.append(_explainer(release, options))
        if options.pipeline is not None:
            rendered.append(_pipeline(release, options))
        return rendered

    def objects(self, service: Service) -> list[Ref]:
        """The Experiment."""
        return [Ref(*_EXPERIMENT, service.name, service.namespace)]

    def needs(self, release: Release) -> Mapping[str, Ref | Need]:
        """Secrets and Servers that are named, and what no pure look can tell."""
        service, options = release.service, options_of(release.service)
        place, kind = service.namespace, "Model" if options.pipeline is None else "Pipeline"
        found: dict[str, Ref | Need] = {
            **secret_refs(service, {"SeldonV2Options.storage_secret": options.storage_secret}),
            "SeldonV2Options.pipeline": Need(
                options.pipeline, Ref(*_EXPERIMENT, service.name, place), _same_kind(options)
            ),
        }
        for name, known in (("server", "Server"), ("default", kind)):
            if (value := getattr(options, name)) is not None:
                found[f"SeldonV2Options.{name}"] = Ref(_API_VERSION, known, value, place)
        unknown = [one for one in requirements_of(release) if one not in _KNOWN]
        if unknown and options.own_server is None:
            servers = Selection(_API_VERSION, "Server", place)
            found["SeldonV2Options.requirements"] = Need(unknown, servers, partial(_not_offered, unknown))
        return found

    def children(self, release: Release) -> Sequence[Selection]:
        """The Servers of the namespace, and the pods of the revision's own one."""
        namespace = release.service.namespace
        servers = Selection(_API_VERSION, "Server", namespace)
        if options_of(release.service).own_server is None:
            return (servers,)
        pods = Selection("v1", "Pod", namespace, {"seldon-server-name": release.revision})
        return (servers, pods, Selection("v1", "Event", namespace))

    def revisions(self, service: Service) -> Sequence[Selection]:
        """Models, Pipelines and Servers."""
        labels = {SERVICE_LABEL: service.name}
        return [Selection(_API_VERSION, kind, service.namespace, labels) for kind in ("Pipeline", "Model", "Server")]

    def health(self, release: Release, observed: Sequence[Manifest]) -> Health:
        """The verdict on the revision's own objects, and then on the Experiment's new shares."""
        return seldon_v2_health(self.render(release), observed)

    def endpoint(self, release: Release, observed: Sequence[Manifest]) -> Endpoint:  # noqa: ARG002
        """The mesh, which tells services from each other by a header."""
        service, options = release.service, options_of(release.service)
        own = release.revision if options.pipeline is None else f"{release.revision}.pipeline"
        url = f"http://seldon-mesh.{options.mesh_namespace or service.namespace}.svc.cluster.local"
        return Endpoint(
            name=service.name,
            url=url,
            model=service.name,
            revision=release.revision,
            ingress_path="",
            revision_url=url,
            revision_model=release.revision,
            headers={"seldon-model": f"{service.name}.experiment"},
            revision_headers={"seldon-model": own},
            protocols=("v2", "grpc-v2"),
            takes="rows" if _takes_rows(release, options) else "tensors",
        )


def options_of(service: Service) -> SeldonV2Options:
    """What a service says of Seldon Core 2, or else its defaults."""
    return service.seldon_v2 or SeldonV2Options()


def requirements_of(release: Release) -> tuple[str, ...]:
    """Capabilities that a Server needs to run the model.

    Raises:
        InvalidValue: If none is given and no Server of Seldon's loads the format.
    """
    if given := options_of(release.service).requirements:
        return tuple(given)
    model = release.model
    wanted = _PACKAGED.get(model.format, model.format) if model.digest is not None else model.format
    if wanted not in _KNOWN:
        raise InvalidValue(
            "ModelSource.format",
            model.format,
            f"Seldon's Servers load {', '.join(sorted(_KNOWN))}: say in SeldonV2Options.requirements what it needs",
        )
    return (wanted,)


def _takes_rows(release: Release, options: SeldonV2Options) -> bool:
    """Whether a packaged model answers itself: the settings beside it have MLServer make a table of named columns."""
    return release.model.digest is not None and options.pipeline is None and "sklearn" in requirements_of(release)


def _not_offered(wanted: Sequence[str], servers: Sequence[Manifest]) -> str | None:
    known = [offered(server) for server in servers]
    missing = [one for one in wanted if not any(one in (names or ()) for names in known)]
    if None in known or not missing:
        # what a ServerConfig of one's own offers is not written in the Server
        return None
    names = ", ".join(server["metadata"]["name"] for server in servers) or "none"
    missed = ", ".join(missing)
    return f"no Server in the namespace offers {missed} (there is {names}): add it to the extraCapabilities of one"


def _same_kind(options: SeldonV2Options) -> Callable[[Sequence[Manifest]], str | None]:
    def complaint(found: Sequence[Manifest]) -> str | None:
        kinds = {one["spec"].get("resourceType") or "model" for one in found}
        if kinds <= {_resource_type(options)}:
            return None
        return (
            f"the service shares its requests out to {kinds.pop()}s, and it cannot share them out to both: deploy it "
            "under another name and move its clients, or delete the service first"
        )

    return complaint


def _resource_type(options: SeldonV2Options) -> str:
    return "model" if options.pipeline is None else "pipeline"


def _model_name(release: Release) -> str:
    # a pipeline must not have the name of one of its steps, and it is the pipeline that requests are shared out to
    return release.revision if options_of(release.service).pipeline is None else f"{release.revision}-model"


def _experiment(release: Release, options: SeldonV2Options) -> Manifest:
    service, traffic = release.service, release.traffic
    # the newest comes last: if it is lost, those before it still answer
    shares = {**traffic.others, release.revision: traffic.percent if traffic.others else 100}
    candidates = [{"name": name, "weight": weight} for name, weight in shares.items() if weight]
    spec: dict[str, Any] = {"resourceType": _resource_type(options), "candidates": candidates}
    if options.default is not None:
        spec["default"] = options.default
        # a default is a candidate; this one gets no requests
        candidates.append({"name": options.default, "weight": 0})
    if traffic.mirror_percent and traffic.others:
        spec["mirror"] = {"name": release.revision, "percent": traffic.mirror_percent}
    metadata = {
        "name": service.name,
        "namespace": service.namespace,
        "labels": {**service.labels, SERVICE_LABEL: service.name},
        "annotations": dict(service.annotations),
    }
    return {"apiVersion": _API_VERSION, "kind": "Experiment", "metadata": metadata, "spec": spec}


def _model(release: Release, options: SeldonV2Options) -> Manifest:
    service = release.service
    spec: dict[str, Any] = {
        "storageUri": release.model.uri,
        "requirements": list(requirements_of(release)),
        **_replicas(service),
    }
    given = {
        "secretName": options.storage_secret,
        "memory": service.resources.memory,
        "server": release.revision if options.own_server is not None else options.server,
        "artifactVersion": options.artifact_version,
    }
    spec |= {name: value for name, value in given.items() if value is not None}
    if options.parameters:
        spec["parameters"] = [{"name": name, "value": value} for name, value in options.parameters.items()]
    if options.logger_percent is not None:
        spec["logger"] = {"percent": options.logger_percent}
    return _of_revision(release, "Model", _model_name(release), spec)


def _server(release: Release, server: SeldonV2Server) -> Manifest:
    service = release.service
    container: dict[str, Any] = {"name": server.container or server.config}
    if service.image is not None:
        container["image"] = service.image
    variables = environment(service.env, service.secrets)
    container |= {name: value for name, value in variables.items() if value}
    if resources := container_resources(server.resources):
        container["resources"] = resources
    pod = {"containers": [container], **scheduling(service)}
    spec: dict[str, Any] = {"serverConfig": server.config, **_replicas(service)}
    if server.capabilities:
        spec["extraCapabilities"] = list(server.capabilities)
    if len(container) > 1 or len(pod) > 1:
        spec["podSpec"] = pod
    return _of_revision(release, "Server", release.revision, spec)


def _explainer(release: Release, options: SeldonV2Options) -> Manifest:
    explainer = options.explainer
    assert explainer is not None  # noqa: S101 - for the type checker
    reference = "modelRef" if options.pipeline is None else "pipelineRef"
    spec: dict[str, Any] = {
        "storageUri": explainer.uri,
        "requirements": ["alibi-explain"],
        "explainer": {"type": explainer.type, reference: release.revision},
    }
    if options.storage_secret is not None:
        spec["secretName"] = options.storage_secret
    return _of_revision(release, "Model", f"{release.revision}-explainer", spec)


def _pipeline(release: Release, options: SeldonV2Options) -> Manifest:
    pipeline = options.pipeline
    assert pipeline is not None  # noqa: S101 - for the type checker
    names = {SELDON_V2_MODEL: _model_name(release), SELDON_V2_REQUEST: release.revision}

    def named(reference: str) -> str:
        step = step_of(reference)
        return names.get(step, step) + reference[len(step) :]

    steps = []
    for step in pipeline.steps:
        one: dict[str, Any] = {"name": named(step.name)}
        for field, references in (("inputs", step.inputs), ("triggers", step.triggers)):
            if references:
                one[field] = [named(reference) for reference in references]
                one[f"{field}JoinType"] = getattr(step, f"{field}_join")
        if step.join_window_ms is not None:
            one["joinWindowMs"] = step.join_window_ms
        if step.tensor_map:
            one["tensorMap"] = {named(reference): name for reference, name in step.tensor_map.items()}
        steps.append(one)
    output = [named(reference) for reference in pipeline.output or (pipeline.steps[-1].name,)]
    spec = {"steps": steps, "output": {"steps": output, "stepsJoin": pipeline.output_join}}
    return _of_revision(release, "Pipeline", release.revision, spec)


def _of_revision(release: Release, kind: str, name: str, spec: dict[str, Any]) -> Manifest:
    service = release.service
    metadata = {
        "name": name,
        "namespace": service.namespace,
        "labels": {**service.labels, SERVICE_LABEL: service.name, REVISION_LABEL: release.revision},
        "annotations": dict(service.annotations),
    }
    return {"apiVersion": _API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def _replicas(service: Service) -> dict[str, int]:
    scaling = service.scaling
    if scaling.max_replicas in (None, scaling.min_replicas):
        return {"replicas": scaling.min_replicas}
    return {"minReplicas": scaling.min_replicas, "maxReplicas": scaling.max_replicas}


def _check(release: Release, options: SeldonV2Options) -> None:
    service = release.service
    _check_uri(release.model.uri)
    _check_scaling(service)
    if service.port is not None:
        raise InvalidValue(
            "Service.port", service.port, "clients come in by the Service seldon-mesh, which has its own"
        )
    for name in ("cpu", "gpu"):
        if value := getattr(service.resources, name):
            raise InvalidValue(
                f"Resources.{name}",
                value,
                "a Model takes a part of a Server's memory and no more: give pods' compute in SeldonV2Server.resources",
            )
    if service.resources.memory is not None and (quantity(service.resources.memory) or 0) % 1:
        raise InvalidValue("Resources.memory", service.resources.memory, "Seldon counts whole bytes")
    if options.own_server is None:
        for name in _PODS:
            if value := getattr(service, name):
                raise InvalidValue(
                    f"Service.{name}",
                    value,
                    "the pods are those of a Server that others use, too: give the service one of its own "
                    "(SeldonV2Options.own_server)",
                )
    else:
        _check_own_server(release, options.own_server)
    if options.default is not None and options.default in (release.revision, *release.traffic.others):
        raise InvalidValue(
            "SeldonV2Options.default", options.default, "name a Model that clients ask for: this is a revision's own"
        )
    requirements_of(release)


def _check_own_server(release: Release, server: SeldonV2Server) -> None:
    if len(release.revision) > _SERVER_NAME:
        longest = _SERVER_NAME - len(release.revision) + len(release.service.name)
        raise InvalidValue(
            "Service.name",
            release.service.name,
            f"with own_server, use at most {longest} characters: pods append to it",
        )
    known = CAPABILITIES.get(server.config)
    if known is None:
        return
    for wanted in requirements_of(release):
        if wanted not in (*known, *server.capabilities):
            raise InvalidValue(
                "SeldonV2Options.requirements",
                wanted,
                f"a Server after {server.config} offers {', '.join((*known, *server.capabilities))}: take another "
                "config, or say in SeldonV2Server.capabilities that its image has it",
            )


def _check_scaling(service: Service) -> None:
    scaling = service.scaling
    if scaling.min_replicas < 1:
        raise InvalidValue("Scaling.min_replicas", scaling.min_replicas, "Seldon keeps at least one replica of a model")
    if (scaling.metric, scaling.target) != ("cpu", 80):
        raise InvalidValue(
            "Scaling.metric", scaling.metric, "Seldon scales by the requests that wait: leave metric and target out"
        )


def _check_uri(uri: str) -> None:
    scheme, found, _ = uri.partition("://")
    if not found or scheme in _NOT_RCLONE:
        raise InvalidValue(
            "ModelSource.uri",
            uri,
            "Seldon fetches models with rclone: package the model into a store that its Servers can reach, such as "
            "s3:// (package_model with repository=URI)",
        )
