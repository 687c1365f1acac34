"""What Seldon Core 1 is told beyond what every platform is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import urlsplit

from longshore.errors import InvalidValue
from longshore.spec.checks import (
    check_choice,
    check_dns_label,
    check_env,
    check_image,
    check_names,
    check_range,
    check_subdomain,
    check_uri,
    freeze,
)
from longshore.spec.kserve import PayloadLogger
from longshore.spec.values import Resources

__all__ = [
    "SELDON_SERVERS",
    "KedaTrigger",
    "SeldonExplainer",
    "SeldonGateway",
    "SeldonNode",
    "SeldonOptions",
]

Parameter = str | int | float | bool
SeldonKind = Literal["model", "router", "combiner", "transformer", "output-transformer"]
SeldonProtocol = Literal["seldon", "v2", "tensorflow"]

SELDON_SERVERS: Final[Mapping[str, tuple[SeldonProtocol, ...]]] = {
    "SKLEARN_SERVER": ("v2", "seldon"),
    "XGBOOST_SERVER": ("v2", "seldon"),
    "MLFLOW_SERVER": ("v2", "seldon"),
    "TENSORFLOW_SERVER": ("tensorflow", "seldon"),
    "TRITON_SERVER": ("v2",),
    "HUGGINGFACE_SERVER": ("v2",),
}
"""Seldon's prepackaged servers and what they speak, the usual one first."""

_ROUTERS: Final = {"RANDOM_ABTEST": "router", "EPSILON_GREEDY": "router", "AVERAGE_COMBINER": "combiner"}
_KINDS: Final = ("model", "router", "combiner", "transformer", "output-transformer")
_PROTOCOLS: Final = ("seldon", "v2", "tensorflow")
_GATEWAYS: Final = ("istio", "ambassador")
_EXPLAINERS: Final = (
    "AnchorTabular",
    "AnchorImages",
    "AnchorText",
    "KernelShap",
    "IntegratedGradients",
    "ALE",
    "TreeShap",
    "Counterfactuals",
    "Contrastive",
)
_PARAMETER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_TRIGGER: Final = re.compile(r"[a-z][a-z0-9-]*")
_HEADER: Final = re.compile(r"[A-Za-z0-9-]+")
_RESERVED: Final = frozenset({"seldon-container-engine", "tfserving"})
_DEEPEST: Final = 11
# Seldon labels its pods seldon-app-svc-NODE
_NODE_NAME: Final = 48


