"""The platform ``kserve`` in real pods: KServe's controller, its storage initializer, and answers to real requests."""

from dataclasses import replace

import pandas as pd
import pytest
from harness.cluster import eventually
from harness.load import Load
from harness.penguins import PENGUINS, ROW
from harness.pods import run_pod
from onnx import TensorProto, helper

from longshore.cluster import ClusterRuntime
from longshore.deployment import (
    delete_service,
    deploy_model,
    example_rows,
    find_endpoint,
    predict,
    promote_service,
    rollback_service,
)
from longshore.errors import DeployError
from longshore.monitoring import read_metrics, summarise
from longshore.packaging import save_onnx
from longshore.rbac import DEPLOYER, deployer_objects
from longshore.spec import Endpoint, KServeOptions, ModelSource, Resources, Router, Scaling, Service, Traffic
from longshore.storage import copy_tree
from longshore.targets.kserve_runtimes import serving_runtime
from longshore.training import describe_onnx


@pytest.fixture
def service(real_kserve, kserve_place) -> Service:
    """A service of KServe's, on longshore's runtime."""
    real_kserve.apply(serving_runtime(kserve_place))
    return Service(
        name="penguins",
        namespace=kserve_place,
        resources=Resources(cpu="20m", memory="400Mi"),
        kserve=KServeOptions(storage_secret="kserve-bucket"),
    )


@pytest.fixture
def deploy(session):
    """Deploy as a step would, with times fit for a test."""

    def run(model, service, **options):
        options = {"timeout_seconds": 120, "patience_seconds": 3, **options}
        return deploy_model(model, service, platform="kserve", session=session, **options)

    return run


def load(cluster, service, address="penguins-predictor") -> Load:
    url = f"http://{address}.{service.namespace}.svc/v1/models/penguins:predict"
    return Load(cluster, service.namespace, url, ROW)


def pods(cluster, service) -> dict[str, dict]:
    """The service's pods that are there to stay."""
    path = f"/api/v1/namespaces/{service.namespace}/pods"
    query = {"labelSelector": f"serving.kserve.io/inferenceservice={service.name}"}
    found = cluster.request("GET", path, query=query)["items"]
    return {pod["metadata"]["name"]: pod for pod in found if "deletionTimestamp" not in pod["metadata"]}


def served(session, endpoint) -> float:
    """How many requests the endpoint's own revision has answered."""
    with ClusterRuntime(session).reach(replace(endpoint, url=endpoint.revision_url)) as reachable:
        return summarise(read_metrics(f"{reachable.url}/metrics"), revision=endpoint.revision).requests


def test_a_model_is_deployed_replaced_under_load_and_brought_back(
    real_kserve, service, stored_models, deploy, session, answer
):
    first = deploy(stored_models(1), service)
    assert first.endpoint.url == f"http://penguins-predictor.{service.namespace}.svc.cluster.local"
    assert answer(first.endpoint, ROW) == 1
    with load(real_kserve, service) as requests:
        second = deploy(stored_models(2), service)
        # once it is deployed, the revision before answers no more
        done = len(requests.read())
        eventually(lambda: len(requests.read()) > done + 20, "more answers")
    assert requests.failures == []
    assert requests.answers == {1, 2}
    assert {float(line) for line in requests.lines[done + 1 :]} == {2}
    assert second.previous.revision == first.release.revision
    running = set(pods(real_kserve, service))
    scaled = deploy(stored_models(2), replace(service, scaling=Scaling(min_replicas=2)))
    assert scaled.release.revision == second.release.revision
    assert running < set(pods(real_kserve, service))
    back = rollback_service("penguins", platform="kserve", namespace=service.namespace, session=session)
    assert back.release.revision == first.release.revision
    assert answer(back.endpoint, ROW) == 1
    delete_service("penguins", platform="kserve", namespace=service.namespace, session=session)
    eventually(lambda: not pods(real_kserve, service), "the end of the pods")


def test_one_pod_answers_in_every_protocol(real_kserve, service, stored_models, deploy, session):
    options = KServeOptions(storage_secret="kserve-bucket", protocol="grpc-v2")
    endpoint = deploy(stored_models(1), replace(service, kserve=options)).endpoint
    assert endpoint.protocols == ("v1", "v2", "grpc-v2")
    for protocol in endpoint.protocols:
        assert predict(endpoint, [ROW, ROW], protocol=protocol, session=session) == [1, 1]
    place = {"platform": "kserve", "namespace": service.namespace, "session": session}
    assert find_endpoint(service.name, **place) == endpoint
    assert set(example_rows(service.name, **place)[0]) >= set(ROW) - {"species"}


