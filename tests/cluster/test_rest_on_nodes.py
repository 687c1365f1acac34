"""The platform ``rest`` in real pods: what was deployed answers, and what fails leaves what served before alone."""

import json
import time
from dataclasses import replace

import pytest
from harness.certificates import Authority
from harness.cluster import eventually
from harness.images import longshore_image
from harness.load import Load
from harness.penguins import PENGUINS, ROW
from harness.pods import run_pod, start_pod

from longshore.cluster import ClusterRuntime, Session
from longshore.deployment import delete_service, deploy_model, observe_endpoint, predict, replay_table, rollback_service
from longshore.errors import ClusterError, ConfigError, DeployError, InvalidValue
from longshore.rbac import DEPLOYER, deployer_objects
from longshore.spec import Endpoint, Resources, Router, Scaling, Service, Tls
from longshore.targets.base import SERVICE_LABEL, Ref
from longshore.targets.nginx import ROUTE_LABEL
from longshore.training import read_table
from longshore.training.data import write_table

SMALL = Resources(cpu="20m", memory="400Mi")
URL = "http://penguins.{}.svc/v1/models/penguins:predict"


@pytest.fixture
def service(place) -> Service:
    return Service(name="penguins", namespace=place, resources=SMALL, secrets=["bucket"])


@pytest.fixture
def deploy(session):
    """Deploy as a step would, with times fit for a test."""

    def run(model, service, **options):
        options = {"timeout_seconds": 90, "patience_seconds": 3, **options}
        return deploy_model(model, service, platform="rest", session=session, **options)

    return run


def pods(cluster, service) -> dict[str, dict]:
    """The service's pods that are there to stay."""
    path = f"/api/v1/namespaces/{service.namespace}/pods"
    found = cluster.request("GET", path, query={"labelSelector": f"{SERVICE_LABEL}={service.name}"})["items"]
    return {pod["metadata"]["name"]: pod for pod in found if "deletionTimestamp" not in pod["metadata"]}


def test_a_model_is_deployed_replaced_under_load_and_brought_back(
    real_cluster, service, stored_models, deploy, session, answer
):
    first = deploy(stored_models(1), service)
    assert first.previous is None
    assert first.endpoint.url == f"http://penguins.{service.namespace}.svc"
    assert answer(first.endpoint, ROW) == 1
    with Load(real_cluster, service.namespace, URL.format(service.namespace), ROW) as load:
        second = deploy(stored_models(2), service)
        # once it is deployed, the revision before answers no more
        done = len(load.read())
        eventually(lambda: len(load.read()) > done + 20, "more answers")
    assert load.failures == []
    assert load.answers == {1, 2}
    assert {float(line) for line in load.lines[done + 1 :]} == {2}
    assert second.previous.revision == first.release.revision
    assert answer(first.endpoint, ROW) == 2
    back = rollback_service("penguins", platform="rest", namespace=service.namespace, session=session)
    assert back.release.revision == first.release.revision
    assert answer(first.endpoint, ROW) == 1


def test_a_service_changes_its_framework_under_load(real_cluster, service, stored_models, deploy, answer):
    endpoint = deploy(stored_models(1), service).endpoint
    with Load(real_cluster, service.namespace, URL.format(service.namespace), ROW) as load:
        for framework in ("flask", "django", "fastapi"):
            deploy(stored_models(1), replace(service, framework=framework))
            assert answer(endpoint, ROW) == 1
            containers = [pod["spec"]["containers"][0] for pod in pods(real_cluster, service).values()]
            assert [container["image"] for container in containers] == [longshore_image(framework)]
    assert load.failures == []
    assert load.answers == {1}