@dataclass(frozen=True, kw_only=True)
class SeldonNode:
    """A node of the graph that a request goes through. All nodes of a graph run in one pod.

    A node is one of: the service's own model (a ``model`` with neither implementation nor image, once in each graph); a
    prepackaged server with another model; a router or combiner that comes with Seldon or longshore; a container of
    one's own.

    Args:
        name: Its name, which answers carry in their routing.
        kind: ``model``; ``router``, which sends a request on to one of its children; ``combiner``, which makes one
            answer of theirs; ``transformer`` and ``output-transformer``, which work on the request before the children
            see it, and on their answer.
        implementation: A server of :data:`SELDON_SERVERS`; ``RANDOM_ABTEST``, which sends requests to one of two
            children by chance (parameter ``ratioA``); ``EPSILON_GREEDY``, longshore's bandit, which learns from rewards
            which child is best (parameters ``epsilon``, ``best_branch``, ``seed``); ``AVERAGE_COMBINER``, which
            averages what the children answer.
        uri: Folder of a prepackaged server's model, or what is fetched for a container of one's own.
        image: Container image of a node of one's own: it speaks Seldon's protocol of a component.
        command: Entry point in place of the image's.
        args: Its arguments.
        env: Its environment. Secrets do not belong here.
        secrets: Names of Secrets whose keys become environment variables.
        resources: Compute.
        parameters: Given to what runs there: text, numbers and truth values.
        children: The nodes below, in the order that a router counts them in.
    """

    name: str
    kind: SeldonKind = "model"
    implementation: str | None = None
    uri: str | None = None
    image: str | None = None
    command: Sequence[str] = ()
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Sequence[str] = ()
    resources: Resources = field(default_factory=Resources)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    children: Sequence[SeldonNode] = ()

    def __post_init__(self) -> None:
        check_dns_label("SeldonNode.name", self.name, max_length=_NODE_NAME)
        if self.name in _RESERVED:
            raise InvalidValue("SeldonNode.name", self.name, "a container of Seldon's has this name")
        check_choice("SeldonNode.kind", self.kind, _KINDS)
        if self.image is not None:
            check_image("SeldonNode.image", self.image)
        if self.uri is not None:
            check_uri("SeldonNode.uri", self.uri)
        for name in ("command", "args"):
            words = getattr(self, name)
            if isinstance(words, str) or not all(isinstance(word, str) for word in words):
                raise InvalidValue(f"SeldonNode.{name}", words, "use a list of strings")
            object.__setattr__(self, name, tuple(words))
        check_env(self, "env")
        check_names(self, "secrets")
        check_parameters(self, "SeldonNode.parameters")
        object.__setattr__(self, "children", tuple(self.children))
        self._check_implementation()
        self._check_children()

    @property
    def is_own(self) -> bool:
        """Whether it is the service's own model."""
        return self.kind == "model" and self.implementation is None and self.image is None

    def walk(self, above: tuple[str, ...] = ()) -> Iterator[SeldonNode]:
        """The node and all below it.

        Raises:
            InvalidValue: If a name comes twice: on one way down, requests would go round.
        """
        if self.name in above:
            way = " -> ".join((*above, self.name))
            raise InvalidValue("SeldonNode.name", self.name, f"requests would go round: {way}")
        if len(above) >= _DEEPEST:
            raise InvalidValue("SeldonNode.children", self.name, f"Seldon takes {_DEEPEST} nodes below each other")
        yield self
        for child in self.children:
            yield from child.walk((*above, self.name))

    def _check_implementation(self) -> None:
        known = {**dict.fromkeys(SELDON_SERVERS, "model"), **_ROUTERS}
        if self.implementation is None:
            if self.kind != "model" and self.image is None:
                raise InvalidValue("SeldonNode.image", None, f"a {self.kind} has an image or an implementation")
            if self.is_own:
                self._check_own()
            return
        check_choice("SeldonNode.implementation", self.implementation, tuple(known))
        if self.kind != known[self.implementation]:
            raise InvalidValue("SeldonNode.kind", self.kind, f"{self.implementation} is a {known[self.implementation]}")
        if self.implementation in SELDON_SERVERS:
            if self.uri is None and self.implementation != "HUGGINGFACE_SERVER":
                raise InvalidValue("SeldonNode.uri", None, f"{self.implementation} needs the folder of its model")
            return
        for name in ("uri", "command", "args"):
            if getattr(self, name):
                raise InvalidValue(f"SeldonNode.{name}", getattr(self, name), f"{self.implementation} has none")
        if self.implementation == "RANDOM_ABTEST":
            if self.image is not None:
                raise InvalidValue("SeldonNode.image", self.image, "RANDOM_ABTEST runs in no container")
            ratio = self.parameters.get("ratioA", 0.5)
            if isinstance(ratio, (str, bool)) or not 0 <= ratio <= 1:
                raise InvalidValue("SeldonNode.parameters['ratioA']", ratio, "use a number from 0 to 1")

    def _check_own(self) -> None:
        """The service says all of its own model."""
        for name, where in (
            ("uri", "ModelSource.uri"),
            ("command", "the image's"),
            ("args", "the image's"),
            ("env", "Service.env"),
            ("secrets", "Service.secrets"),
        ):
            if getattr(self, name):
                raise InvalidValue(
                    f"SeldonNode.{name}", getattr(self, name), f"for the service's own model it is {where}"
                )
        if self.resources != Resources():
            raise InvalidValue(
                "SeldonNode.resources", self.resources, "for the service's own model it is Service.resources"
            )

    def _check_children(self) -> None:
        count = len(self.children)
        if self.implementation == "RANDOM_ABTEST" and count != 2:
            raise InvalidValue("SeldonNode.children", count, "RANDOM_ABTEST chooses between two")
        if self.kind in ("router", "combiner") and count < 2:
            raise InvalidValue("SeldonNode.children", count, f"a {self.kind} has two or more")


