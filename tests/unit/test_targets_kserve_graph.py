"""KServe's graphs: what is rendered and refused, and how what KServe makes of one is read."""

from dataclasses import replace

import pytest

from longshore.errors import InvalidValue
from longshore.spec import (
    Container,
    GraphNode,
    GraphStep,
    GraphTimeouts,
    HealthState,
    InferenceGraph,
    KServeOptions,
    Resources,
    Scaling,
    Service,
    Toleration,
)
from longshore.targets.base import REVISION_LABEL, Ref
from longshore.targets.kserve_graph import GRAPH_LABEL, KServeGraphTarget

SERVICE = Service(name="flow", namespace="prod", labels={"team": "a"}, annotations={"owner": "b"})
NODES = {
    "root": GraphNode(
        kind="Sequence",
        steps=[
            GraphStep(service="clean", name="first", dependency="Hard"),
            GraphStep(node="pick", data="$response", condition="predictions", map_predictions=True),
        ],
    ),
    "pick": GraphNode(
        kind="Splitter", steps=[GraphStep(service="iris", weight=90), GraphStep(url="http://b/v1", weight=10)]
    ),
}
KNATIVE = KServeOptions(mode="Knative")


def graph(nodes=NODES, timeouts=None, **service):
    return InferenceGraph(service=replace(SERVICE, **service), nodes=nodes, timeouts=timeouts or GraphTimeouts())


def rendered(wanted, version=(0, 20)):
    (manifest,) = KServeGraphTarget(version).render(wanted)
    return manifest


def test_a_graph_with_its_nodes():
    wanted = graph()
    manifest = rendered(wanted)
    assert (manifest["apiVersion"], manifest["kind"]) == ("serving.kserve.io/v1alpha1", "InferenceGraph")
    assert manifest["metadata"]["labels"] == {"team": "a", GRAPH_LABEL: "flow", REVISION_LABEL: wanted.revision}
    assert manifest["metadata"]["annotations"] == {
        "owner": "b",
        "serving.kserve.io/deploymentMode": "Standard",
        "serving.kserve.io/autoscalerClass": "none",
    }
    assert manifest["spec"] == {
        "minReplicas": 1,
        "maxReplicas": 1,
        "nodes": {
            "root": {
                "routerType": "Sequence",
                "steps": [
                    {"serviceName": "clean", "name": "first", "dependency": "Hard"},
                    {
                        "nodeName": "pick",
                        "data": "$response",
                        "condition": "predictions",
                        "mapPredictionsToInstances": True,
                    },
                ],
            },
            "pick": {
                "routerType": "Splitter",
                "steps": [{"serviceName": "iris", "weight": 90}, {"serviceUrl": "http://b/v1", "weight": 10}],
            },
        },
    }
    assert KServeGraphTarget().objects(SERVICE) == [Ref.of(manifest)]


def test_the_routers_compute_place_and_patience():
    spec = rendered(
        graph(
            resources=Resources(cpu="200m", memory="128Mi"),
            service_account="router",
            node_selector={"pool": "cpu"},
            tolerations=[Toleration(key="spot")],
            kserve=KServeOptions(timeout_seconds=60),
            timeouts=GraphTimeouts(read=1, write=2, idle=3, step=4),
        )
    )["spec"]
    assert spec["resources"] == {"requests": {"cpu": "200m", "memory": "128Mi"}, "limits": {"memory": "128Mi"}}
    assert spec["serviceAccountName"] == "router"
    assert spec["nodeSelector"] == {"pool": "cpu"}
    assert spec["tolerations"] == [{"operator": "Exists", "key": "spot"}]
    assert spec["timeout"] == 60
    assert spec["routerTimeouts"] == {"serverRead": 1, "serverWrite": 2, "serverIdle": 3, "serviceClient": 4}


