"""Several models behind one endpoint: KServe's InferenceGraph."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import urlsplit

from longshore.errors import InvalidValue
from longshore.spec.checks import check_choice, check_range, check_service_name, freeze
from longshore.spec.digest import revision_name
from longshore.spec.service import Service
from longshore.spec.values import Traffic

__all__ = ["GraphNode", "GraphStep", "GraphTimeouts", "InferenceGraph"]

NodeKind = Literal["Sequence", "Switch", "Ensemble", "Splitter"]
StepData = Literal["$request", "$response"]
Dependency = Literal["Soft", "Hard"]

_KINDS: Final = ("Sequence", "Switch", "Ensemble", "Splitter")
_DATA: Final = ("$request", "$response")
_DEPENDENCIES: Final = ("Soft", "Hard")
_ROOT: Final = "root"
_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class GraphStep:
    """One step of a node: it asks a service, an address or another node; exactly one of them is given.

    Args:
        service: Name of an InferenceService in the graph's namespace.
        node: Name of another node of the graph.
        url: Address that is asked as it is, path included.
        name: Name of the step; an ensemble's answers bear it. Unique in the node.
        data: What is sent, in a sequence: ``$request``, what the graph was asked, or ``$response``, the answer of the
            step before; None is the former.
        condition: A gjson expression. In a switch, the first step whose expression is found in the request is taken; a
            sequence ends before a step whose expression is not in the answer before.
        weight: Share of the requests in a splitter, in percent.
        dependency: ``Hard``: a failure ends the sequence or ensemble with its answer; ``Soft``: it goes on, and the
            graph may be deployed while the service is not ready; None goes on, too, but the service has to be ready.
        map_predictions: In a sequence, send the ``predictions`` of the answer before as ``instances``.
    """

    service: str | None = None
    node: str | None = None
    url: str | None = None
    name: str | None = None
    data: StepData | None = None
    condition: str | None = None
    weight: int | None = None
    dependency: Dependency | None = None
    map_predictions: bool = False

    def __post_init__(self) -> None:
        given = [name for name in ("service", "node", "url") if getattr(self, name) is not None]
        if len(given) != 1:
            raise InvalidValue("GraphStep", " and ".join(given) or None, "give one of service, node and url")
        if self.service is not None:
            check_service_name("GraphStep.service", self.service)
        for name in ("node", "name"):
            if (value := getattr(self, name)) is not None:
                _check_name(f"GraphStep.{name}", value)
        if self.url is not None:
            parts = urlsplit(self.url)
            if parts.password is not None:
                raise InvalidValue("GraphStep.url", "http://***", "no password in a URL")
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise InvalidValue("GraphStep.url", self.url, "use an http or https URL")
        if self.data is not None:
            check_choice("GraphStep.data", self.data, _DATA)
        if self.condition is not None and not (isinstance(self.condition, str) and self.condition.strip()):
            raise InvalidValue("GraphStep.condition", self.condition, "use a gjson expression, or leave it out")
        if self.weight is not None:
            check_range("GraphStep.weight", self.weight, 0, 100)
        if self.dependency is not None:
            check_choice("GraphStep.dependency", self.dependency, _DEPENDENCIES)


@dataclass(frozen=True, kw_only=True)
class GraphNode:
    """How a node routes a request.

    Args:
        kind: ``Sequence``: one step after the other; ``Switch``: the first whose condition holds; ``Ensemble``: all,
            and their answers in one; ``Splitter``: one of them, drawn by weight.
        steps: Its steps.
    """

    kind: NodeKind
    steps: Sequence[GraphStep]

    def __post_init__(self) -> None:
        check_choice("GraphNode.kind", self.kind, _KINDS)
        object.__setattr__(self, "steps", tuple(self.steps))
        if not self.steps:
            raise InvalidValue("GraphNode.steps", (), "give at least one step")
        names = [step.name for step in self.steps if step.name is not None]
        for name in names:
            if names.count(name) > 1:
                raise InvalidValue("GraphStep.name", name, "two steps of a node have this name")
        for index, step in enumerate(self.steps):
            self._check(index, step)
        weights = sum(step.weight or 0 for step in self.steps)
        if self.kind == "Splitter" and weights != 100:
            raise InvalidValue("GraphStep.weight", weights, "the weights of a splitter make 100 together")

    def _check(self, index: int, step: GraphStep) -> None:
        if self.kind == "Splitter" and step.weight is None:
            raise InvalidValue("GraphStep.weight", None, "every step of a splitter needs one")
        if self.kind != "Splitter" and step.weight is not None:
            raise InvalidValue("GraphStep.weight", step.weight, "only the steps of a splitter have one")
        if self.kind == "Switch" and step.condition is None:
            raise InvalidValue("GraphStep.condition", None, "a step of a switch without one is never taken")
        if self.kind in ("Ensemble", "Splitter") and step.condition is not None:
            raise InvalidValue("GraphStep.condition", step.condition, "only a switch and a sequence look at it")
        if self.kind != "Sequence" and step.data is not None:
            raise InvalidValue("GraphStep.data", step.data, "only in a sequence is there an answer before")
        if self.kind != "Sequence" and step.map_predictions:
            raise InvalidValue("GraphStep.map_predictions", True, "only in a sequence is there an answer before")
        if self.kind == "Sequence" and index == 0:
            if step.condition is not None:
                raise InvalidValue("GraphStep.condition", step.condition, "before the first step there is no answer")
            if step.data == "$response":
                raise InvalidValue("GraphStep.data", step.data, "before the first step there is no answer")


@dataclass(frozen=True, kw_only=True)
class GraphTimeouts:
    """How long a graph's router waits, in seconds; None is its own, which is 60, 60, 180 and for ever.

    Args:
        read: For a request to be read.
        write: For the answer, from the end of the request's header: longer than all steps together.
        idle: For the next request of a connection.
        step: For the answer of a step.
    """

    read: int | None = None
    write: int | None = None
    idle: int | None = None
    step: int | None = None

    def __post_init__(self) -> None:
        for name in ("read", "write", "idle", "step"):
            if (value := getattr(self, name)) is not None:
                check_range(f"GraphTimeouts.{name}", value, 1)


@dataclass(frozen=True, kw_only=True)
class InferenceGraph:
    """Several services behind one endpoint, for the engine what a :class:`~longshore.spec.Release` is for a model.

    Args:
        service: The endpoint: its name and namespace, the router's resources, replicas and place.
        nodes: The nodes by name; a request enters at ``root``.
        timeouts: How long the router waits.
    """

    service: Service
    nodes: Mapping[str, GraphNode]
    timeouts: GraphTimeouts = field(default_factory=GraphTimeouts)

    def __post_init__(self) -> None:
        if _ROOT not in self.nodes:
            raise InvalidValue(
                "InferenceGraph.nodes", sorted(map(str, self.nodes)), f"one has the name {_ROOT}: requests enter there"
            )
        for name in self.nodes:
            _check_name("InferenceGraph.nodes key", name)
        freeze(self, "nodes")
        reached = set(self._walk(_ROOT, ()))
        for name in self.nodes:
            if name not in reached:
                raise InvalidValue("InferenceGraph.nodes key", name, f"no step leads from {_ROOT} to this node")

    def _walk(self, name: str, way: tuple[str, ...]) -> Iterator[str]:
        """The nodes that requests reach from one."""
        if name in way:
            raise InvalidValue("GraphStep.node", name, f"requests would go round: {' -> '.join((*way, name))}")
        yield name
        for step in self.nodes[name].steps:
            if step.node is None:
                continue
            if step.node not in self.nodes:
                raise InvalidValue("GraphStep.node", step.node, f"the nodes are {', '.join(self.nodes)}")
            yield from self._walk(step.node, (*way, name))

    @property
    def traffic(self) -> Traffic:
        """All: a graph replaces the one before as a whole."""
        return Traffic()

    def next_to(self, previous: InferenceGraph | None) -> InferenceGraph:  # noqa: ARG002
        """The same: nothing stands beside it."""
        return self

    @property
    def revision(self) -> str:
        """Name of what runs: equal content gives an equal name.

        The router is given all of it on its command line, and its pods bear the labels and annotations: there is no
        change that does not restart it.
        """
        return revision_name(self)


def _check_name(field_name: str, value: str) -> None:
    if not isinstance(value, str) or len(value) > 63 or not _NAME.fullmatch(value):
        raise InvalidValue(field_name, value, "use at most 63 letters, digits, '-', '_' and '.'")
