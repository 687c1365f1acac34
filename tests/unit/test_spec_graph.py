"""Graphs: what is refused, by which field, and what counts as another revision."""

import json
from dataclasses import replace

import pytest

from longshore.errors import InvalidValue
from longshore.spec import (
    GraphNode,
    GraphStep,
    GraphTimeouts,
    InferenceGraph,
    KServeOptions,
    Resources,
    Scaling,
    Service,
    Toleration,
    from_plain,
    to_plain,
)

ONE = GraphStep(service="one")


def node(*steps, kind="Sequence"):
    return GraphNode(kind=kind, steps=steps or (ONE,))


def graph(**nodes):
    return InferenceGraph(service=Service(name="flow"), nodes=nodes)


def to(name, **changes):
    return GraphStep(node=name, **changes)


REFUSED = {
    "no target": (lambda: GraphStep(name="a"), "GraphStep"),
    "two targets": (lambda: GraphStep(service="one", node="two"), "GraphStep"),
    "service and url": (lambda: GraphStep(service="one", url="http://a"), "GraphStep"),
    "a name that no service has": (lambda: GraphStep(service="One"), "GraphStep.service"),
    "a path for a url": (lambda: GraphStep(url="/v1/models/m:predict"), "GraphStep.url"),
    "a password in a url": (lambda: GraphStep(url="http://me:secret@a/"), "GraphStep.url"),
    "other data": (lambda: GraphStep(service="one", data="$answer"), "GraphStep.data"),
    "an empty condition": (lambda: GraphStep(service="one", condition=" "), "GraphStep.condition"),
    "a negative weight": (lambda: GraphStep(service="one", weight=-1), "GraphStep.weight"),
    "another dependency": (lambda: GraphStep(service="one", dependency="Loose"), "GraphStep.dependency"),
    "another kind": (lambda: node(kind="Loop"), "GraphNode.kind"),
    "no steps": (lambda: GraphNode(kind="Sequence", steps=[]), "GraphNode.steps"),
    "two steps of a name": (
        lambda: node(GraphStep(service="one", name="a"), GraphStep(service="two", name="a")),
        "GraphStep.name",
    ),
    "a splitter without weights": (lambda: node(kind="Splitter"), "GraphStep.weight"),
    "weights that do not make 100": (
        lambda: node(GraphStep(service="one", weight=50), GraphStep(service="two", weight=40), kind="Splitter"),
        "GraphStep.weight",
    ),
    "a weight in a sequence": (lambda: node(GraphStep(service="one", weight=100)), "GraphStep.weight"),
    "a switch without conditions": (lambda: node(kind="Switch"), "GraphStep.condition"),
    "a condition in an ensemble": (
        lambda: node(GraphStep(service="one", condition="a"), kind="Ensemble"),
        "GraphStep.condition",
    ),
    "a condition on the first step": (lambda: node(GraphStep(service="one", condition="a")), "GraphStep.condition"),
    "an answer before the first step": (lambda: node(GraphStep(service="one", data="$response")), "GraphStep.data"),
    "data in an ensemble": (lambda: node(GraphStep(service="one", data="$request"), kind="Ensemble"), "GraphStep.data"),
    "predictions in an ensemble": (
        lambda: node(GraphStep(service="one", map_predictions=True), kind="Ensemble"),
        "GraphStep.map_predictions",
    ),
    "no time": (lambda: GraphTimeouts(step=0), "GraphTimeouts.step"),
    "no root": (lambda: graph(start=node()), "InferenceGraph.nodes"),
    "a node's name": (lambda: graph(**{"root": node(), "a/b": node()}), "InferenceGraph.nodes key"),
    "a node that is not there": (lambda: graph(root=node(to("other"))), "GraphStep.node"),
    "a node that nothing leads to": (lambda: graph(root=node(), other=node()), "InferenceGraph.nodes key"),
    "a node that leads to itself": (lambda: graph(root=node(to("root"))), "GraphStep.node"),
    "a round": (lambda: graph(root=node(to("a")), a=node(to("b")), b=node(to("a"))), "GraphStep.node"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_route_is_refused_by_name(what):
    build, field = REFUSED[what]
    with pytest.raises(InvalidValue) as caught:
        build()
    assert caught.value.field == field
    assert "secret" not in str(caught.value)


def test_two_ways_to_a_node_are_no_round():
    made = graph(root=node(to("a"), to("b")), a=node(to("c")), b=node(to("c")), c=node())
    assert list(made.nodes) == ["root", "a", "b", "c"]


WHOLE = InferenceGraph(
    service=Service(
        name="flow",
        namespace="prod",
        scaling=Scaling(min_replicas=2),
        tolerations=[Toleration(key="gpu")],
        kserve=KServeOptions(mode="Knative"),
    ),
    nodes={
        "root": node(to("two", data="$request"), GraphStep(url="http://a/b", condition="x", map_predictions=True)),
        "two": node(GraphStep(service="one", weight=30), GraphStep(service="two", weight=70), kind="Splitter"),
    },
    timeouts=GraphTimeouts(step=5),
)


def test_a_graph_comes_back_as_it_was():
    back = from_plain(InferenceGraph, json.loads(json.dumps(to_plain(WHOLE))))
    assert back == WHOLE
    assert back.revision == WHOLE.revision


def test_a_persons_json_is_checked_by_field():
    with pytest.raises(InvalidValue, match="routerType"):
        from_plain(InferenceGraph, {"service": {"name": "a"}, "nodes": {"root": {"routerType": "Sequence"}}})


CHANGES = {
    "a node": lambda: replace(WHOLE, nodes={"root": node()}),
    "time": lambda: replace(WHOLE, timeouts=GraphTimeouts(step=6)),
    "replicas": lambda: replace(WHOLE, service=replace(WHOLE.service, scaling=Scaling(min_replicas=3))),
    "an annotation": lambda: replace(WHOLE, service=replace(WHOLE.service, annotations={"a": "b"})),
    "resources": lambda: replace(WHOLE, service=replace(WHOLE.service, resources=Resources(cpu="1"))),
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_restarts_the_router_is_another_revision(what):
    assert CHANGES[what]().revision != WHOLE.revision


def test_the_revision_of_what_runs_stays():
    # written down: fields that are added later must not change it
    assert graph(root=node()).revision == "flow-b593a937"
