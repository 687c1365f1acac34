"""What Seldon Core 2 is told beyond what every platform is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from longshore.errors import InvalidValue
from longshore.spec.checks import (
    check_choice,
    check_dns_label,
    check_range,
    check_subdomain,
    check_uri,
    freeze,
)
from longshore.spec.values import Resources

__all__ = [
    "SELDON_V2_MODEL",
    "SELDON_V2_REQUEST",
    "SeldonV2Explainer",
    "SeldonV2Options",
    "SeldonV2Pipeline",
    "SeldonV2Server",
    "SeldonV2Step",
]

SELDON_V2_MODEL: Final = "model"
"""The service's own model, among the steps of a pipeline: its name in the cluster changes with each revision."""

SELDON_V2_REQUEST: Final = "pipeline"
"""What the pipeline was asked, among the inputs of a step."""

Join = Literal["inner", "outer", "any"]

_JOINS: Final = ("inner", "outer", "any")
_CAPABILITY: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
# STEP, STEP.outputs, STEP.outputs.TENSOR, and the same of its inputs
_REFERENCE: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.(inputs|outputs)(\.[^.\s]+)?)?")
_REFERENCE_RULE: Final = "write STEP, STEP.outputs or STEP.outputs.TENSOR, or inputs in place of outputs"


@dataclass(frozen=True, kw_only=True)
class SeldonV2Server:
    """A Server of the service's own: each revision runs in pods that nothing else shares.

    Its number of replicas is that of the service, and the service's image, environment, service account and place go
    to its pods.

    Args:
        config: The ServerConfig that it is made after: ``mlserver``, ``triton`` or one of your own.
        container: Name of the model server's container in there; None is the config's name.
        capabilities: What it offers beyond its config, for the requirements of models.
        resources: Compute of a pod. What the model takes of the memory is ``Service.resources``.
    """

    config: str = "mlserver"
    container: str | None = None
    capabilities: Sequence[str] = ()
    resources: Resources = field(default_factory=Resources)

    def __post_init__(self) -> None:
        check_subdomain("SeldonV2Server.config", self.config)
        if self.container is not None:
            check_dns_label("SeldonV2Server.container", self.container)
        _capabilities(self, "capabilities")


@dataclass(frozen=True, kw_only=True)
class SeldonV2Explainer:
    """Explains predictions, as a Model beside the service's own.

    Args:
        type: Kind of explainer, such as ``anchor_tabular`` or ``kernel_shap``.
        uri: Folder of the explainer.
    """

    type: str
    uri: str

    def __post_init__(self) -> None:
        if not isinstance(self.type, str) or not _CAPABILITY.fullmatch(self.type):
            raise InvalidValue("SeldonV2Explainer.type", self.type, "name a kind of explainer, such as anchor_tabular")
        check_uri("SeldonV2Explainer.uri", self.uri)


@dataclass(frozen=True, kw_only=True)
class SeldonV2Step:
    """A step of a pipeline, which asks a Model.

    Args:
        name: Name of a Model that is there, or :data:`SELDON_V2_MODEL` for the service's own.
        inputs: What it is sent: ``STEP``, ``STEP.outputs`` or ``STEP.outputs.TENSOR`` of another step, or ``inputs`` in
            place of ``outputs``; the same of :data:`SELDON_V2_REQUEST`. Nothing is all that the pipeline was asked.
        inputs_join: Whether it waits for all of them (``inner``), for all within the window (``outer``) or for one
            (``any``).
        triggers: What has to have come before it runs, in the same form, though it is not sent.
        triggers_join: The same for these.
        join_window_ms: How long it waits, in milliseconds; None is Seldon's default.
        tensor_map: New names of tensors, by ``STEP.outputs.TENSOR``.
    """

    name: str
    inputs: Sequence[str] = ()
    inputs_join: Join = "inner"
    triggers: Sequence[str] = ()
    triggers_join: Join = "inner"
    join_window_ms: int | None = None
    tensor_map: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_dns_label("SeldonV2Step.name", self.name)
        if self.name == SELDON_V2_REQUEST:
            raise InvalidValue("SeldonV2Step.name", self.name, "among the inputs of a step, this is the request")
        for name in ("inputs", "triggers"):
            _references(self, name)
        for name in ("inputs_join", "triggers_join"):
            check_choice(f"SeldonV2Step.{name}", getattr(self, name), _JOINS)
        if self.join_window_ms is not None:
            check_range("SeldonV2Step.join_window_ms", self.join_window_ms, 1)
        _tensor_map(self)
        sent = {step_of(one) for one in self.inputs}
        for trigger in self.triggers:
            if step_of(trigger) in sent:
                raise InvalidValue(
                    "SeldonV2Step.triggers", trigger, f"{self.name} is sent this already: it waits for it"
                )

    @property
    def before(self) -> Iterator[str]:
        """The steps whose tensors it takes or waits for."""
        for reference in (*self.inputs, *self.triggers):
            if (step := step_of(reference)) != SELDON_V2_REQUEST:
                yield step


