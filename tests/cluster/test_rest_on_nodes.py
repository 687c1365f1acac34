"""The platform ``rest`` in real pods: what was deployed answers, and what fails leaves what served before alone."""

import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from harness.cluster import eventually
from harness.images import longshore_image

from longshore.cluster import ClusterRuntime, Session
from longshore.deployment import delete_service, deploy_model, observe_endpoint, replay_table, rollback_service
from longshore.errors import ClusterError, ConfigError, DeployError
from longshore.rbac import DEPLOYER, deployer_objects
from longshore.spec import Resources, Scaling, Service
from longshore.targets.base import Ref
from longshore.training import read_table
from longshore.training.data import write_table

PENGUINS = Path(__file__).parents[2] / "examples" / "data" / "penguins.csv"
ROW = {
    "species": "Adelie",
    "island": "Torgersen",
    "bill_length_mm": 39.1,
    "bill_depth_mm": 18.7,
    "flipper_length_mm": 181,
    "sex": "male",
    "year": 2007,
}
SMALL = Resources(cpu="20m", memory="400Mi")


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


def pods(nodes, service) -> dict[str, dict]:
    path = f"/api/v1/namespaces/{service.namespace}/pods"
    found = nodes.cluster.request("GET", path)["items"]
    return {pod["metadata"]["name"]: pod for pod in found if "deletionTimestamp" not in pod["metadata"]}


def answer(nodes, service) -> float:
    """What a client in the cluster's network is answered."""
    found = nodes.cluster.get(f"/api/v1/namespaces/{service.namespace}/services/{service.name}")
    url = f"http://{found['spec']['clusterIP']}/v1/models/penguins:predict"
    reply = requests.post(url, json={"instances": [ROW]}, timeout=5)
    reply.raise_for_status()
    return reply.json()["predictions"][0]


class Load:
    """A client that asks on and on, with a connection of its own for each request."""

    def __init__(self, nodes, service) -> None:
        self._ask = lambda: answer(nodes, service)
        self.answers: list[float] = []
        self.failures: list[str] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                self.answers.append(self._ask())
            except requests.RequestException as error:
                self.failures.append(repr(error))

    def __enter__(self) -> "Load":
        self._thread.start()
        eventually(lambda: self.answers, "an answer")
        return self

    def __exit__(self, *_) -> None:
        self._end.set()
        self._thread.join()


def test_a_model_is_deployed_replaced_under_load_and_brought_back(nodes, service, stored_models, deploy, session):
    first = deploy(stored_models(1), service)
    assert first.previous is None
    assert first.endpoint.url == f"http://penguins.{service.namespace}.svc"
    assert answer(nodes, service) == 1
    with Load(nodes, service) as load:
        second = deploy(stored_models(2), service)
        # once it is deployed, the revision before answers no more
        done = len(load.answers)
        eventually(lambda: len(load.answers) > done + 20, "more answers")
    assert load.failures == []
    assert set(load.answers[done + 1 :]) == {2}
    assert set(load.answers) == {1, 2}
    assert second.previous.revision == first.release.revision
    assert answer(nodes, service) == 2
    back = rollback_service("penguins", platform="rest", namespace=service.namespace, session=session)
    assert back.release.revision == first.release.revision
    assert answer(nodes, service) == 1


def test_a_step_outside_the_cluster_asks_through_the_api_server(
    nodes, service, stored_models, deploy, monkeypatch, tmp_path
):
    monkeypatch.setenv("KUBECONFIG", str(nodes.cluster.kubeconfig))
    model = stored_models(1)
    endpoint = deploy(model, service).endpoint
    table = str(tmp_path / "table.parquet")
    write_table(read_table(str(PENGUINS)), table)
    report = replay_table(endpoint, model, table, max_requests=30)
    assert (report.requests, report.failed) == (30, 0)
    stats, drift = observe_endpoint(endpoint, model)
    assert stats.requests >= 30
    assert drift.rows >= 30


def test_nothing_is_written_or_restarted_when_nothing_changed(nodes, service, stored_models, deploy):
    deploy(stored_models(1), service)
    path = f"/apis/apps/v1/namespaces/{service.namespace}/deployments/penguins"
    before, running = nodes.cluster.get(path), set(pods(nodes, service))
    deploy(stored_models(1), service)
    after = nodes.cluster.get(path)
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert set(pods(nodes, service)) == running


def test_scaling_keeps_the_pods_that_serve(nodes, service, stored_models, deploy):
    first = deploy(stored_models(1), service)
    running = set(pods(nodes, service))
    scaled = deploy(stored_models(1), replace(service, scaling=Scaling(min_replicas=2)))
    assert scaled.release.revision == first.release.revision
    assert running < set(pods(nodes, service))
    assert len(pods(nodes, service)) == 2