def test_scaling():
    manifest = rendered(graph(scaling=Scaling(min_replicas=1, max_replicas=4, metric="memory", target=70)))
    assert manifest["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "hpa"
    bounds = {name: manifest["spec"][name] for name in ("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget")}
    assert bounds == {"minReplicas": 1, "maxReplicas": 4, "scaleMetric": "memory", "scaleTarget": 70}
    zero = rendered(graph(kserve=KNATIVE, scaling=Scaling(min_replicas=0, max_replicas=2, metric="rps", target=300)))
    assert zero["metadata"]["annotations"] == {"owner": "b", "serving.kserve.io/deploymentMode": "Knative"}
    assert (zero["spec"]["minReplicas"], zero["spec"]["scaleMetric"]) == (0, "rps")


PLAIN = {"root": GraphNode(kind="Sequence", steps=[GraphStep(service="iris")])}


@pytest.mark.parametrize(("mode", "old"), [("Standard", "RawDeployment"), ("Knative", "Serverless")])
def test_modes_have_the_names_of_the_version(mode, old):
    wanted = graph(PLAIN, kserve=KServeOptions(mode=mode))
    assert rendered(wanted, (0, 15))["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == old
    assert rendered(wanted, (0, 16))["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == mode


REFUSED = {
    "Service.env": graph(env={"A": "b"}),
    "Service.secrets": graph(secrets=["s"]),
    "Service.image": graph(image="router:1"),
    "Service.port": graph(port=80),
    "Resources.gpu": graph(resources=Resources(gpu=1)),
    "KServeOptions.runtime": graph(kserve=KServeOptions(runtime="r")),
    "KServeOptions.protocol": graph(kserve=KServeOptions(protocol="v2")),
    "KServeOptions.transformer": graph(kserve=KServeOptions(transformer=Container(image="t:1"))),
    "KServeOptions.args": graph(kserve=KServeOptions(args=["-x"])),
    "KServeOptions.autoscaler": graph(kserve=KServeOptions(autoscaler="keda")),
    "Scaling.min_replicas": graph(scaling=Scaling(min_replicas=0)),
    "Scaling.metric": graph(scaling=Scaling(metric="rps", target=5)),
}


@pytest.mark.parametrize("field", REFUSED)
def test_what_a_router_has_no_use_for_is_refused_by_name(field):
    with pytest.raises(InvalidValue) as caught:
        rendered(REFUSED[field])
    assert caught.value.field == field


def test_what_a_version_cannot_do_is_refused_by_name():
    with pytest.raises(InvalidValue, match=r"KServe 0\.15, and this came with 0\.16") as caught:
        rendered(graph(PLAIN, GraphTimeouts(step=1)), (0, 15))
    assert caught.value.field == "GraphTimeouts.step"
    with pytest.raises(InvalidValue, match=r"GraphStep\.map_predictions"):
        rendered(graph(), (0, 15))
    with pytest.raises(InvalidValue, match=r"from 0\.15 on"):
        KServeGraphTarget((0, 14))


GRAPH = graph()
K_GRAPH = graph(kserve=KNATIVE)


def live(wanted=GRAPH, **metadata):
    manifest = rendered(wanted)
    # KServe calls it Ready as soon as anything was said of its Deployment
    return {
        **manifest,
        "metadata": {**manifest["metadata"], **metadata},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }


def deployment(*, revision=GRAPH.revision, replicas=1, updated=1, available=1):
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "flow", "generation": 2},
        "spec": {"replicas": replicas, "template": {"metadata": {"labels": {REVISION_LABEL: revision}}}},
        "status": {
            "observedGeneration": 2,
            "replicas": replicas,
            "updatedReplicas": updated,
            "availableReplicas": available,
        },
    }


def pod(*, revision=GRAPH.revision, waiting=None, knative=None):
    labels = {GRAPH_LABEL: "flow", REVISION_LABEL: revision}
    if knative is not None:
        labels["serving.knative.dev/revision"] = knative
    state = {"waiting": waiting} if waiting else {"running": {}}
    status = {"phase": "Pending", "containerStatuses": [{"name": "flow", "image": "router:1", "state": state}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": labels}, "status": status}


def service(name, ready="True", *, address=True, message=""):
    condition = {"type": "Ready", "status": ready, "reason": "PredictorNotReady", "message": message}
    status = {"conditions": [condition], **({"address": {"url": f"http://{name}"}} if address else {})}
    metadata = {"name": name, "namespace": "prod"}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": metadata,
        "status": status,
    }


NO_IMAGE = {"reason": "ImagePullBackOff", "message": "router:9 not found"}
SERVICES = [service("clean"), service("iris")]
READY, PROGRESSING = HealthState.READY, HealthState.PROGRESSING
STALLED, FAILED = HealthState.STALLED, HealthState.FAILED

STANDARD = {
    "all is there": ([live(), deployment(), pod(), *SERVICES], READY, ""),
    "nothing is there": ([], PROGRESSING, "is not there yet"),
    "it is stopped": (
        [live(annotations={"serving.kserve.io/stop": "true"}), deployment(), *SERVICES],
        FAILED,
        "take its annotation",
    ),
    "somebody changed it": ([live(labels={REVISION_LABEL: "flow-other"}), *SERVICES], FAILED, "revision flow-other"),
    "no Deployment yet": ([live(), *SERVICES], PROGRESSING, "has not made the Deployment flow"),
    "that of the revision before": (
        [live(), deployment(revision="flow-before"), *SERVICES],
        PROGRESSING,
        "has not passed this revision on",
    ),
    "new pods are coming": ([live(), deployment(available=0), *SERVICES], PROGRESSING, "0 of 1 pods are ready"),
    "old pods are ending": (
        [live(), deployment(), pod(), pod(revision="flow-before"), *SERVICES],
        PROGRESSING,
        "1 pods of another revision are ending",
    ),
    "no image": ([live(), deployment(available=0), pod(waiting=NO_IMAGE), *SERVICES], FAILED, "cannot be pulled"),
    "no image, in the revision before": (
        [live(), deployment(available=0), pod(revision="flow-before", waiting=NO_IMAGE), *SERVICES],
        PROGRESSING,
        "0 of 1",
    ),
    "fewer replicas than asked for": (
        [live(), deployment(replicas=0, updated=0, available=0), *SERVICES],
        PROGRESSING,
        "for 0 pods yet, 1 are asked for",
    ),
    "a service that does not exist": (
        [live(), service("clean")],
        STALLED,
        "the node pick asks the InferenceService iris, which does not exist: deploy it first",
    ),
    "the same after the router came": ([live(), deployment(), pod(), service("clean")], STALLED, "does not exist"),
    "a service without an address": (
        [live(), service("clean"), service("iris", "Unknown", address=False)],
        STALLED,
        "iris, which has no address yet (PredictorNotReady)",
    ),
    "a service that is not ready": (
        [live(), deployment(), pod(), service("clean"), service("iris", "False", message="no pods")],
        STALLED,
        "iris, which is not Ready (PredictorNotReady: no pods)",
    ),
    "a broken router is told before that": (
        [live(), deployment(available=0), pod(waiting=NO_IMAGE), service("clean")],
        FAILED,
        "cannot be pulled",
    ),
}


@pytest.mark.parametrize("what", STANDARD)
def test_the_verdict_in_standard_mode(what):
    observed, state, why = STANDARD[what]
    health = KServeGraphTarget().health(GRAPH, observed)
    assert (health.state, why in health.why) == (state, True), health.why


def test_the_service_of_a_soft_step_may_be_away_but_not_missing():
    nodes = {"root": GraphNode(kind="Sequence", steps=[GraphStep(service="iris", dependency="Soft")])}
    soft = graph(nodes)
    made = [live(soft), deployment(revision=soft.revision)]
    assert KServeGraphTarget().health(soft, [*made, service("iris", "False")]).state is READY
    # KServe makes no router without its address
    assert KServeGraphTarget().health(soft, [*made, service("iris", address=False)]).state is STALLED
    assert KServeGraphTarget().health(soft, made).state is STALLED


def knative(*, created="flow-00002", ready="flow-00002", seen=3, whole="True", revision=K_GRAPH.revision):
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "flow", "generation": 3},
        "spec": {"template": {"metadata": {"labels": {REVISION_LABEL: revision}}}},
        "status": {
            "observedGeneration": seen,
            "latestCreatedRevisionName": created,
            "latestReadyRevisionName": ready,
            "conditions": [{"type": "Ready", "status": whole, "reason": "Routes"}],
        },
    }