def test_clients_come_by_https_with_the_certificate_of_a_secret(
    real_cluster, service, stored_models, deploy, session, tmp_path
):
    authority, place = Authority(tmp_path), service.namespace
    certificate, key = authority.issue("tls", "penguins", hosts=[f"penguins.{place}.svc.cluster.local"])
    content = {"tls.crt": certificate.read_text(), "tls.key": key.read_text()}
    secret = {"metadata": {"name": "tls"}, "type": "kubernetes.io/tls", "stringData": content}
    real_cluster.request("POST", f"/api/v1/namespaces/{place}/secrets", secret)
    tls = Tls(secret="tls", ca=authority.pem.decode())
    router = Router(kind="nginx", replicas=1, access_log=True, tls=tls)
    endpoint = deploy(stored_models(1), replace(service, router=router)).endpoint
    assert endpoint.url == f"https://penguins.{place}.svc.cluster.local"
    assert predict(endpoint, [ROW], session=session) == [1.0]
    with pytest.raises(DeployError, match=f"308 and sends clients to {endpoint.url}/v1"):
        predict(replace(endpoint, url=endpoint.url.replace("https", "http")), [ROW], session=session)
    with pytest.raises(InvalidValue, match=r"Router\.tls\.secret = 'missing'"):
        deploy(stored_models(2), replace(service, router=replace(router, tls=replace(tls, secret="missing"))))
    path = f"/api/v1/namespaces/{place}/pods"
    (pod,) = real_cluster.request("GET", path, query={"labelSelector": f"{ROUTE_LABEL}=penguins"})["items"]
    log = [line for line in real_cluster.log(place, pod["metadata"]["name"]).splitlines() if line.startswith("{")]
    assert {json.loads(line)["revision"] for line in log} == {"", endpoint.revision}
    delete_service("penguins", platform="rest", namespace=place, session=session)


def test_a_step_outside_the_cluster_asks_through_the_api_server(
    real_cluster, service, stored_models, deploy, monkeypatch, tmp_path
):
    monkeypatch.setenv("KUBECONFIG", str(real_cluster.kubeconfig))
    model = stored_models(1)
    endpoint = deploy(model, service).endpoint
    table = str(tmp_path / "table.parquet")
    write_table(read_table(str(PENGUINS)), table)
    report = replay_table(endpoint, model, table, max_requests=30)
    assert (report.requests, report.failed) == (30, 0)
    stats, drift = observe_endpoint(endpoint, model)
    assert stats.requests >= 30
    assert drift.rows >= 30


def test_nothing_is_written_or_restarted_when_nothing_changed(real_cluster, service, stored_models, deploy):
    deploy(stored_models(1), service)
    path = f"/apis/apps/v1/namespaces/{service.namespace}/deployments/penguins"
    before, running = real_cluster.get(path), set(pods(real_cluster, service))
    deploy(stored_models(1), service)
    after = real_cluster.get(path)
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert set(pods(real_cluster, service)) == running


def test_scaling_keeps_the_pods_that_serve(real_cluster, service, stored_models, deploy):
    first = deploy(stored_models(1), service)
    running = set(pods(real_cluster, service))
    scaled = deploy(stored_models(1), replace(service, scaling=Scaling(min_replicas=2)))
    assert scaled.release.revision == first.release.revision
    assert running < set(pods(real_cluster, service))
    assert len(pods(real_cluster, service)) == 2


