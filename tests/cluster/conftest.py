"""The clusters that tests share. Each starts once in a run, when a test first asks for it.

A test takes a fresh namespace of it. Where pods only pretend, it leaves that behind: deleting one takes seconds, and
all ends anyway. On real nodes what a test leaves would take the place of the next one's pods.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from harness.cluster import Cluster, eventually
from harness.keeper import Keeper
from harness.system import Missing

NAMED = "LONGSHORE_TEST_KUBECONFIG"
"""The cluster that is used in place of all of these."""

NAMED_STORE = "LONGSHORE_TEST_S3"
"""With a named cluster, the address of the S3 server that the tests of pods keep models in."""


@pytest.fixture(scope="session")
def keeper() -> Iterator[Keeper]:
    """Holds the control plane, and what is added to it."""
    if NAMED in os.environ:
        pytest.skip(f"this test needs a cluster of its own: unset {NAMED}")
    keeper = Keeper()
    yield keeper
    keeper.close()


@pytest.fixture(scope="session")
def plane(keeper):
    """A control plane without nodes: harness.plane.Plane."""
    from harness.plane import Plane

    try:
        plane = Plane(keeper)
    except Missing as error:
        pytest.skip(str(error))
    plane.start()
    return plane


@pytest.fixture(scope="session")
def cluster(request, tmp_path_factory) -> Cluster:
    """The cluster of ``plane``, or the one that the caller named."""
    if NAMED in os.environ:
        return Cluster(Path(os.environ[NAMED]), tmp_path_factory.mktemp("cluster"))
    plane = request.getfixturevalue("plane")
    return Cluster(plane.kubeconfig("admin"), plane.folder)


@pytest.fixture(scope="session")
def fleet(keeper, plane, cluster) -> Cluster:
    """The cluster with fake nodes, whose pods do what their annotations say: see harness.fleet."""
    from harness.fleet import start_fleet

    try:
        start_fleet(keeper, plane, cluster)
    except Missing as error:
        pytest.skip(str(error))
    return cluster


@pytest.fixture(scope="session")
def kserve(request, cluster):
    """KServe on ``cluster``: harness.kserve.KServe on the fleet; None where a named cluster has its own."""
    from harness.kserve import KServe

    if NAMED in os.environ:
        need_kserve(cluster)
        return None
    keeper, plane, fleet = (request.getfixturevalue(name) for name in ("keeper", "plane", "fleet"))
    try:
        kserve = KServe(keeper, plane, fleet)
    except Missing as error:
        pytest.skip(str(error))
    kserve.start()
    return kserve


@pytest.fixture(scope="session")
def language_models(request, kserve, cluster) -> Cluster:
    """``cluster`` with KServe's controller for language models: harness.llmisvc.LLMController."""
    from harness.llmisvc import LLMController

    if kserve is None:
        crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/llminferenceservices.serving.kserve.io"
        if cluster.get(crd) is None:
            pytest.skip(f"the cluster of {NAMED} does not have KServe's LLMInferenceService: install it there")
        return cluster
    keeper, plane = (request.getfixturevalue(name) for name in ("keeper", "plane"))
    try:
        LLMController(keeper, plane, cluster).start()
    except Missing as error:
        pytest.skip(str(error))
    return cluster


@pytest.fixture(scope="session")
def seldon_kinds(fleet) -> Cluster:
    """``fleet`` with the SeldonDeployments of Seldon Core 1; what carries them out is harness.seldon."""
    from harness.definitions import install_definitions

    try:
        install_definitions(fleet, "seldon-v1")
    except Missing as error:
        pytest.skip(str(error))
    return fleet


@pytest.fixture(scope="session")
def seldon_v2_kinds(fleet) -> Cluster:
    """``fleet`` with the kinds of Seldon Core 2; what carries them out is harness.seldon_v2."""
    from harness.definitions import install_definitions

    try:
        install_definitions(fleet, "seldon-v2")
    except Missing as error:
        pytest.skip(str(error))
    return fleet


@pytest.fixture(scope="session")
def nodes() -> Iterator[object]:
    """A cluster with one real node, a registry and DNS: harness.nodes.NodesCluster."""
    from harness.nodes import NodesCluster

    if NAMED in os.environ:
        pytest.skip(f"this test needs nodes of its own: unset {NAMED}")
    keeper = Keeper()
    try:
        yield NodesCluster(keeper)
    except Missing as error:
        pytest.skip(str(error))
    finally:
        keeper.close()


@pytest.fixture
def namespace(cluster) -> Iterator[str]:
    """A fresh namespace of ``cluster``."""
    name = cluster.namespace()
    yield name
    if NAMED in os.environ:
        cluster.delete_namespace(name)


@pytest.fixture(scope="session")
def real_cluster(request, tmp_path_factory) -> Cluster:
    """A cluster whose pods really run: that of ``nodes``, or the one that the caller named."""
    if NAMED in os.environ:
        return Cluster(Path(os.environ[NAMED]), tmp_path_factory.mktemp("real-cluster"))
    return request.getfixturevalue("nodes").cluster