@dataclass(frozen=True, kw_only=True)
class SeldonExplainer:
    """Explains predictions, in a Deployment beside each revision's.

    Args:
        type: Kind of explainer of Alibi, such as ``AnchorTabular`` or ``KernelShap``.
        uri: Folder of the fitted explainer; None for what needs none.
        storage_secret: Name of the Secret with the credentials of that folder.
        service_account: Kubernetes service account of its pods.
        image: Container image in place of Seldon's.
        config: Further arguments, by name.
        resources: Compute.
    """

    type: str
    uri: str | None = None
    storage_secret: str | None = None
    service_account: str | None = None
    image: str | None = None
    config: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)

    def __post_init__(self) -> None:
        check_choice("SeldonExplainer.type", self.type, _EXPLAINERS)
        if self.uri is not None:
            check_uri("SeldonExplainer.uri", self.uri)
        for name in ("storage_secret", "service_account"):
            if (value := getattr(self, name)) is not None:
                check_subdomain(f"SeldonExplainer.{name}", value)
        if self.image is not None:
            check_image("SeldonExplainer.image", self.image)
        for name, value in self.config.items():
            if not _PARAMETER.fullmatch(name) or not isinstance(value, str):
                raise InvalidValue(f"SeldonExplainer.config[{name!r}]", value, "use a name and a string")
        freeze(self, "config")


@dataclass(frozen=True, kw_only=True)
class SeldonGateway:
    """Where requests come in and are shared out to the revisions, as Seldon's operator was installed with it.

    Args:
        kind: ``istio`` or ``ambassador``.
        url: Where clients reach it, such as ``https://models.example.com``; None leaves the service's name in the
            cluster as its address, where the gateway has no say.
        gateway: Name of Istio's Gateway, ``NAME`` or ``NAMESPACE/NAME``; None is the operator's own.
        hosts: Host names of the service there; None given, all. Istio only.
        retries: How often a request is asked again when a revision does not answer.
        retry_seconds: For each of these. Istio only.
        headers: Headers that a request must have. Ambassador only.
        id: Which Ambassador, where there are several.
    """

    kind: Literal["istio", "ambassador"] = "istio"
    url: str | None = None
    gateway: str | None = None
    hosts: Sequence[str] = ()
    retries: int = 0
    retry_seconds: int = 1
    headers: Mapping[str, str] = field(default_factory=dict)
    id: str | None = None

    def __post_init__(self) -> None:
        check_choice("SeldonGateway.kind", self.kind, _GATEWAYS)
        if self.url is not None:
            parts = urlsplit(self.url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise InvalidValue("SeldonGateway.url", self.url, "use an http or https URL")
            if parts.password is not None:
                raise InvalidValue("SeldonGateway.url", f"{parts.scheme}://***", "no password in a URL")
        if self.gateway is not None:
            namespace, _, name = self.gateway.rpartition("/")
            check_subdomain("SeldonGateway.gateway", name)
            if namespace:
                check_dns_label("SeldonGateway.gateway", namespace)
        if isinstance(self.hosts, str):
            raise InvalidValue("SeldonGateway.hosts", self.hosts, "use a list of host names")
        for host in self.hosts:
            check_subdomain("SeldonGateway.hosts", host.removeprefix("*."))
        object.__setattr__(self, "hosts", tuple(self.hosts))
        check_range("SeldonGateway.retries", self.retries, 0)
        check_range("SeldonGateway.retry_seconds", self.retry_seconds, 1)
        for name, value in self.headers.items():
            # Seldon cuts its annotation apart at each colon
            if not _HEADER.fullmatch(name) or not isinstance(value, str) or not value or ":" in value:
                raise InvalidValue(
                    f"SeldonGateway.headers[{name!r}]", value, "use a header's name and a value without ':'"
                )
        freeze(self, "headers")
        if self.id is not None:
            check_subdomain("SeldonGateway.id", self.id)
        others = ("headers", "id") if self.kind == "istio" else ("gateway", "hosts")
        for name in others:
            if value := getattr(self, name):
                raise InvalidValue(f"SeldonGateway.{name}", value, f"{self.kind.capitalize()} has another way")


@dataclass(frozen=True, kw_only=True)
class KedaTrigger:
    """What KEDA scales by: see its documentation of scalers.

    Args:
        type: The scaler, such as ``prometheus``.
        metadata: What it is told.
        authentication: Name of a TriggerAuthentication in the namespace.
    """

    type: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    authentication: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.type, str) or not _TRIGGER.fullmatch(self.type):
            raise InvalidValue("KedaTrigger.type", self.type, "name a scaler of KEDA's, such as prometheus")
        for name, value in self.metadata.items():
            if not name or not isinstance(value, str):
                raise InvalidValue(f"KedaTrigger.metadata[{name!r}]", value, "use a name and a string")
        freeze(self, "metadata")
        if self.authentication is not None:
            check_subdomain("KedaTrigger.authentication", self.authentication)