def knative_revision(status, message=""):
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {"name": "flow-00002"},
        "status": {"conditions": [{"type": "Ready", "status": status, "message": message}]},
    }


K_POD = pod(revision=K_GRAPH.revision, waiting=NO_IMAGE, knative="flow-00002")
KNATIVE_STATES = {
    "all is there": ([knative()], READY, ""),
    "no Knative Service yet": ([], PROGRESSING, "has not made the Knative Service flow"),
    "that of the revision before": ([knative(revision="flow-before")], PROGRESSING, "has not passed"),
    "not seen by Knative": ([knative(seen=2)], PROGRESSING, "has not seen that yet"),
    "the revision before is ready": ([knative(ready="flow-00001")], PROGRESSING, "flow-00002 is not ready yet"),
    "the revision failed": (
        [knative(ready="flow-00001", whole="False"), knative_revision("False", "it crashed")],
        FAILED,
        "Knative Revision flow-00002 is not ready (it crashed)",
    ),
    "no image": ([knative(ready="flow-00001"), K_POD], FAILED, "cannot be pulled"),
    "no route yet": ([knative(whole="Unknown")], PROGRESSING, "the Knative Service flow is not Ready yet (Routes)"),
}


@pytest.mark.parametrize("what", KNATIVE_STATES)
def test_the_verdict_in_knative_mode(what):
    made, state, why = KNATIVE_STATES[what]
    health = KServeGraphTarget().health(K_GRAPH, [live(K_GRAPH), *made, *SERVICES])
    assert (health.state, why in health.why) == (state, True), health.why


def test_the_children_are_what_the_mode_makes():
    kinds = {child.kind for child in KServeGraphTarget().children(GRAPH)}
    assert kinds == {"Deployment", "Pod", "InferenceService", "Event"}
    kinds = {child.kind for child in KServeGraphTarget().children(K_GRAPH)}
    assert kinds == {"Service", "Revision", "Pod", "InferenceService", "Event"}


def test_the_endpoint_is_the_routers():
    endpoint = KServeGraphTarget().endpoint(GRAPH, [])
    assert endpoint.url == "http://flow.prod.svc.cluster.local"
    assert endpoint.in_cluster == ("flow", "prod")
    assert (endpoint.takes, endpoint.revision) == ("tensors", GRAPH.revision)