BROKEN = {
    "an image that is nowhere": (
        {"image": "registry.test/none/server:9"},
        "cannot be pulled",
        "none/server:9",
    ),
    "more than any node has": ({"resources": Resources(cpu="4000")}, "cannot be scheduled", "Insufficient cpu"),
    "too little memory": ({"resources": Resources(memory="20Mi", cpu="20m")}, "crashes again and again", "memory"),
    "a server that is none": (
        {"image": longshore_image("python")},
        "",
        "no such file or directory",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_cannot_come_up_is_told_at_once_and_what_served_before_serves(
    what, real_cluster, service, stored_models, deploy
):
    changes, verdict, words = BROKEN[what]
    first = deploy(stored_models(1), service)
    running = set(pods(real_cluster, service))
    started = time.monotonic()
    with (
        Load(real_cluster, service.namespace, URL.format(service.namespace), ROW) as load,
        pytest.raises(DeployError) as failure,
    ):
        deploy(stored_models(2), replace(service, **changes), timeout_seconds=300)
    assert time.monotonic() - started < 90
    assert verdict in str(failure.value)
    assert words in str(failure.value)
    assert f"Revision {first.release.revision} serves as before" in str(failure.value)
    assert failure.value.restored == first.release.revision
    assert load.failures == []
    assert load.answers == {1}
    assert set(pods(real_cluster, service)) >= running


def test_a_missing_secret_is_told_before_anything_is_changed(real_cluster, service, stored_models, deploy, answer):
    first = deploy(stored_models(1), service)
    before = pods(real_cluster, service)
    with pytest.raises(InvalidValue, match=r"Service.secrets\[1\] = 'nope' .* no Secret of this name"):
        deploy(stored_models(2), replace(service, secrets=["bucket", "nope"]))
    assert set(pods(real_cluster, service)) == set(before)
    assert answer(first.endpoint, ROW) == 1


def test_a_model_that_was_tampered_with_is_not_served_and_nothing_is_left(real_cluster, service, stored_models, deploy):
    model = replace(stored_models(1), digest="sha256:" + "0" * 64)
    with pytest.raises(DeployError) as failure:
        deploy(model, service)
    assert "does not have the recorded content" in str(failure.value)
    assert "Nothing served before, and nothing was left behind" in str(failure.value)
    for kind in ("apis/apps/v1/namespaces/{}/deployments", "api/v1/namespaces/{}/services"):
        assert real_cluster.request("GET", "/" + kind.format(service.namespace))["items"] == []
    eventually(lambda: not pods(real_cluster, service), "the end of the pods")


SILENT = """
import socket, signal
store = socket.create_server(("", 9001))
signal.pause()
"""


def test_a_revision_that_never_answers_is_given_up_in_time(real_cluster, service, stored_models, deploy, answer):
    first = deploy(stored_models(1), service)
    # a store that takes connections and says nothing
    start_pod(real_cluster, service.namespace, "silent", ["python", "-c", SILENT])
    metadata = {"name": "silent", "namespace": service.namespace}
    spec = {"selector": {"app": "silent"}, "ports": [{"port": 9001}]}
    real_cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    waits = replace(service, env={"AWS_ENDPOINT_URL": "http://silent:9001"})
    with pytest.raises(DeployError) as failure:
        deploy(stored_models(2), waits, timeout_seconds=12)
    assert "not ready after 12 s: 0 of 1 pods are ready" in str(failure.value)
    assert "Startup probe failed" in str(failure.value)
    assert failure.value.restored == first.release.revision
    assert answer(first.endpoint, ROW) == 1


def test_a_used_up_quota_is_named(real_cluster, service, stored_models, deploy, answer):
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small", "namespace": service.namespace},
        "spec": {"hard": {"pods": "1"}},
    }
    real_cluster.apply(quota)
    first = deploy(stored_models(1), service)
    with pytest.raises(DeployError, match="exceeded quota: small") as failure:
        deploy(stored_models(2), service)
    assert failure.value.restored == first.release.revision
    assert answer(first.endpoint, ROW) == 1


def test_a_service_is_deleted_whole(real_cluster, service, stored_models, deploy, session):
    deploy(stored_models(1), service)
    delete_service("penguins", platform="rest", namespace=service.namespace, session=session)
    for path in ("apis/apps/v1/namespaces/{}/deployments", "api/v1/namespaces/{}/services"):
        assert real_cluster.request("GET", "/" + path.format(service.namespace))["items"] == []
    eventually(lambda: not pods(real_cluster, service), "the end of the pods")
    delete_service("penguins", platform="rest", namespace=service.namespace, session=session)
    with pytest.raises(ConfigError, match="no earlier release"):
        rollback_service("penguins", platform="rest", namespace=service.namespace, session=session)


def test_the_pipeline_deploys_from_a_pod_with_the_least_role(real_cluster, place, bucket, answer):
    import s3fs

    s3fs.S3FileSystem().put(str(PENGUINS), f"{bucket.removeprefix('s3://')}/penguins.csv")
    for manifest in deployer_objects(place, platforms=["rest"]):
        real_cluster.apply(manifest)
    settings = {
        "data": f"{bucket}/penguins.csv",
        "target": "body_mass_g",
        "name": "penguins",
        "platform": "rest",
        "repository": f"{bucket}/{place}",
        "secrets": '["bucket"]',
        "cpu": SMALL.cpu,
        "memory": SMALL.memory,
    }
    given = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = ["longshore", "run", "train_and_deploy", "--local", "--json", *given]
    succeeded, log = run_pod(real_cluster, place, "pipeline", command, secret="bucket", service_account=DEPLOYER)
    assert succeeded, log
    url = f"http://penguins.{place}.svc"
    assert 2500 < answer(Endpoint(name="penguins", url=url, model="penguins", revision="any"), ROW) < 6500
    # nothing beyond: the account may not even read the credentials that the server is given
    poor = Session.from_kubeconfig(real_cluster.kubeconfig_of(place, DEPLOYER))
    with pytest.raises(ClusterError, match=rf"{place}:{DEPLOYER} may not get secrets in namespace {place}"):
        ClusterRuntime(poor).get(Ref("v1", "Secret", "bucket", place))


def test_the_local_platform_is_refused_in_a_pod(real_cluster, place):
    code = "from longshore.deployment import find_endpoint\nfind_endpoint('penguins', platform='local')"
    succeeded, log = run_pod(real_cluster, place, "local", ["python", "-c", code])
    assert not succeeded
    assert "choose the platform 'rest'" in log
