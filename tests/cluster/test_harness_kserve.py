"""KServe's own controller: on fake nodes an InferenceService becomes what its pods become."""

from __future__ import annotations

import json

import pytest
from harness.cluster import eventually
from harness.fleet import FAIL
from kubernetes.client.rest import ApiException

KIND = "inferenceservice.kserve-webhook-server"


def manifest(namespace, name="model", **annotations):
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://models/one"}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": {"predictor": {"model": model}},
    }


def create(cluster, service):
    return cluster.request("POST", cluster.path(service).rpartition("/")[0], service)


def ready(cluster, service):
    conditions = cluster.get(cluster.path(service)).get("status", {}).get("conditions") or []
    return {c["type"]: c["status"] for c in conditions}.get("Ready")


def pods(cluster, namespace):
    return cluster.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]


def test_service_becomes_ready(kserve, fleet, namespace):
    service = manifest(namespace)
    create(fleet, service)
    eventually(lambda: ready(fleet, service) == "True", "Ready", 30)
    [pod] = pods(fleet, namespace)
    assert [c["image"] for c in pod["spec"]["containers"]] == ["kserve/sklearnserver:v0.20.0"]
    # the storage initializer is put in by the webhook for pods
    assert [c["image"] for c in pod["spec"]["initContainers"]] == ["kserve/storage-initializer:v0.20.0"]


def test_service_with_failing_pods_does_not(kserve, fleet, namespace):
    service = manifest(namespace, **{FAIL: "init"})
    create(fleet, service)

    def failure():
        status = fleet.get(fleet.path(service)).get("status", {})
        return status.get("modelStatus", {}).get("lastFailureInfo")

    found = eventually(failure, "failure", 30)
    assert found["reason"] == "ModelLoadFailed"
    assert "No model found" in found["message"]
    assert ready(fleet, service) == "False"


def test_invalid_service_is_refused_in_kserves_words(kserve, fleet, namespace):
    with pytest.raises(ApiException) as caught:
        create(fleet, manifest(namespace, "1-bad"))
    assert caught.value.status == 403
    message = json.loads(caught.value.body)["message"]
    assert message.startswith(f'admission webhook "{KIND}.validator" denied the request: ')
    assert '"1-bad" is invalid' in message


def test_no_service_is_written_while_the_manager_is_away(kserve, fleet, namespace):
    kserve.stop_manager()
    try:
        with pytest.raises(ApiException) as caught:
            create(fleet, manifest(namespace))
        assert caught.value.status == 500
        assert f'failed calling webhook "{KIND}' in json.loads(caught.value.body)["message"]
    finally:
        kserve.start_manager()
    service = manifest(namespace)
    create(fleet, service)
    eventually(lambda: ready(fleet, service) == "True", "Ready", 30)


def test_runtimes_name_their_images(kserve, fleet):
    runtimes = fleet.request("GET", "/apis/serving.kserve.io/v1alpha1/clusterservingruntimes")["items"]
    images = {r["metadata"]["name"]: r["spec"]["containers"][0]["image"] for r in runtimes}
    assert images["kserve-sklearnserver"] == "kserve/sklearnserver:v0.20.0"
    assert images["kserve-mlserver"] == "docker.io/seldonio/mlserver:1.7.1"
    assert {"kserve-xgbserver", "kserve-lgbserver", "kserve-huggingfaceserver"} < set(images)
    assert not [image for image in images.values() if image.endswith((":replace", ":latest")) and "kserve/" in image]
