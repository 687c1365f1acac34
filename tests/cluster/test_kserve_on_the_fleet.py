"""The platform ``kserve`` and the engine against KServe's own controller; pods are those of fake nodes."""

import time
from dataclasses import replace

import pytest
from harness.cluster import eventually
from harness.fleet import FAIL, READY_DELAY

from longshore.cluster import kserve_version
from longshore.errors import ClusterError, DeployError
from longshore.release import current_release, deploy, previous_release
from longshore.spec import KServeOptions, ModelSource, Release, Resources, Scaling, Service
from longshore.targets.base import Ref
from longshore.targets.kserve import KServeTarget
from longshore.targets.kserve_runtimes import serving_runtime

DIGEST = "sha256:" + "0" * 64
MODEL = ModelSource(uri="s3://models/iris/1", format="sklearn", name="iris", digest=DIGEST)
NEXT = replace(MODEL, uri="s3://models/iris/2")


@pytest.fixture(scope="session")
def serving(kserve, fleet):
    """KServe with longshore's runtime."""
    fleet.apply(serving_runtime())
    return kserve


@pytest.fixture
def service(serving, namespace) -> Service:
    return Service(name="iris", namespace=namespace, resources=Resources(cpu="10m", memory="64Mi"))


@pytest.fixture
def bring_up(runtime):
    """Deploy a model, as far as objects and health go: fake pods answer nothing."""

    def run(service, model=MODEL, *, target=None, **options):
        options = {"timeout_seconds": 60, "patience_seconds": 3, **options}
        release = Release(service=service, model=model)
        return deploy(release, target=target or KServeTarget(), runtime=runtime, **options)

    return run


def path_of(cluster, service) -> str:
    metadata = {"name": service.name, "namespace": service.namespace}
    return cluster.path({"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": metadata})


def deployment_of(cluster, service, component="predictor"):
    return cluster.get(f"/apis/apps/v1/namespaces/{service.namespace}/deployments/{service.name}-{component}")


def test_a_model_is_deployed_replaced_and_found_again(fleet, service, bring_up, runtime):
    first = bring_up(service)
    assert first.endpoint.url == f"http://iris-predictor.{service.namespace}.svc.cluster.local"
    second = bring_up(service, NEXT)
    assert second.previous == first.release
    pod = deployment_of(fleet, service)["spec"]["template"]
    assert pod["metadata"]["labels"]["longshore.dev/revision"] == second.release.revision
    ref = Ref("serving.kserve.io/v1beta1", "InferenceService", "iris", service.namespace)
    assert current_release(ref, runtime) == second.release
    assert previous_release(ref, runtime) == first.release


def test_the_version_is_read_from_the_cluster(serving, runtime):
    assert kserve_version(runtime.session) == (0, 20)