def test_an_onnx_model_is_served_by_longshores_runtime(service, bucket, deploy, answer, tmp_path):
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 1]) for name in ("mass", "twice")]
    graph = helper.make_graph([helper.make_node("Add", ["mass", "mass"], ["twice"])], "model", value[:1], value[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content = made.SerializeToString()
    card = describe_onnx(content, pd.DataFrame({"mass": [1.0, 2.0]}), target="twice")
    digest = save_onnx(tmp_path / "model", content, card)
    uri = copy_tree(tmp_path / "model", f"{bucket}/onnx")
    done = deploy(ModelSource(uri=uri, format="onnx", name="twice", digest=digest), service)
    assert answer(done.endpoint, {"mass": 2.25}) == 4.5


def test_a_broken_update_leaves_the_old_pods_answering(real_kserve, service, stored_models, deploy, answer):
    first = deploy(stored_models(1), service)
    running = set(pods(real_kserve, service))
    # the keys of a store where nobody answers
    annotations = {"serving.kserve.io/s3-endpoint": "127.0.0.1:9", "serving.kserve.io/s3-usehttps": "0"}
    metadata = {"name": "wrong", "namespace": service.namespace, "annotations": annotations}
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    real_kserve.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": keys})
    model = stored_models(2)
    broken = {
        "does not have the recorded content": (replace(model, digest="sha256:" + "0" * 64), service),
        "serviceaccount": (model, replace(service, service_account="nobody")),
        "container storage-initializer crashes again and again": (
            model,
            replace(service, kserve=KServeOptions(storage_secret="wrong")),
        ),
    }
    for words, (bad, where) in broken.items():
        with load(real_kserve, service) as requests, pytest.raises(DeployError) as failure:
            deploy(bad, where)
        assert "not ready after" not in str(failure.value)
        assert words in str(failure.value)
        assert failure.value.restored == first.release.revision
        assert requests.failures == []
        assert requests.answers == {1}
        assert set(pods(real_kserve, service)) >= running
    assert answer(first.endpoint, ROW) == 1


def test_a_part_of_the_requests_is_moved_copied_and_taken_back_without_losing_one(
    real_kserve, service, stored_models, deploy, session, answer
):
    routed = replace(service, router=Router(kind="nginx", replicas=1))
    where = {"platform": "kserve", "namespace": service.namespace, "session": session}
    first = deploy(stored_models(1), routed)
    assert answer(first.endpoint, ROW) == 1
    with load(real_kserve, service, "penguins") as requests:
        deploy(stored_models(2), routed, traffic=Traffic(percent=40))
        settled = len(requests.read())
        eventually(lambda: {"1.0", "2.0"} <= set(requests.read()[settled:]), "answers of both")
        back = rollback_service("penguins", **where)
        taken_back = len(requests.read())
        eventually(lambda: len(requests.read()) > taken_back + 20, "more answers")
        shadow = deploy(stored_models(2), routed, traffic=Traffic(percent=0, mirror_percent=100))
        seen = served(session, shadow.endpoint)
        eventually(lambda: served(session, shadow.endpoint) > seen + 10, "copies of requests")
        shadowed = len(requests.read())
        promote_service("penguins", percent=30, **where)
        whole = promote_service("penguins", **where)
        promoted = len(requests.read())
        eventually(lambda: len(requests.read()) > promoted + 20, "more answers")
    assert requests.failures == []
    assert back.release.revision == first.release.revision
    assert {float(line) for line in requests.lines[taken_back + 1 : shadowed]} == {1}
    assert {float(line) for line in requests.lines[promoted + 1 :]} == {2}
    assert whole.previous.revision == shadow.release.revision
    eventually(lambda: not pods(real_kserve, replace(service, name=first.release.revision)), "the end of the first")
    delete_service("penguins", **where)


def test_the_pipeline_deploys_from_a_pod_with_the_least_role(real_kserve, service, place, bucket, answer):
    import s3fs

    s3fs.S3FileSystem().put(str(PENGUINS), f"{bucket.removeprefix('s3://')}/penguins.csv")
    for manifest in deployer_objects(place, platforms=["kserve"]):
        real_kserve.apply(manifest)
    settings = {
        "data": f"{bucket}/penguins.csv",
        "target": "body_mass_g",
        "name": "penguins",
        "platform": "kserve",
        "repository": f"{bucket}/{place}",
        "storage_secret": "kserve-bucket",
        "cpu": service.resources.cpu,
        "memory": service.resources.memory,
    }
    given = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = ["longshore", "run", "train_and_deploy", "--local", "--json", *given]
    succeeded, log = run_pod(real_kserve, place, "pipeline", command, secret="bucket", service_account=DEPLOYER)
    assert succeeded, log
    url = f"http://penguins-predictor.{place}.svc.cluster.local"
    assert 2500 < answer(Endpoint(name="penguins", url=url, model="penguins", revision="any"), ROW) < 6500
