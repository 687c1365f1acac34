"""Graphs against KServe's own controller; pods are those of fake nodes."""

import json
from dataclasses import replace

import pytest
from harness.fleet import FAIL, READY_DELAY
from harness.knative import Knative
from kfp.dsl import Artifact

from longshore import components
from longshore.artifacts import read_endpoint
from longshore.errors import ClusterError, DeployError
from longshore.kserve import delete_graph, deploy_graph
from longshore.rbac import deployer_objects
from longshore.release import deploy
from longshore.spec import (
    GraphNode,
    GraphStep,
    GraphTimeouts,
    InferenceGraph,
    KServeOptions,
    ModelSource,
    Release,
    Resources,
    Scaling,
    Service,
)
from longshore.targets.base import Ref
from longshore.targets.kserve import KServeTarget
from longshore.targets.kserve_runtimes import serving_runtime

MODEL = ModelSource(uri="s3://models/iris/1", format="sklearn", name="iris", digest="sha256:" + "0" * 64)


@pytest.fixture
def place(kserve, fleet, namespace) -> str:
    """A namespace with longshore's runtime."""
    fleet.apply(serving_runtime(namespace))
    return namespace


@pytest.fixture
def serve(place, runtime):
    """Deploy an InferenceService that a step may ask."""

    def run(name, **changes):
        service = Service(name=name, namespace=place, resources=Resources(cpu="10m", memory="64Mi"), **changes)
        return deploy(Release(service=service, model=MODEL), target=KServeTarget(), runtime=runtime, timeout_seconds=60)

    return run


@pytest.fixture
def bring_up(runtime):
    def run(graph, **options):
        options = {"timeout_seconds": 30, "patience_seconds": 3, **options}
        return deploy_graph(graph, session=runtime.session, **options)

    return run


def graph_of(place, *services, nodes=None, **changes) -> InferenceGraph:
    nodes = nodes or {"root": GraphNode(kind="Sequence", steps=[GraphStep(service=name) for name in services])}
    changes = {"resources": Resources(cpu="10m", memory="64Mi"), **changes}
    return InferenceGraph(service=Service(name="flow", namespace=place, **changes), nodes=nodes)


def found(runtime, place, kind="InferenceGraph", api_version="serving.kserve.io/v1alpha1"):
    return runtime.get(Ref(api_version, kind, "flow", place))


def router(runtime, place):
    return found(runtime, place, "Deployment", "apps/v1")


def routed(runtime, place):
    """The graph that the router was given."""
    (container,) = router(runtime, place)["spec"]["template"]["spec"]["containers"]
    assert container["args"][0] == "--graph-json"
    return json.loads(container["args"][1])


def test_a_graph_is_deployed_replaced_and_deleted(place, serve, bring_up, runtime):
    serve("one")
    serve("two")
    first = bring_up(graph_of(place, "one"))
    assert first.previous is None
    assert first.endpoint.url == f"http://flow.{place}.svc.cluster.local"
    (step,) = routed(runtime, place)["nodes"]["root"]["steps"]
    assert step["serviceUrl"] == f"http://one-predictor.{place}.svc.cluster.local/v1/models/one:predict"
    second = bring_up(graph_of(place, "one", "two", scaling=Scaling(min_replicas=2)))
    assert second.previous == first.release
    assert len(routed(runtime, place)["nodes"]["root"]["steps"]) == 2
    assert router(runtime, place)["status"]["availableReplicas"] == 2
    delete_graph("flow", namespace=place, session=runtime.session)
    assert found(runtime, place) is None
    delete_graph("flow", namespace=place, session=runtime.session)


def test_every_kind_of_node_passes_kserves_webhook(place, serve, bring_up, runtime):
    for name in ("one", "two"):
        serve(name)
    nodes = {
        "root": GraphNode(
            kind="Sequence",
            steps=[
                GraphStep(name="draw", node="drawn"),
                GraphStep(name="choose", node="chosen", data="$response", condition="predictions", dependency="Hard"),
                GraphStep(name="merge", node="merged", data="$response", map_predictions=True),
            ],
        ),
        "drawn": GraphNode(
            kind="Splitter", steps=[GraphStep(service="one", weight=80), GraphStep(service="two", weight=20)]
        ),
        "chosen": GraphNode(
            kind="Switch",
            steps=[
                GraphStep(service="one", condition='instances.#(species=="adelie")'),
                GraphStep(url="http://elsewhere.example/v1/models/m:predict", condition="instances"),
            ],
        ),
        "merged": GraphNode(kind="Ensemble", steps=[GraphStep(service="one", name="a"), GraphStep(service="two")]),
    }
    wanted = replace(graph_of(place, nodes=nodes), timeouts=GraphTimeouts(read=5, write=10, idle=20, step=4))
    bring_up(wanted)
    given = routed(runtime, place)
    assert {name: node["routerType"] for name, node in given["nodes"].items()} == {
        name: node.kind for name, node in nodes.items()
    }
    assert given["routerTimeouts"] == {"serverRead": 5, "serverWrite": 10, "serverIdle": 20, "serviceClient": 4}


