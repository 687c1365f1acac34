"""Servers that are not longshore's own, in real pods under KServe: KServe's own model server, and MLServer."""

from dataclasses import replace

import joblib
import pytest
from harness.penguins import ROW
from sklearn.linear_model import LinearRegression

from longshore.cluster.forward import forwarded
from longshore.deployment import deploy_model, predict
from longshore.errors import DeployError
from longshore.monitoring import read_metrics, summarise
from longshore.spec import KServeOptions, ModelSource, Resources, Service
from longshore.storage import copy_tree
from longshore.targets.kserve_runtimes import KSERVE_SERVER_RUNTIME, serving_runtime


@pytest.fixture
def service(kserve_place) -> Service:
    return Service(
        name="penguins",
        namespace=kserve_place,
        resources=Resources(cpu="20m", memory="1Gi"),
        kserve=KServeOptions(storage_secret="kserve-bucket"),
    )


@pytest.fixture
def deploy(session):
    """Deploy as a step would, with times fit for a test."""

    def run(model, service):
        options = {"timeout_seconds": 120, "patience_seconds": 3}
        return deploy_model(model, service, platform="kserve", session=session, **options)

    return run


def test_a_packaged_model_is_served_and_replaced_in_kserves_own_server(
    real_kserve, service, stored_models, deploy, session
):
    real_kserve.apply(serving_runtime(service.namespace, name=KSERVE_SERVER_RUNTIME))
    options = replace(service.kserve, runtime=KSERVE_SERVER_RUNTIME, protocol="grpc-v2")
    service = replace(service, kserve=options)
    first = deploy(stored_models(1), service)
    assert first.endpoint.protocols == ("v1", "v2", "grpc-v2")
    for protocol in first.endpoint.protocols:
        assert predict(first.endpoint, [ROW, ROW], protocol=protocol, session=session) == [1, 1]
    second = deploy(stored_models(2), service)
    assert second.previous.revision == first.release.revision
    assert predict(second.endpoint, [ROW], session=session) == [2]
    with forwarded(session, second.endpoint) as here:
        seen = read_metrics(f"{here.url}/metrics")
    assert summarise(seen, revision=second.release.revision).requests > 0
    # another digest than the model has: what served before serves again
    with pytest.raises(DeployError, match="does not have the recorded content") as failure:
        deploy(replace(stored_models(1), digest=stored_models(2).digest), service)
    assert failure.value.restored == second.release.revision
    assert predict(second.endpoint, [ROW], session=session) == [2]


def test_a_plain_model_is_served_by_kserves_runtime_for_mlserver(service, bucket, deploy, session, tmp_path):
    model = LinearRegression().fit([[1, 1], [2, 1], [1, 2]], [3, 4, 5])
    joblib.dump(model, tmp_path / "model.joblib")
    uri = copy_tree(tmp_path, f"{bucket}/plain")
    options = replace(service.kserve, runtime="kserve-mlserver", protocol="v2")
    done = deploy(ModelSource(uri=uri, format="sklearn", name="plain"), replace(service, kserve=options))
    assert predict(done.endpoint, [[2, 2], [3, 1]], session=session) == pytest.approx([6, 5])
    assert done.endpoint.protocols == ("v2",)
