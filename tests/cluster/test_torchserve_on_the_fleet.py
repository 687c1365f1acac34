"""The platform ``torchserve`` on a real API server, and KServe's own controller with its runtime; pods are fake."""

from dataclasses import replace

import pytest
from harness.cluster import eventually

from longshore.errors import InvalidValue
from longshore.release import deploy, remove
from longshore.spec import ModelSource, Release, Resources, Router, Scaling, Service, Tls, TorchServeOptions, Traffic
from longshore.spec.image import image_name
from longshore.targets import target_of
from longshore.targets.base import REVISION_LABEL, Ref, Selection

MODEL = ModelSource(uri="s3://models/digits/1", format="torchserve", name="digits", digest="sha256:" + "0" * 64)
NEXT = replace(MODEL, uri="s3://models/digits/2")
OPTIONS = TorchServeOptions(token_secret="tokens", tls=Tls(secret="tls"))
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture
def service(fleet, namespace) -> Service:
    labels = {"metadata": {"labels": RESTRICTED}}
    fleet.request("PATCH", f"/api/v1/namespaces/{namespace}", labels, kind="application/merge-patch+json")
    secrets = {"tokens": {"web": "0123456789abcdef"}, "tls": {"tls.crt": "certificate", "tls.key": "key"}}
    for name, content in secrets.items():
        secret = {"metadata": {"name": name}, "stringData": content}
        fleet.request("POST", f"/api/v1/namespaces/{namespace}/secrets", secret)
    return Service(
        name="digits",
        namespace=namespace,
        resources=Resources(cpu="10m", memory="64Mi"),
        scaling=Scaling(min_replicas=1, max_replicas=3),
        torchserve=OPTIONS,
    )


@pytest.fixture
def bring_up(runtime):
    """Deploy a package, as far as objects and health go: fake pods answer nothing."""

    def run(service, model=MODEL, platform="torchserve", **traffic):
        release = Release(service=service, model=model, traffic=Traffic(**traffic))
        target = target_of(platform, routed=service.router is not None)
        return deploy(release, target=target, runtime=runtime, timeout_seconds=60, patience_seconds=3)

    return run


def pods(cluster, service):
    path = f"/api/v1/namespaces/{service.namespace}/pods"
    return [one for one in cluster.request("GET", path)["items"] if "deletionTimestamp" not in one["metadata"]]


def test_a_package_is_deployed_replaced_and_removed_where_pods_are_restricted(fleet, service, bring_up, runtime):
    first = bring_up(service)
    (pod,) = pods(fleet, service)
    setup, server = pod["spec"]["initContainers"]
    assert (setup.get("restartPolicy"), server["restartPolicy"]) == (None, "Always")
    second = bring_up(service, NEXT)
    assert second.previous == first.release
    assert {one["metadata"]["labels"][REVISION_LABEL] for one in pods(fleet, service)} == {second.release.revision}
    assert second.endpoint.url == f"https://digits.{service.namespace}.svc.cluster.local"
    # nothing is written again where nothing has changed
    before = runtime.get(Ref("apps/v1", "Deployment", "digits", service.namespace))
    bring_up(service, NEXT)
    after = runtime.get(Ref("apps/v1", "Deployment", "digits", service.namespace))
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    remove(service, target=target_of("torchserve"), runtime=runtime)
    for ref in target_of("torchserve").objects(service):
        assert runtime.get(ref) is None


def test_longshores_own_server_takes_its_place_at_the_same_address(service, bring_up, runtime):
    address = Ref("v1", "Service", "digits", service.namespace)
    first = bring_up(service)
    before = runtime.get(address)
    second = bring_up(replace(service, torchserve=replace(OPTIONS, instead="longshore")))
    assert second.previous == first.release
    after = runtime.get(address)
    assert after["spec"] == before["spec"]
    back = bring_up(service)
    assert back.release == first.release


@pytest.mark.parametrize("name", ["tokens", "tls"])
def test_a_secret_that_is_not_there_is_told_before_anything_is_touched(name, fleet, service, bring_up, runtime):
    fleet.request("DELETE", f"/api/v1/namespaces/{service.namespace}/secrets/{name}")
    with pytest.raises(InvalidValue, match=rf"TorchServeOptions\..* = '{name}'"):
        bring_up(service)
    assert runtime.get(Ref("apps/v1", "Deployment", "digits", service.namespace)) is None


def test_two_revisions_stand_behind_a_router(service, bring_up, runtime):
    router = Router(kind="nginx", replicas=1, tls=Tls(secret="tls"))
    service = replace(service, router=router, scaling=Scaling(), torchserve=replace(OPTIONS, tls=None))
    first = bring_up(service)
    second = bring_up(service, NEXT, percent=20)
    deployments = runtime.find(Selection("apps/v1", "Deployment", service.namespace))
    names = {first.release.revision, second.release.revision, "digits-route"}
    assert {one["metadata"]["name"] for one in deployments} == names
    bring_up(service)
    remove(service, target=target_of("torchserve", routed=True), runtime=runtime)
    assert runtime.find(Selection("apps/v1", "Deployment", service.namespace)) == []


MONITORS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "podmonitors.monitoring.coreos.com"},
    "spec": {
        "group": "monitoring.coreos.com",
        "scope": "Namespaced",
        "names": {"kind": "PodMonitor", "plural": "podmonitors"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
"""The kind by name only: its schema is of Prometheus' operator."""


def test_a_pod_monitor_comes_and_goes_with_what_asks_for_it(fleet, service, bring_up, runtime):
    fleet.apply(MONITORS)
    monitor = Ref("monitoring.coreos.com/v1", "PodMonitor", "digits", service.namespace)
    eventually(lambda: fleet.get("/apis/monitoring.coreos.com/v1") is not None, "the kind PodMonitor")
    bring_up(replace(service, torchserve=replace(OPTIONS, pod_monitor=True)))
    found = runtime.get(monitor)
    assert found["spec"]["podMetricsEndpoints"] == [{"port": "metrics", "path": "/metrics"}]
    bring_up(service)
    assert runtime.get(monitor) is None


def test_kserve_makes_pods_of_it_that_run_longshores_image(kserve, fleet, namespace, bring_up):
    service = Service(name="digits", namespace=namespace, resources=Resources(cpu="10m", memory="64Mi"))
    done = bring_up(service, platform="kserve")
    assert (done.endpoint.model, done.endpoint.takes) == ("digits", "rows")
    (pod,) = pods(fleet, service)
    (container,) = (one for one in pod["spec"]["containers"] if one["name"] == "kserve-container")
    assert container["image"] == image_name("torch")
    assert container["command"] == ["python", "-m", "longshore.serving.torchserve_server"]
    # the runtime's own arguments come first, and what is set counts
    assert container["args"][0] == "torchserve"
    assert "--ts-config=/mnt/models/config/config.properties" in container["args"]
    assert f"--digest={MODEL.digest}" in container["args"]
    assert container["readinessProbe"]["exec"]["command"] == ["test", "-e", "/tmp/ready"]
    # an archive of others is what KServe's own image is for
    bring_up(service, replace(MODEL, digest=None), platform="kserve")
    eventually(lambda: len(pods(fleet, service)) == 1, "the pods before to be gone")
    (pod,) = pods(fleet, service)
    (container,) = (one for one in pod["spec"]["containers"] if one["name"] == "kserve-container")
    assert "torchserve" in container["image"]
    assert container["image"] != image_name("torch")