BROKEN = {
    "an image that is nowhere": (
        {"image": "registry.test/none/server:9"},
        "cannot be pulled",
        "none/server:9",
    ),
    "a missing secret": ({"secrets": ["nope"]}, "CreateContainerConfigError", 'secret "nope" not found'),
    "more than any node has": ({"resources": Resources(cpu="4000")}, "cannot be scheduled", "Insufficient cpu"),
    "too little memory": ({"resources": Resources(memory="20Mi", cpu="20m")}, "crashes again and again", "memory"),
    "a server that is none": (
        {"image": "registry.local/coredns:1"},
        "crashes again and again",
        "log ends with",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_cannot_come_up_is_told_at_once_and_what_served_before_serves(what, nodes, service, stored_models, deploy):
    changes, verdict, words = BROKEN[what]
    first = deploy(stored_models(1), service)
    running = set(pods(nodes, service))
    started = time.monotonic()
    with Load(nodes, service) as load, pytest.raises(DeployError) as failure:
        deploy(stored_models(2), replace(service, **changes), timeout_seconds=300)
    assert time.monotonic() - started < 90
    assert verdict in str(failure.value)
    assert words in str(failure.value)
    assert f"Revision {first.release.revision} serves as before" in str(failure.value)
    assert failure.value.restored == first.release.revision
    assert load.failures == []
    assert set(load.answers) == {1}
    assert set(pods(nodes, service)) >= running


def test_a_model_that_was_tampered_with_is_not_served_and_nothing_is_left(nodes, service, stored_models, deploy):
    model = replace(stored_models(1), digest="sha256:" + "0" * 64)
    with pytest.raises(DeployError) as failure:
        deploy(model, service)
    assert "does not have the recorded content" in str(failure.value)
    assert "Nothing served before, and nothing was left behind" in str(failure.value)
    for kind in ("apis/apps/v1/namespaces/{}/deployments", "api/v1/namespaces/{}/services"):
        assert nodes.cluster.request("GET", "/" + kind.format(service.namespace))["items"] == []
    eventually(lambda: not pods(nodes, service), "the end of the pods")


def storage(address: str) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}


def test_a_revision_that_never_answers_is_given_up_in_time(nodes, service, stored_models, deploy):
    first = deploy(stored_models(1), service)
    address = nodes.network.address
    code = f"import socket, signal; store = socket.create_server(({address!r}, 9001)); signal.pause()"
    nodes.spawn("silent-store", [sys.executable, "-c", code])
    waits = replace(service, env=storage(f"http://{address}:9001"), secrets=[])
    with pytest.raises(DeployError) as failure:
        deploy(stored_models(2), waits, timeout_seconds=12)
    assert "not ready after 12 s: 0 of 1 pods are ready" in str(failure.value)
    assert "Startup probe failed" in str(failure.value)
    assert failure.value.restored == first.release.revision
    assert answer(nodes, service) == 1


def test_a_used_up_quota_is_named(nodes, service, stored_models, deploy):
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small", "namespace": service.namespace},
        "spec": {"hard": {"pods": "1"}},
    }
    nodes.cluster.apply(quota)
    first = deploy(stored_models(1), service)
    with pytest.raises(DeployError, match="exceeded quota: small") as failure:
        deploy(stored_models(2), service)
    assert failure.value.restored == first.release.revision
    assert answer(nodes, service) == 1


def test_a_service_is_deleted_whole(nodes, service, stored_models, deploy, session):
    deploy(stored_models(1), service)
    delete_service("penguins", platform="rest", namespace=service.namespace, session=session)
    for path in ("apis/apps/v1/namespaces/{}/deployments", "api/v1/namespaces/{}/services"):
        assert nodes.cluster.request("GET", "/" + path.format(service.namespace))["items"] == []
    eventually(lambda: not pods(nodes, service), "the end of the pods")
    delete_service("penguins", platform="rest", namespace=service.namespace, session=session)
    with pytest.raises(ConfigError, match="no earlier release"):
        rollback_service("penguins", platform="rest", namespace=service.namespace, session=session)


def test_the_pipeline_deploys_from_a_pod_with_the_least_role(nodes, place, bucket):
    import s3fs

    s3fs.S3FileSystem().put(str(PENGUINS), "models/penguins.csv")
    for manifest in deployer_objects(place, platforms=["rest"]):
        nodes.cluster.apply(manifest)
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
    run_pod(nodes, place, "pipeline", ["longshore", "run", "train_and_deploy", "--local", "--json", *given])
    service = Service(name="penguins", namespace=place)
    assert 2500 < answer(nodes, service) < 6500
    # nothing beyond: the account may not even read the credentials that the server is given
    poor = Session.from_kubeconfig(nodes.cluster.kubeconfig_of(place, DEPLOYER))
    with pytest.raises(ClusterError, match=rf"{place}:{DEPLOYER} may not get secrets in namespace {place}"):
        ClusterRuntime(poor).get(Ref("v1", "Secret", "bucket", place))


def test_the_local_platform_is_refused_in_a_pod(nodes, place):
    code = "from longshore.deployment import default_namespace, _runtime\n_runtime('local', None)"
    with pytest.raises(AssertionError, match="choose the platform 'rest'"):
        run_pod(nodes, place, "local", ["python", "-c", code])


def run_pod(nodes, namespace: str, name: str, command: list[str]) -> None:
    """Run a command in a pod as the deployer, to its end; AssertionError with its log if it fails."""
    container = {
        "name": "step",
        "image": longshore_image("python"),
        "command": command,
        "envFrom": [{"secretRef": {"name": "bucket"}}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "serviceAccountName": DEPLOYER,
        "restartPolicy": "Never",
        "containers": [container],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    if nodes.cluster.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/{DEPLOYER}") is None:
        del spec["serviceAccountName"]
    path = f"/api/v1/namespaces/{namespace}/pods"
    nodes.cluster.request("POST", path, {"metadata": {"name": name}, "spec": spec})
    done = ("Succeeded", "Failed")
    phase = eventually(
        lambda: (p := nodes.cluster.get(f"{path}/{name}")["status"].get("phase")) in done and p, f"pod {name}", 200
    )
    log = nodes.cluster.kubectl("-n", namespace, "logs", name, command=nodes.plane.kubectl)
    assert phase == "Succeeded", log