def test_nothing_restarts_when_nothing_changed(place, serve, bring_up, runtime):
    serve("one")
    bring_up(graph_of(place, "one"))
    before = found(runtime, place), router(runtime, place)
    bring_up(graph_of(place, "one"))
    after = found(runtime, place), router(runtime, place)
    for old, new in zip(before, after, strict=True):
        assert new["metadata"]["generation"] == old["metadata"]["generation"]


def test_ready_is_not_believed_before_the_new_router_is(place, serve, bring_up, runtime):
    serve("one")
    bring_up(graph_of(place, "one"))
    told = []
    bring_up(graph_of(place, "one", annotations={READY_DELAY: "3s"}), on_progress=told.append)
    assert any("0 of 1 pods are ready" in line for line in told)
    ready = {c["type"]: c["status"] for c in found(runtime, place)["status"]["conditions"]}
    assert ready["Ready"] == "True"


BROKEN = {
    "an image that is nowhere": ({"annotations": {FAIL: "image"}}, ("one",), "cannot be pulled"),
    "a router that crashes": ({"annotations": {FAIL: "crash"}}, ("one",), "crashes again and again"),
    "a missing service account": ({"service_account": "nobody"}, ("one",), 'serviceaccount "nobody" not found'),
    "a missing service": ({}, ("one", "none"), "asks the InferenceService none, which does not exist"),
}


@pytest.mark.parametrize("served", [True, False], ids=["replacing", "first"])
@pytest.mark.parametrize("what", BROKEN)
def test_what_cannot_serve_is_told_in_seconds(what, served, place, serve, bring_up, runtime):
    changes, steps, words = BROKEN[what]
    serve("one")
    first = bring_up(graph_of(place, "one")) if served else None
    with pytest.raises((DeployError, ClusterError)) as failure:
        bring_up(graph_of(place, *steps, **changes))
    assert "not ready after" not in str(failure.value)
    assert words in str(failure.value)
    if first is None:
        assert found(runtime, place) is None
    else:
        assert f"Revision {first.release.revision} serves as before" in str(failure.value)
        template = router(runtime, place)["spec"]["template"]["metadata"]
        assert template["labels"]["longshore.dev/revision"] == first.release.revision
        assert len(routed(runtime, place)["nodes"]["root"]["steps"]) == 1


def test_a_service_that_is_not_ready_is_told(place, serve, bring_up, runtime, fleet):
    serve("one")
    predictor = {
        "annotations": {FAIL: "crash"},
        "model": {"modelFormat": {"name": "sklearn"}, "runtime": "longshore", "storageUri": "s3://models/none"},
    }
    fleet.apply(
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "broken", "namespace": place},
            "spec": {"predictor": predictor},
        }
    )
    with pytest.raises(DeployError, match="asks the InferenceService broken, which has no address yet|is not Ready"):
        bring_up(graph_of(place, "one", "broken"))
    assert found(runtime, place) is None


def test_a_service_that_comes_later_is_waited_for(place, serve, bring_up, runtime):
    told, made = [], []

    def tell(line):
        told.append(line)
        if "which does not exist" in line and not made:
            made.append(serve("late"))

    bring_up(graph_of(place, "late"), on_progress=tell, patience_seconds=60)
    assert made
    assert len(routed(runtime, place)["nodes"]["root"]["steps"]) == 1


def test_the_steps_do_with_the_least_role(place, serve, runtime, fleet, monkeypatch):
    serve("one")
    for manifest in deployer_objects(place, service_account="worker", platforms=["kserve"]):
        fleet.apply(manifest)
    monkeypatch.setenv("KUBECONFIG", str(fleet.kubeconfig_of(place, "worker")))
    endpoint = Artifact()
    nodes = {"root": {"kind": "Sequence", "steps": [{"service": "one", "dependency": "Hard"}]}}
    given = {"name": "flow", "namespace": place, "memory": "64Mi", "router_timeouts": {"step": 5}}
    url, revision, replaced = components.get("deploy_inference_graph").python_func(endpoint, nodes=nodes, **given)
    assert (url, replaced) == (f"http://flow.{place}.svc.cluster.local", "")
    assert read_endpoint(endpoint).revision == revision
    components.get("delete_inference_graph").python_func("flow", namespace=place)
    assert found(runtime, place) is None


@pytest.fixture
def knative(place, fleet):
    with Knative(fleet):
        yield {"kserve": KServeOptions(mode="Knative", timeout_seconds=30)}


def test_a_graph_in_knative_mode_is_deployed_replaced_and_taken_back(place, serve, bring_up, runtime, knative):
    serve("one")
    first = bring_up(graph_of(place, "one", **knative))
    second = bring_up(graph_of(place, "one", **knative, scaling=Scaling(min_replicas=0, max_replicas=3)))
    assert second.previous == first.release
    with pytest.raises(DeployError, match="ValueError: bad model") as failure:
        bring_up(graph_of(place, "one", **knative, annotations={FAIL: "crash"}))
    assert failure.value.restored == second.release.revision
    template = found(runtime, place, "Service", "serving.knative.dev/v1")["spec"]["template"]
    assert template["metadata"]["labels"]["longshore.dev/revision"] == second.release.revision
    assert template["metadata"]["annotations"]["autoscaling.knative.dev/min-scale"] == "0"
    assert template["spec"]["timeoutSeconds"] == 30
