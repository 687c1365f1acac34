"""The platform ``torchserve`` in real pods: a real TorchServe behind its gate, and a model of scikit-learn in it."""

from dataclasses import replace
from pathlib import Path

import pytest
from harness.certificates import Authority
from harness.cluster import eventually
from harness.load import Load
from harness.penguins import ROW
from harness.pods import run_pod
from harness.torchserve import make_package

from longshore.client import Access
from longshore.deployment import deploy_model, predict
from longshore.errors import DeployError
from longshore.spec import KServeOptions, Resources, Service, Tls, TorchServeOptions
from longshore.storage import copy_tree
from longshore.targets.base import SERVICE_LABEL

TOKEN = "3f1c9d0e7ab24c55"
ACCESS = Access(token=TOKEN)
URL = "http://penguins.{}.svc/v1/models/penguins:predict"
RAISES = """
class Handler:
    def initialize(self, context):
        raise LookupError("no weights")

    def handle(self, data, context):
        return data
"""


@pytest.fixture(scope="module")
def packages(bucket, constant_models, tmp_path_factory):
    """Packages by number in the bucket: each predicts its own number; and one whose handler raises."""

    def make(number, files=None):
        model = constant_models(number)
        package = make_package(model, tmp_path_factory.mktemp("package") / "p", str(number), files)
        name = number if files is None else f"{number}-broken"
        return replace(package, uri=copy_tree(Path(package.uri), f"{bucket}/torchserve/{name}"))

    return {1: make(1), 2: make(2), "broken": make(3, {"handler.py": RAISES})}


@pytest.fixture
def service(real_cluster, place) -> Service:
    secret = {"metadata": {"name": "tokens"}, "stringData": {"web": f"# of the tests\n{TOKEN}\n"}}
    real_cluster.request("POST", f"/api/v1/namespaces/{place}/secrets", secret)
    return Service(
        name="penguins",
        namespace=place,
        resources=Resources(cpu="200m", memory="1Gi"),
        secrets=["bucket"],
        torchserve=TorchServeOptions(token_secret="tokens", plaintext=True),
    )


@pytest.fixture
def deploy(session):
    """Deploy as a step would, with times fit for a test."""

    def run(model, service, **options):
        options = {"timeout_seconds": 150, "patience_seconds": 3, **options}
        return deploy_model(model, service, platform="torchserve", session=session, **options)

    return run


def pods(cluster, service) -> list[dict]:
    """The service's pods that are there to stay."""
    path = f"/api/v1/namespaces/{service.namespace}/pods"
    found = cluster.request("GET", path, query={"labelSelector": f"{SERVICE_LABEL}={service.name}"})["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def load(cluster, service):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return Load(cluster, service.namespace, URL.format(service.namespace), ROW, headers)


def test_a_package_is_deployed_replaced_under_load_and_left_for_longshores_own_server(
    real_cluster, service, packages, deploy, session
):
    first = deploy(packages[1], service)
    assert predict(first.endpoint, [ROW], access=ACCESS, session=session) == [1.0]
    with load(real_cluster, service) as asking:
        second = deploy(packages[2], service)
        assert second.previous.revision == first.release.revision
        with pytest.raises(DeployError) as failure:
            deploy(packages["broken"], service)
        options = replace(service.torchserve, instead="longshore")
        own = deploy(packages[1], replace(service, torchserve=options))
        done = len(asking.read())
        eventually(lambda: len(asking.read()) > done + 20, "more answers")
    assert asking.failures == []
    assert asking.answers == {1, 2}
    assert {float(line) for line in asking.lines[done + 1 :]} == {1}
    assert "container server crashes again and again" in str(failure.value)
    assert 'raise LookupError("no weights")' in str(failure.value)
    assert "TorchServe cannot load penguins, version 3: LookupError: no weights" in str(failure.value)
    assert f"Revision {second.release.revision} serves as before" in str(failure.value)
    assert own.previous.revision == second.release.revision


REACH = """
import socket, sys
for port in map(int, sys.argv[2:]):
    try:
        socket.create_connection((sys.argv[1], port), timeout=5).close()
        print(port, "open")
    except OSError as error:
        print(port, type(error).__name__)
"""


def test_clients_come_by_tls_with_a_token_and_reach_nothing_else(
    real_cluster, service, packages, deploy, session, tmp_path
):
    authority, place = Authority(tmp_path), service.namespace
    certificate, key = authority.issue("tls", "penguins", hosts=[f"penguins.{place}.svc.cluster.local"])
    content = {"tls.crt": certificate.read_text(), "tls.key": key.read_text()}
    secret = {"metadata": {"name": "tls"}, "type": "kubernetes.io/tls", "stringData": content}
    real_cluster.request("POST", f"/api/v1/namespaces/{place}/secrets", secret)
    tls = Tls(secret="tls", ca=authority.pem.decode())
    service = replace(service, torchserve=TorchServeOptions(token_secret="tokens", tls=tls))
    with pytest.raises(DeployError, match="a token is needed that is known here") as failure:
        # the smoke test is a client like any other
        deploy(packages[1], service, access=Access(token="another-token-0123456789"))
    assert "Nothing served before, and nothing was left behind" in str(failure.value)
    endpoint = deploy(packages[1], service).endpoint
    assert endpoint.url == f"https://penguins.{place}.svc.cluster.local"
    assert predict(endpoint, [ROW], access=ACCESS, session=session) == [1.0]
    with pytest.raises(DeployError, match="a token is needed that is known here"):
        predict(endpoint, [ROW], session=session)
    (pod,) = pods(real_cluster, service)
    numbers = ["8080", "9000", "8082", "8083", "8085", "8086", "7070", "7071"]
    succeeded, told = run_pod(real_cluster, place, "reach", ["python", "-c", REACH, pod["status"]["podIP"], *numbers])
    assert succeeded
    assert [line.split()[0] for line in told.splitlines() if line.endswith("open")] == ["8080", "9000", "8082"]


def test_a_package_that_was_tampered_with_is_not_loaded(real_cluster, service, packages, deploy):
    with pytest.raises(DeployError) as failure:
        deploy(replace(packages[1], digest="sha256:" + "0" * 64), service)
    assert "container setup crashes again and again" in str(failure.value)
    assert "does not have the recorded content" in str(failure.value)
    eventually(lambda: not pods(real_cluster, service), "the end of the pods")


def test_kserves_runtime_serves_a_package_in_longshores_image(kserve_place, packages, session):
    options = KServeOptions(storage_secret="kserve-bucket")
    resources = Resources(cpu="200m", memory="1Gi")
    service = Service(name="penguins", namespace=kserve_place, resources=resources, kserve=options)

    def deploy(model):
        times = {"timeout_seconds": 150, "patience_seconds": 3}
        return deploy_model(model, service, platform="kserve", session=session, **times)

    done = deploy(packages[1])
    for protocol in ("v1", "v2"):
        assert predict(done.endpoint, [ROW, ROW], protocol=protocol, session=session) == [1.0, 1.0]
    with pytest.raises(DeployError, match="TorchServe cannot load penguins, version 3: LookupError: no weights"):
        deploy(packages["broken"])
    assert predict(done.endpoint, [ROW], session=session) == [1.0]
