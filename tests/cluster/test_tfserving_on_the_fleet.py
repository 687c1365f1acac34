"""The platform ``tensorflow-serving`` on a real API server with fake nodes: versions and labels from deploy to deploy.

Where a pod has to answer, what is forwarded to it goes to a stand-in of the server on this machine.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from harness.cluster import eventually
from harness.definitions import is_served
from harness.fleet import FAIL, forward

from longshore.client import Client
from longshore.cluster import ClusterRuntime, Session
from longshore.deployment import (
    delete_service,
    deployed_release,
    find_endpoint,
    predict,
)
from longshore.errors import DeployError, InvalidValue
from longshore.release import deploy
from longshore.spec import ModelSource, Release, Router, Service, TensorFlowServingOptions, Traffic
from longshore.targets import target_of
from longshore.targets.base import REVISION_LABEL, SERVICE_LABEL, Ref
from longshore.targets.tfserving import TensorFlowServingTarget

STANDIN = Path(__file__).parents[1] / "integration" / "parts" / "tensorflow" / "server.py"
MODEL = ModelSource(uri="s3://models/half/3", format="tensorflow", name="half", version="3")
NEWER = replace(MODEL, uri="s3://models/half/4", version="4")
# as Prometheus' operator has it, without the fields that nothing here asks for
POD_MONITORS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "podmonitors.monitoring.coreos.com"},
    "spec": {
        "group": "monitoring.coreos.com",
        "names": {
            "kind": "PodMonitor",
            "plural": "podmonitors",
            "singular": "podmonitor",
            "listKind": "PodMonitorList",
        },
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            }
        ],
    },
}


@pytest.fixture
def runtime(fleet):
    session = Session.from_kubeconfig(fleet.kubeconfig)
    yield ClusterRuntime(session)
    session.close()


@pytest.fixture
def service(fleet, namespace) -> Service:
    return Service(name="flowers", namespace=namespace)


@pytest.fixture
def bring_up(runtime, service):
    """Deploy without asking: nothing runs in the pods."""

    def run(model, percent=100, **changes):
        release = Release(service=replace(service, **changes), model=model, traffic=Traffic(percent=percent))
        options = {"timeout_seconds": 60, "patience_seconds": 3}
        return deploy(release, target=TensorFlowServingTarget(), runtime=runtime, **options)

    return run


@pytest.fixture
def labels(runtime, service):
    """The version of each label, as the pods are told."""

    def told():
        web = runtime.get(Ref("apps/v1", "Deployment", "flowers", service.namespace))
        (loader,) = web["spec"]["template"]["spec"]["initContainers"]
        return json.loads(dict(word.split("=", 1) for word in loader["args"][1:])["--labels"])

    return told


def test_a_canary_comes_beside_what_serves_and_takes_its_place(bring_up, labels, service, runtime):
    first = bring_up(MODEL)
    assert labels() == {"stable": "3"}
    canary = bring_up(NEWER, percent=0)
    assert labels() == {"stable": "3", "canary": "4"}
    assert (canary.previous, canary.release.traffic.base) == (first.release, first.release.revision)
    assert canary.endpoint.at_revision().model == "half/labels/canary"
    # clients go where they went
    place = {"platform": "tensorflow-serving", "namespace": service.namespace, "session": runtime.session}
    assert find_endpoint("flowers", **place).model == "half/labels/stable"
    assert find_endpoint("flowers", **place).revision == first.release.revision
    last = deployed_release("flowers", **place)
    assert (last.model, [one.model for one in last.beside]) == (NEWER, [MODEL])
    moved = bring_up(NEWER)
    assert labels() == {"stable": "4"}
    assert (moved.previous.revision, moved.release.revision) == (first.release.revision, canary.release.revision)
    pods = f"/api/v1/namespaces/{service.namespace}/pods"
    found = runtime.session.request("GET", pods, "pods", query={"labelSelector": f"{SERVICE_LABEL}=flowers"})["items"]
    assert {pod["metadata"]["labels"][REVISION_LABEL] for pod in found} == {moved.release.revision}


class Crashing(TensorFlowServingTarget):
    """Pods whose containers end again and again with the newer version."""

    def render(self, release):
        deployment, *others = super().render(release)
        if release.model == NEWER:
            deployment["spec"]["template"]["metadata"]["annotations"] = {FAIL: "crash"}
        return [deployment, *others]


@pytest.mark.parametrize("percent", [0, 100])
def test_a_version_that_does_not_come_up_changes_nothing(bring_up, labels, service, runtime, percent):
    first = bring_up(MODEL)
    bad = Release(service=service, model=NEWER, traffic=Traffic(percent=percent))
    with pytest.raises(DeployError, match="ValueError: bad model") as failure:
        deploy(bad, target=Crashing(), runtime=runtime, timeout_seconds=60)
    assert failure.value.restored == first.release.revision
    assert labels() == {"stable": "3"}


def test_a_canary_of_the_same_number_is_refused_before_anything_is_touched(bring_up, labels):
    bring_up(MODEL)
    with pytest.raises(InvalidValue, match="what serves has this version: register the canary as another"):
        bring_up(replace(MODEL, uri="s3://models/other/3"), percent=0)
    assert labels() == {"stable": "3"}


@pytest.fixture(scope="module")
def standin():
    with subprocess.Popen([sys.executable, STANDIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.kill()


def test_it_is_asked_through_the_cluster_over_both(bring_up, runtime, service, fleet, standin):
    spoken = TensorFlowServingOptions(grpc=True)
    done = bring_up(replace(MODEL, name="half-plus-two"), tfserving=spoken)
    pods = f"/api/v1/namespaces/{service.namespace}/pods"
    (pod,) = fleet.request("GET", pods)["items"]
    forward(fleet, pod, {8501: standin["rest"], 8500: standin["grpc"]})
    # the stand-in's model has a name that no model of longshore's has
    endpoint = replace(done.endpoint, model="half_plus_two/labels/stable")
    for protocol in ("tensorflow", "grpc-tensorflow"):
        with runtime.reach(endpoint) as here, Client(here, protocol=protocol) as client:
            eventually(client.answering, f"the forward of {protocol}", 15)
        assert predict(endpoint, [{"x": 1.0}], protocol=protocol, session=runtime.session) == [2.5]


def test_the_prometheus_operator_is_told(bring_up, runtime, service, fleet):
    watched = TensorFlowServingOptions(pod_monitor=True)
    place = {"platform": "tensorflow-serving", "namespace": service.namespace, "session": runtime.session}
    fleet.apply(POD_MONITORS)
    eventually(lambda: is_served(fleet, POD_MONITORS), "the kind PodMonitor")
    bring_up(MODEL, tfserving=watched)
    monitor = runtime.get(Ref("monitoring.coreos.com/v1", "PodMonitor", "flowers", service.namespace))
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": "http", "path": "/monitoring/prometheus/metrics"}]
    delete_service("flowers", **place)
    for ref in TensorFlowServingTarget().objects(replace(service, tfserving=watched)):
        assert runtime.get(ref) is None


def test_with_a_router_versions_have_pods_of_their_own_and_share_the_requests(runtime, service, fleet):
    routed = replace(service, router=Router(kind="nginx", replicas=1))
    target = target_of("tensorflow-serving", routed=True)

    def run(model, percent):
        release = Release(service=routed, model=model, traffic=Traffic(percent=percent))
        return deploy(release, target=target, runtime=runtime, timeout_seconds=60, patience_seconds=3)

    first = run(MODEL, 100)
    second = run(NEWER, 10)
    assert second.release.traffic.others == {first.release.revision: 90}
    deployments = fleet.get(f"/apis/apps/v1/namespaces/{service.namespace}/deployments")["items"]
    names = {one["metadata"]["name"] for one in deployments}
    assert {first.release.revision, second.release.revision} < names
    services = fleet.get(f"/api/v1/namespaces/{service.namespace}/services")["items"]
    lane = next(one for one in services if one["metadata"]["name"] == f"{second.release.revision}-lane")
    assert lane["spec"]["ports"][0]["targetPort"] == "http"
    run(NEWER, 100)
    deployments = fleet.get(f"/apis/apps/v1/namespaces/{service.namespace}/deployments")["items"]
    assert first.release.revision not in {one["metadata"]["name"] for one in deployments}