@dataclass(frozen=True, kw_only=True)
class SeldonV2Pipeline:
    """Steps around the service's model, joined by Kafka.

    Args:
        steps: The steps; one of them is :data:`SELDON_V2_MODEL`.
        output: What is answered: references to steps, as the inputs of one. Nothing is the last step's outputs.
        output_join: Whether all of them are waited for; as ``SeldonV2Step.inputs_join``.
    """

    steps: Sequence[SeldonV2Step]
    output: Sequence[str] = ()
    output_join: Join = "inner"

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        names = [step.name for step in self.steps]
        if SELDON_V2_MODEL not in names:
            raise InvalidValue("SeldonV2Pipeline.steps", names, f"one of them is {SELDON_V2_MODEL}, the service's own")
        for name in names:
            if names.count(name) > 1:
                raise InvalidValue("SeldonV2Step.name", name, "two steps of a pipeline have this name")
        for step in self.steps:
            for before in step.before:
                if before not in names:
                    raise InvalidValue("SeldonV2Step.inputs", before, f"the steps are {', '.join(names)}")
        for step in self.steps:
            self._walk(step.name, ())
        _references(self, "output")
        for reference in self.output:
            if step_of(reference) not in names:
                raise InvalidValue("SeldonV2Pipeline.output", reference, f"the steps are {', '.join(names)}")
        check_choice("SeldonV2Pipeline.output_join", self.output_join, _JOINS)

    def _walk(self, name: str, way: tuple[str, ...]) -> None:
        if name in way:
            raise InvalidValue("SeldonV2Step.inputs", name, f"tensors would go round: {' -> '.join((*way, name))}")
        for before in next(step for step in self.steps if step.name == name).before:
            self._walk(before, (*way, name))


@dataclass(frozen=True, kw_only=True)
class SeldonV2Options:
    """How Seldon Core 2 runs a service.

    Args:
        requirements: Capabilities that a Server needs to run the model; nothing takes the one that loads its format.
        server: Name of the Server that runs it; None leaves that to Seldon's scheduler.
        own_server: A Server for this service alone.
        storage_secret: Name of the Secret with the rclone configuration of the model's storage.
        artifact_version: Number of the folder below the model's URI that is loaded; None is what Seldon takes itself:
            the largest.
        parameters: Handed to the model when it is loaded.
        logger_percent: Share of the requests whose payloads Seldon logs.
        explainer: Explains predictions.
        pipeline: Steps around the model.
        default: Name of a Model (with a pipeline: a Pipeline) that is there already and whose clients get this
            service's answers from now on. It has to stay, and answers nobody itself.
        mesh_namespace: Namespace of the Service ``seldon-mesh`` that clients ask; None is the service's own.
    """

    requirements: Sequence[str] = ()
    server: str | None = None
    own_server: SeldonV2Server | None = None
    storage_secret: str | None = None
    artifact_version: int | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    logger_percent: int | None = None
    explainer: SeldonV2Explainer | None = None
    pipeline: SeldonV2Pipeline | None = None
    default: str | None = None
    mesh_namespace: str | None = None

    def __post_init__(self) -> None:
        _capabilities(self, "requirements")
        for name in ("server", "storage_secret"):
            if (value := getattr(self, name)) is not None:
                check_subdomain(f"SeldonV2Options.{name}", value)
        if self.server is not None and self.own_server is not None:
            raise InvalidValue("SeldonV2Options.server", self.server, "with own_server, it runs in that")
        if self.artifact_version is not None:
            check_range("SeldonV2Options.artifact_version", self.artifact_version, 0)
        for name, value in self.parameters.items():
            if not name or not isinstance(value, str):
                raise InvalidValue(f"SeldonV2Options.parameters[{name!r}]", value, "use a name and a string")
        freeze(self, "parameters")
        if self.logger_percent is not None:
            check_range("SeldonV2Options.logger_percent", self.logger_percent, 1, 100)
        if self.default is not None:
            check_dns_label("SeldonV2Options.default", self.default, max_length=253)
        if self.mesh_namespace is not None:
            check_dns_label("SeldonV2Options.mesh_namespace", self.mesh_namespace)


def step_of(reference: str) -> str:
    """The step that a reference to tensors names."""
    return reference.partition(".")[0]


def _capabilities(owner: object, name: str) -> None:
    where, values = f"{type(owner).__name__}.{name}", getattr(owner, name)
    if isinstance(values, str):
        raise InvalidValue(where, values, "use a list of names")
    for value in values:
        if not isinstance(value, str) or not _CAPABILITY.fullmatch(value):
            raise InvalidValue(where, value, "use letters, digits, '-', '_' and '.'")
    object.__setattr__(owner, name, tuple(values))


def _references(owner: object, name: str) -> None:
    where, values = f"{type(owner).__name__}.{name}", getattr(owner, name)
    if isinstance(values, str):
        raise InvalidValue(where, values, "use a list of references")
    for value in values:
        if not isinstance(value, str) or not _REFERENCE.fullmatch(value):
            raise InvalidValue(where, value, _REFERENCE_RULE)
    object.__setattr__(owner, name, tuple(values))


def _tensor_map(step: SeldonV2Step) -> None:
    for reference, name in step.tensor_map.items():
        if not _REFERENCE.fullmatch(reference) or reference.count(".") != 2:
            raise InvalidValue("SeldonV2Step.tensor_map key", reference, "write STEP.outputs.TENSOR")
        if not isinstance(name, str) or not name:
            raise InvalidValue(f"SeldonV2Step.tensor_map[{reference!r}]", name, "use the tensor's new name")
    freeze(step, "tensor_map")