@dataclass(frozen=True, kw_only=True)
class SeldonOptions:
    """How Seldon Core 1 runs a service.

    Args:
        implementation: The prepackaged server of :data:`SELDON_SERVERS`; None takes longshore's own for what longshore
            has packaged, the service's image where it has one, and else the one that fits the format.
        protocol: ``seldon``, ``v2`` or ``tensorflow``, for all that the service ever serves; None takes the server's
            usual one, and for longshore's own ``seldon``, which knows rewards.
        parameters: Given to the server, such as ``{"method": "predict_proba"}``.
        storage_secret: Name of the Secret whose keys rclone takes for the model's storage
            (``RCLONE_CONFIG_<REMOTE>_<OPTION>``); None takes those of the service account or the operator's default.
        graph: Nodes around the service's own model; None is the model alone.
        explainer: Explains predictions.
        keda: What KEDA scales by; nothing leaves scaling to Kubernetes' own autoscaler, where the service has
            ``max_replicas``.
        logger: Sends requests and answers of the model on.
        gateway: Where requests come in.
        rest_timeout_seconds: For an answer over REST.
        grpc_timeout_seconds: For an answer over gRPC.
        engine: Compute of the orchestrator beside the model, which asks for half a CPU unless told otherwise.
        engine_env: Its environment.
    """

    implementation: str | None = None
    protocol: SeldonProtocol | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    storage_secret: str | None = None
    graph: SeldonNode | None = None
    explainer: SeldonExplainer | None = None
    keda: Sequence[KedaTrigger] = ()
    logger: PayloadLogger | None = None
    gateway: SeldonGateway | None = None
    rest_timeout_seconds: int | None = None
    grpc_timeout_seconds: int | None = None
    engine: Resources = field(default_factory=Resources)
    engine_env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.implementation is not None:
            check_choice("SeldonOptions.implementation", self.implementation, tuple(SELDON_SERVERS))
        if self.protocol is not None:
            check_choice("SeldonOptions.protocol", self.protocol, _PROTOCOLS)
        check_parameters(self, "SeldonOptions.parameters")
        if self.storage_secret is not None:
            check_subdomain("SeldonOptions.storage_secret", self.storage_secret)
        if self.graph is not None:
            self._check_graph(self.graph)
        object.__setattr__(self, "keda", tuple(self.keda))
        for name in ("rest_timeout_seconds", "grpc_timeout_seconds"):
            if (value := getattr(self, name)) is not None:
                check_range(f"SeldonOptions.{name}", value, 1)
        check_env(self, "engine_env")

    def _check_graph(self, graph: SeldonNode) -> None:
        nodes = list(graph.walk())
        names = [node.name for node in nodes]
        for name in names:
            if names.count(name) > 1:
                raise InvalidValue("SeldonNode.name", name, "two nodes of the graph have this name")
        own = [node.name for node in nodes if node.is_own]
        if len(own) != 1:
            raise InvalidValue(
                "SeldonOptions.graph",
                own,
                "one node is the service's own model: of the kind 'model', with neither implementation nor image",
            )


def check_parameters(owner: object, where: str) -> None:
    """Have ``owner.parameters`` be a frozen mapping of what Seldon can hand on."""
    parameters: Mapping[str, Parameter] = getattr(owner, "parameters")  # noqa: B009 - of two types
    for name, value in parameters.items():
        if not _PARAMETER.fullmatch(name):
            raise InvalidValue(f"{where} key", name, "use letters, digits, '_', '-' and '.'")
        if not isinstance(value, (str, int, float, bool)):
            raise InvalidValue(f"{where}[{name!r}]", value, "use a text, a number or a truth value")
    freeze(owner, "parameters")