@pytest.fixture(scope="session")
def real_kserve(request, real_cluster) -> Cluster:
    """The same with KServe, whose pods answer real predictions."""
    if NAMED in os.environ:
        need_kserve(real_cluster)
        return real_cluster
    from harness.kserve import KServe

    nodes = request.getfixturevalue("nodes")
    try:
        KServe(nodes.keeper, nodes.plane, nodes.cluster).start()
    except Missing as error:
        pytest.skip(str(error))
    return real_cluster


def need_kserve(cluster: Cluster) -> None:
    """Skip the test where a cluster that the caller named lacks KServe."""
    crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/inferenceservices.serving.kserve.io"
    if cluster.get(crd) is None:
        pytest.skip(f"the cluster of {NAMED} does not have KServe: install it there")


@pytest.fixture(scope="session")
def store(request) -> str:
    """Address of an S3 server that the pods of ``real_cluster`` reach, and this process too."""
    if NAMED in os.environ:
        if NAMED_STORE not in os.environ:
            pytest.skip(f"name an S3 server that the pods of the cluster reach, and this machine too, in {NAMED_STORE}")
        return os.environ[NAMED_STORE]
    nodes = request.getfixturevalue("nodes")
    host = nodes.network.address
    nodes.spawn("s3", [sys.executable, "-m", "moto.server", "-H", host, "-p", "9000"])
    return f"http://{host}:9000"


@pytest.fixture(scope="session")
def bucket(store) -> Iterator[str]:
    """A bucket of that server; this process finds it."""
    import s3fs

    name = f"models-{secrets.token_hex(4)}"
    with pytest.MonkeyPatch.context() as patch:
        for key, value in storage_environment(store).items():
            patch.setenv(key, value)
        s3fs.S3FileSystem.clear_instance_cache()
        filesystem = s3fs.S3FileSystem()
        eventually(lambda: requests.get(store, timeout=2).status_code < 500, "S3")
        filesystem.mkdir(name)
        yield f"s3://{name}"
        s3fs.S3FileSystem.clear_instance_cache()


def storage_environment(address: str) -> dict[str, str]:
    """What a process needs to know to read the bucket; a named server's credentials are this process's own."""
    own = {key: value for key, value in os.environ.items() if key.startswith("AWS_")} if NAMED in os.environ else {}
    return {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        **own,
        "AWS_ENDPOINT_URL": address,
    }


@pytest.fixture(scope="session")
def stored_models(bucket, constant_models):
    """Models by number in the bucket: each predicts its own number. They are in no registry."""
    from longshore.storage import copy_tree

    made = {}

    def make(number: int):
        if number not in made:
            model = constant_models(number)
            made[number] = replace(model, uri=copy_tree(Path(model.uri), f"{bucket}/{number}"), version=None)
        return made[number]

    return make


@pytest.fixture(scope="session")
def session(real_cluster):
    """A session with ``real_cluster`` as its administrator."""
    from longshore.cluster import Session

    session = Session.from_kubeconfig(real_cluster.kubeconfig)
    yield session
    session.close()


@pytest.fixture
def answer(session):
    """Ask an endpoint for one row, through the API server where it is in the cluster."""
    from longshore.client import predict
    from longshore.cluster import ClusterRuntime

    def ask(endpoint, row):
        with ClusterRuntime(session).reach(endpoint) as reachable:
            return predict(reachable, [row])[0]

    return ask


@pytest.fixture
def place(real_cluster, store) -> Iterator[str]:
    """A fresh namespace of it with the credentials of the bucket, where only restricted pods are admitted."""
    name = real_cluster.namespace()
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    real_cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    secret = {"name": "bucket", "namespace": name}
    data = storage_environment(store)
    real_cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": secret, "stringData": data})
    yield name
    real_cluster.delete_namespace(name)


@pytest.fixture
def kserve_place(real_kserve, place, store) -> str:
    """``place`` as KServe wants it: the credentials of the bucket are in the Secret ``kserve-bucket``."""
    # KServe's storage initializer does not pass the profile "restricted"
    labels = {"pod-security.kubernetes.io/enforce": "baseline"}
    real_kserve.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place, "labels": labels}})
    secret = real_kserve.get(f"/api/v1/namespaces/{place}/secrets/bucket")
    annotations = {
        "serving.kserve.io/s3-endpoint": urlsplit(store).netloc,
        "serving.kserve.io/s3-usehttps": "0",
        "serving.kserve.io/s3-region": "us-east-1",
    }
    metadata = {"name": "kserve-bucket", "namespace": place, "annotations": annotations}
    keys = {key: value for key, value in secret["data"].items() if key != "AWS_ENDPOINT_URL"}
    real_kserve.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": keys})
    return place


@pytest.fixture
def proxy(cluster):
    """A proxy before ``cluster`` that counts requests and makes trouble on request: harness.proxy.Proxy."""
    from harness.proxy import Proxy

    with Proxy(cluster) as proxy:
        yield proxy


@pytest.fixture
def runtime(proxy):
    """A runtime whose requests go through the proxy."""
    from kubernetes.client import Configuration

    from longshore.cluster import ClusterRuntime, Session

    session = Session(Configuration(host=proxy.url), name="test")
    yield ClusterRuntime(session)
    session.close()