def test_grpc_is_beside_rest_in_the_service_of_kserve(fleet, service, bring_up):
    bring_up(replace(service, kserve=KServeOptions(protocol="grpc-v2")))
    ports = fleet.get(f"/api/v1/namespaces/{service.namespace}/services/iris-predictor")["spec"]["ports"]
    told = {port["name"]: (port["port"], port["targetPort"], port.get("appProtocol")) for port in ports}
    assert told == {"http1": (80, 8080, None), "h2c": (9000, 9000, "kubernetes.io/h2c")}
    bring_up(service)
    (port,) = fleet.get(f"/api/v1/namespaces/{service.namespace}/services/iris-predictor")["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (80, 8080)


def test_ready_is_not_believed_before_the_new_pods_are(fleet, service, bring_up):
    bring_up(service)
    slow = replace(service, annotations={READY_DELAY: "4s"})
    started = time.monotonic()
    told = []
    bring_up(slow, NEXT, on_progress=told.append)
    assert time.monotonic() - started >= 4
    ready = {c["type"]: c["status"] for c in fleet.get(path_of(fleet, service))["status"]["conditions"]}
    assert ready["Ready"] == "True"


def test_nothing_restarts_when_nothing_changed_or_only_the_number_of_replicas(fleet, service, bring_up):
    bring_up(service)
    before = fleet.get(path_of(fleet, service)), deployment_of(fleet, service)
    bring_up(service)
    after = fleet.get(path_of(fleet, service)), deployment_of(fleet, service)
    # KServe may write into the status once more
    assert after[0]["metadata"]["generation"] == before[0]["metadata"]["generation"]
    assert after[0]["metadata"]["annotations"] == before[0]["metadata"]["annotations"]
    more = replace(service, scaling=Scaling(min_replicas=3))
    bring_up(more)
    scaled = deployment_of(fleet, service)
    assert scaled["status"]["availableReplicas"] == 3
    assert scaled["spec"]["template"] == before[1]["spec"]["template"]
    bring_up(service)
    fewer = deployment_of(fleet, service)
    assert fewer["spec"]["replicas"] == 1
    assert fewer["spec"]["template"] == before[1]["spec"]["template"]


UPDATES = {
    "an image that is nowhere": ({"annotations": {FAIL: "image"}}, {}, "cannot be pulled"),
    "a corrupt model": ({"annotations": {FAIL: "crash"}}, {}, "crashes again and again"),
    "a missing object": ({"annotations": {FAIL: "init"}}, {}, "No model found"),
    "a missing secret": ({"annotations": {FAIL: "config"}}, {}, "CreateContainerConfigError"),
    "a missing runtime": ({"kserve": KServeOptions(runtime="none")}, {}, "No ServingRuntimes or"),
    "an unknown format": (
        {"kserve": KServeOptions(runtime="longshore")},
        {"format": "paper"},
        "Specified runtime does not support specified framework",
    ),
    "a missing service account": ({"service_account": "nobody"}, {}, 'serviceaccount "nobody" not found'),
    "an unknown scheme": ({}, {"uri": "gopher://models/iris"}, "gopher"),
}


@pytest.mark.parametrize("served", [True, False], ids=["replacing", "first"])
@pytest.mark.parametrize("what", UPDATES)
def test_what_cannot_serve_is_told_in_seconds(what, served, fleet, service, bring_up):
    changes, model, words = UPDATES[what]
    first = bring_up(service) if served else None
    with pytest.raises((DeployError, ClusterError)) as failure:
        bring_up(replace(service, **changes), replace(NEXT, **model))
    assert "not ready after" not in str(failure.value)
    assert words in str(failure.value)
    if first is None:
        assert fleet.get(path_of(fleet, service)) is None
    else:
        assert f"Revision {first.release.revision} serves as before" in str(failure.value)
        eventually(lambda: deployment_of(fleet, service)["status"].get("unavailableReplicas", 0) == 0, "the old pods")


def test_a_quota_that_is_used_up_is_told(fleet, service, bring_up):
    first = bring_up(service)
    metadata = {"name": "pods", "namespace": service.namespace}
    fleet.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": {"pods": "1"}}})
    path = f"/api/v1/namespaces/{service.namespace}/resourcequotas/pods"
    eventually(lambda: (fleet.get(path).get("status") or {}).get("used") == {"pods": "1"}, "the quota's count")
    with pytest.raises(DeployError, match="exceeded quota") as failure:
        bring_up(service, NEXT)
    assert failure.value.restored == first.release.revision


def test_what_somebody_has_stopped_is_told(fleet, service, bring_up):
    first = bring_up(service)
    stop = {"metadata": {"annotations": {"serving.kserve.io/stop": "true"}}}
    fleet.request("PATCH", path_of(fleet, service), stop, kind="application/merge-patch+json")
    eventually(lambda: deployment_of(fleet, service) is None, "the end of the Deployment")
    with pytest.raises(DeployError, match="is stopped: take its annotation"):
        bring_up(service, NEXT)
    stop["metadata"]["annotations"]["serving.kserve.io/stop"] = None
    fleet.request("PATCH", path_of(fleet, service), stop, kind="application/merge-patch+json")
    assert bring_up(service).release == first.release


def test_the_mode_of_what_serves_cannot_be_changed(fleet, service, bring_up):
    first = bring_up(service)
    with pytest.raises((DeployError, ClusterError), match="deploymentMode") as failure:
        bring_up(replace(service, kserve=KServeOptions(mode="Knative")), NEXT)
    assert first.release.revision in str(failure.value)
    assert deployment_of(fleet, service)["status"]["availableReplicas"] == 1


def test_a_packaged_saved_model_lies_where_tensorflow_serving_looks(kserve, fleet, namespace, bring_up):
    service = Service(name="reviews", namespace=namespace, resources=Resources(cpu="10m", memory="64Mi"))
    model = ModelSource(uri="s3://models/reviews/4", format="tensorflow", name="reviews", version="4", digest=DIGEST)
    first = bring_up(service, model)
    pod = deployment_of(fleet, service)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["/usr/bin/tensorflow_model_server"]
    assert {"--model_name=reviews", "--model_base_path=/mnt/models", "--max_num_load_retries=0"} <= set(
        container["args"]
    )
    (fetches,) = pod["initContainers"]
    assert fetches["args"] == ["s3://models/reviews/4", "/mnt/models/4"]
    assert [mount["mountPath"] for mount in container["volumeMounts"] if "models" in mount["mountPath"]] == [
        "/mnt/models/4"
    ]
    second = bring_up(service, replace(model, uri="s3://models/reviews/5", version="5"))
    assert second.previous == first.release
    (fetches,) = deployment_of(fleet, service)["spec"]["template"]["spec"]["initContainers"]
    assert fetches["args"] == ["s3://models/reviews/5", "/mnt/models/5"]
    # what never comes up changes nothing, although KServe's status says that it is ready
    broken = replace(service, annotations={FAIL: "crash"})
    with pytest.raises(DeployError, match="crashes again and again") as failure:
        bring_up(broken, replace(model, uri="s3://models/reviews/6", version="6"))
    assert failure.value.restored == second.release.revision
