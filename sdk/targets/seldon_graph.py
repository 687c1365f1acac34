"""The nodes of a SeldonDeployment's graph, and the containers that they run in: pure functions on a release.

Containers name their ports. Seldon counts those that are left to it up over all containers of all predictors, so that a
revision's pods would restart whenever another revision comes or goes.
"""

from __future__ import annotations

from typing import Any, Final

from longshore.errors import InvalidValue
from longshore.spec import SELDON_SERVERS, Release, SeldonNode, SeldonOptions, Service
from longshore.targets.pods import (
    LINGER_SECONDS,
    SELDON_IMAGE,
    container_resources,
    container_security,
    environment,
    server_image,
)

__all__ = [
    "DRAIN_SECONDS",
    "containers",
    "graph",
    "is_packaged",
    "options_of",
    "own_image",
    "protocol_of",
    "root_of",
    "server_of",
]

DRAIN_SECONDS: Final = 20

_MOUNT: Final = "/mnt/models"
_PORTS: Final = {"http": 9000, "grpc": 9500, "metrics": 6000}
# what longshore's own servers speak, the usual one first: only the first knows feedback
_OWN: Final = ("seldon", "v2")
_SERVERS: Final = {
    "sklearn": "SKLEARN_SERVER",
    "xgboost": "XGBOOST_SERVER",
    "mlflow": "MLFLOW_SERVER",
    "tensorflow": "TENSORFLOW_SERVER",
    "onnx": "TRITON_SERVER",
    "tensorrt": "TRITON_SERVER",
    "triton": "TRITON_SERVER",
    "huggingface": "HUGGINGFACE_SERVER",
}
_COMPONENTS: Final = {
    "EPSILON_GREEDY": "longshore.serving.seldon_router.EpsilonGreedy",
    "AVERAGE_COMBINER": "longshore.serving.seldon_router.AverageCombiner",
}
_LONGEST: Final = 48


def options_of(service: Service) -> SeldonOptions:
    """What a service says of Seldon Core 1, or else Seldon's defaults."""
    return service.seldon or SeldonOptions()


def is_packaged(release: Release) -> bool:
    """Whether longshore's own server serves the model."""
    return release.model.digest is not None and options_of(release.service).implementation is None


def server_of(release: Release) -> str | None:
    """The prepackaged server that serves the model; None is longshore's own, or the service's image.

    Raises:
        InvalidValue: If nothing serves the format.
    """
    given = options_of(release.service).implementation
    if given is not None or is_packaged(release) or release.service.image is not None:
        return given
    model = release.model
    if model.format not in _SERVERS:
        raise InvalidValue(
            "ModelSource.format",
            model.format,
            f"Seldon brings a server for {', '.join(_SERVERS)}: package the model, or name an image (Service.image)",
        )
    return _SERVERS[model.format]


def own_image(release: Release) -> str | None:
    """The image of longshore's server where that serves the model."""
    if not is_packaged(release):
        return None
    return SELDON_IMAGE if protocol_of(release) == "seldon" else server_image("fastapi")


def protocol_of(release: Release) -> str:
    """What the service speaks.

    Raises:
        InvalidValue: If a server in the graph does not.
    """
    asked, server = options_of(release.service).protocol, server_of(release)
    if server is not None:
        spoken: tuple[str, ...] = SELDON_SERVERS[server]
    elif is_packaged(release):
        spoken = _OWN
    else:
        spoken = ("seldon", "v2", "tensorflow")
    if asked is not None and asked not in spoken:
        who = server or "longshore's server"
        raise InvalidValue("SeldonOptions.protocol", asked, f"{who} speaks {', '.join(spoken)}")
    protocol = asked or spoken[0]
    nodes = list(root_of(release).walk())
    for node in nodes:
        others = SELDON_SERVERS.get(node.implementation or "", (protocol,))
        if protocol not in others:
            raise InvalidValue(
                "SeldonNode.implementation",
                node.implementation,
                f"it speaks {', '.join(others)}, and the service speaks {protocol}",
            )
    if len(nodes) > 1 and protocol != "seldon":
        raise InvalidValue(
            "SeldonOptions.graph",
            [node.name for node in nodes],
            f"with {protocol}, Seldon asks each node for the model that the request names: use the protocol seldon",
        )
    return protocol


def root_of(release: Release) -> SeldonNode:
    """The node that requests enter at."""
    given = options_of(release.service).graph
    if given is not None:
        return given
    name = release.model.name
    # the name of a label, and not that of a container of Seldon's
    return SeldonNode(name=name if len(name) <= _LONGEST and name != "tfserving" else "model")


def graph(release: Release) -> dict[str, Any]:
    """The graph as Seldon is told."""
    return _node(release, root_of(release))


def containers(release: Release) -> list[dict[str, Any]]:
    """The containers of its nodes, in the order in which requests come by."""
    nodes = [node for node in root_of(release).walk() if node.implementation != "RANDOM_ABTEST"]
    return [_container(release, node, place) for place, node in enumerate(nodes)]


