"""Fake nodes: what becomes of a pod is what its annotations say."""

from __future__ import annotations

import time

import pytest
from harness.cluster import eventually
from harness.fleet import FAIL, FAILURES, READY_DELAY


def create(cluster, namespace, **annotations):
    """Create a pod with an init container; returns a function that gives its status, with conditions by type."""
    containers = {
        "initContainers": [{"name": "fetch", "image": "fetch:1"}],
        "containers": [{"name": "main", "image": "registry.local/main:1"}],
    }
    manifest = {"metadata": {"name": "one", "annotations": annotations}, "spec": containers}
    cluster.request("POST", f"/api/v1/namespaces/{namespace}/pods", manifest)

    def status():
        found = cluster.get(f"/api/v1/namespaces/{namespace}/pods/one")["status"]
        return {**found, "conditions": {c["type"]: c for c in found.get("conditions", [])}}

    return status


def ready(status):
    return status["conditions"].get("Ready", {}).get("status") == "True"


def test_pod_is_ready_at_once(fleet, namespace):
    status = create(fleet, namespace)
    eventually(lambda: ready(status()), "Ready", 10)
    found = status()
    assert found["phase"] == "Running"
    assert found["podIP"].startswith("10.64.")


def test_pod_is_ready_after_a_delay(fleet, namespace):
    started = time.monotonic()
    status = create(fleet, namespace, **{READY_DELAY: "3s"})
    eventually(lambda: ready(status()), "Ready", 20)
    assert time.monotonic() - started >= 3


def test_deployment_is_available_and_serves_behind_its_service(fleet, namespace):
    labels = {"app": "web"}
    metadata = {"name": "web", "namespace": namespace}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "web:1"}]}}
    deployment = {"replicas": 3, "selector": {"matchLabels": labels}, "template": pod}
    manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": deployment}
    fleet.apply(manifest)
    service = {"selector": labels, "ports": [{"port": 80}]}
    fleet.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service})
    eventually(lambda: fleet.get(fleet.path(manifest))["status"].get("availableReplicas") == 3, "replicas")

    def endpoints():
        slices = fleet.request("GET", f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices")["items"]
        return [end for part in slices for end in part["endpoints"] or [] if end["conditions"]["ready"]]

    eventually(lambda: len(endpoints()) == 3, "endpoints")


WAITING = {
    "image": ("ImagePullBackOff", 'Back-off pulling image "registry.local/main:1": ErrImagePull: '),
    "crash": ("CrashLoopBackOff", "back-off 40s restarting failed container=main pod=one_"),
    "init": ("PodInitializing", ""),
    "config": ("CreateContainerConfigError", 'secret "nope" not found'),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_pod_fails_as_annotated(fleet, namespace, failure):
    status = create(fleet, namespace, **{FAIL: failure})
    found = eventually(lambda: (seen := status()).get("containerStatuses") and seen, "status", 10)
    conditions = found["conditions"]
    assert not ready(found)
    assert conditions["Ready"]["message"] == "containers with unready status: [main]"
    assert conditions["Initialized"]["status"] == str(failure != "init")
    assert found["phase"] == ("Running" if failure in {"crash", "unready"} else "Pending")
    [main], [fetch] = found["containerStatuses"], found["initContainerStatuses"]
    assert not main["ready"]
    if failure == "unready":
        assert "running" in main["state"]
    else:
        reason, message = WAITING[failure]
        waiting = main["state"]["waiting"]
        assert waiting["reason"] == reason
        assert waiting.get("message", "").startswith(message)
    broken = {"crash": main, "init": fetch}.get(failure)
    if broken is None:
        assert "lastState" not in main or not main["lastState"]
    else:
        assert broken["restartCount"] == 3
        assert broken["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        ended = broken["lastState"]["terminated"]
        assert (ended["exitCode"], ended["reason"]) == (1, "Error")
    if failure == "crash":
        assert ended["message"].startswith("Traceback (most recent call last):\n")
        assert ended["message"].endswith("\nValueError: bad model\n")
    if failure == "init":
        assert conditions["Initialized"]["message"] == "containers with incomplete status: [fetch]"


def test_pod_fails_after_a_delay(fleet, namespace):
    started = time.monotonic()
    status = create(fleet, namespace, **{FAIL: "crash", READY_DELAY: "2s"})
    eventually(lambda: status().get("containerStatuses"), "status", 20)
    assert time.monotonic() - started >= 2


def test_deleted_pod_goes(fleet, namespace):
    status = create(fleet, namespace)
    eventually(lambda: ready(status()), "Ready", 10)
    path = f"/api/v1/namespaces/{namespace}/pods/one"
    fleet.request("DELETE", path)
    eventually(lambda: fleet.get(path) is None, "the end of the pod", 10)


def test_fleet_goes_on_after_an_outage_of_the_api_server(plane, fleet, namespace):
    plane.stop_api_server()
    plane.start_api_server()
    status = create(fleet, namespace)
    eventually(lambda: ready(status()), "Ready", 30)