def _node(release: Release, node: SeldonNode) -> dict[str, Any]:
    rendered: dict[str, Any] = {"name": node.name}
    parameters = dict(node.parameters)
    if node.is_own:
        rendered |= _own(release)
        parameters |= {**_hub(release), **options_of(release.service).parameters}
        if is_packaged(release) and protocol_of(release) == "seldon":
            parameters = {**_told(release), **parameters}
    else:
        if node.implementation in SELDON_SERVERS or node.implementation == "RANDOM_ABTEST":
            rendered["implementation"] = node.implementation
        else:
            rendered["type"] = node.kind.upper().replace("-", "_")
        if node.uri is not None:
            rendered["modelUri"] = node.uri
            rendered |= _credentials(release)
        if node.implementation == "EPSILON_GREEDY":
            parameters["branches"] = ",".join(child.name for child in node.children)
    if parameters:
        rendered["parameters"] = [_parameter(name, value) for name, value in parameters.items()]
    if node.children:
        rendered["children"] = [_node(release, child) for child in node.children]
    return rendered


def _own(release: Release) -> dict[str, Any]:
    """The node of the service's own model."""
    service, options, server = release.service, options_of(release.service), server_of(release)
    # a model of the hub is a parameter: see _hub
    rendered: dict[str, Any] = {} if _hub(release) else {"modelUri": release.model.uri, **_credentials(release)}
    # a prepackaged server is a model by itself
    rendered |= {"type": "MODEL"} if server is None else {"implementation": server}
    if service.service_account is not None:
        rendered["serviceAccountName"] = service.service_account
    if options.logger is not None:
        rendered["logger"] = {"mode": options.logger.mode, "url": options.logger.url}
    return rendered


def _hub(release: Release) -> dict[str, str]:
    """A model that Seldon's Hugging Face server fetches itself: its initializer knows no hf://."""
    scheme, _, name = release.model.uri.partition("://")
    return {"pretrained_model": name} if scheme == "hf" and server_of(release) == "HUGGINGFACE_SERVER" else {}


def _credentials(release: Release) -> dict[str, str]:
    secret = options_of(release.service).storage_secret
    return {} if secret is None else {"envSecretRefName": secret}


def _told(release: Release) -> dict[str, str]:
    """What longshore's server is told inside Seldon's microservice."""
    model = release.model
    told = {"name": model.name, "version": model.version, "revision": release.revision, "digest": model.digest}
    return {name: value for name, value in told.items() if value is not None}


def _parameter(name: str, value: str | float) -> dict[str, str]:
    # a truth value is a number, too
    kind = {bool: "BOOL", int: "INT", float: "FLOAT"}.get(type(value), "STRING")
    return {"name": name, "type": kind, "value": str(value).lower() if kind == "BOOL" else str(value)}


def _container(release: Release, node: SeldonNode, place: int) -> dict[str, Any]:
    service = release.service
    rendered: dict[str, Any] = {
        "name": node.name,
        "ports": [{"name": name, "containerPort": first + place, "protocol": "TCP"} for name, first in _PORTS.items()],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if node.is_own:
        rendered |= environment(service.env, service.secrets)
        rendered["resources"] = container_resources(service.resources)
        if service.image is not None:
            rendered["image"] = service.image
        if is_packaged(release):
            rendered = {**rendered, **_own_server(release, node, place), **_guarded()}
        return rendered
    rendered |= environment(node.env, node.secrets)
    rendered["resources"] = container_resources(node.resources)
    if node.image is not None:
        rendered["image"] = node.image
    for name in ("command", "args"):
        if words := getattr(node, name):
            rendered[name] = list(words)
    if (component := _COMPONENTS.get(node.implementation or "")) is not None:
        rendered["image"] = node.image or SELDON_IMAGE
        rendered |= _microservice(component, node.kind)
        rendered |= {**_probes("/health/ping", _PORTS["http"] + place), **_guarded()}
    return rendered


def _own_server(release: Release, node: SeldonNode, place: int) -> dict[str, Any]:
    """Longshore's server: inside Seldon's microservice, or with V2 by itself."""
    service, port = release.service, _PORTS["http"] + place
    if protocol_of(release) == "seldon":
        return {
            "image": service.image or own_image(release),
            **_microservice("longshore.serving.seldon_app.Model", "model"),
            **_probes("/health/status", port),
        }
    told = {
        "--model": _MOUNT,
        "--framework": "fastapi",
        # what Seldon's executor asks for
        "--name": node.name,
        "--revision": release.revision,
        "--digest": release.model.digest,
        "--model-version": release.model.version,
        "--host": "0.0.0.0",  # noqa: S104 - the pod's own network
        "--port": port,
        "--grpc-port": _PORTS["grpc"] + place,
        "--drain-seconds": DRAIN_SECONDS,
    }
    return {
        "image": service.image or own_image(release),
        "args": [f"{name}={value}" for name, value in told.items() if value is not None],
        **_probes("/v2/health/ready", port),
    }


def _microservice(component: str, kind: str) -> dict[str, Any]:
    return {"command": ["seldon-core-microservice"], "args": [component, "--service-type", kind.upper()]}


def _probes(path: str, port: int) -> dict[str, Any]:
    """Seldon's own give a server a minute to load, and look every five seconds."""
    get = {"httpGet": {"path": path, "port": port}}
    return {
        "readinessProbe": {**get, "periodSeconds": 1, "timeoutSeconds": 5},
        "livenessProbe": {**get, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        # how long loading takes is the release's time-out to judge
        "startupProbe": {**get, "periodSeconds": 1, "failureThreshold": 3600},
    }


def _guarded() -> dict[str, Any]:
    return {
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(LINGER_SECONDS)]}}},
        "securityContext": {**container_security(), "readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],  # noqa: S108 - the pod's own
    }
