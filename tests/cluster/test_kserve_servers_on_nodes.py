"""Servers that are not longshore's own, in real pods under KServe: KServe's own model server, and MLServer."""

from dataclasses import replace
from pathlib import Path

import joblib
import pytest
import requests
import yaml
from sklearn.linear_model import LinearRegression

from longshore.cluster.forward import forwarded
from longshore.deployment import deploy_model
from longshore.errors import DeployError
from longshore.monitoring import read_metrics, summarise
from longshore.spec import KServeOptions, ModelSource, Resources, Service
from longshore.storage import copy_tree

ROOT = Path(__file__).parents[2]
ROW = {
    "species": "Adelie",
    "island": "Torgersen",
    "bill_length_mm": 39.1,
    "bill_depth_mm": 18.7,
    "flipper_length_mm": 181,
    "sex": "male",
    "year": 2007,
}


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


def kserve_server(namespace):
    """The runtime for a cluster, as one for a namespace."""
    manifest = yaml.safe_load((ROOT / "manifests" / "kserve-server" / "runtime.yaml").read_text())
    return {**manifest, "kind": "ServingRuntime", "metadata": {**manifest["metadata"], "namespace": namespace}}


def on_kserves_server(service, model):
    args = [f"--digest={model.digest}"]
    return replace(service, kserve=replace(service.kserve, runtime="kserve-server", args=args))


def ask(session, endpoint, path, body):
    with forwarded(session, endpoint) as here:
        answer = requests.post(f"{here.url}{path}", json=body, timeout=30)
    assert answer.ok, answer.text
    return answer.json()


def tensor(name, value):
    return {"name": name, "shape": [1], "datatype": "BYTES" if isinstance(value, str) else "FP64", "data": [value]}


def test_a_packaged_model_is_served_and_replaced_in_kserves_own_server(
    real_kserve, service, stored_models, deploy, session
):
    real_kserve.apply(kserve_server(service.namespace))
    model = stored_models(1)
    first = deploy(model, on_kserves_server(service, model))
    rows = {"instances": [ROW, list(ROW.values())]}
    columns = {"inputs": [tensor(name, value) for name, value in ROW.items()]}
    assert ask(session, first.endpoint, "/v1/models/penguins:predict", rows) == {"predictions": [1, 1]}
    (output,) = ask(session, first.endpoint, "/v2/models/penguins/infer", columns)["outputs"]
    assert (output["name"], output["data"]) == ("predict", [1])
    model = stored_models(2)
    second = deploy(model, on_kserves_server(service, model))
    assert second.previous.revision == first.release.revision
    assert ask(session, second.endpoint, "/v1/models/penguins:predict", rows) == {"predictions": [2, 2]}
    with forwarded(session, second.endpoint) as here:
        seen = read_metrics(f"{here.url}/metrics")
    assert summarise(seen, revision=second.release.revision).requests > 0
    # another digest than the model has: what served before serves again
    with pytest.raises(DeployError, match="does not have the recorded content") as failure:
        deploy(stored_models(1), on_kserves_server(service, model))
    assert failure.value.restored == second.release.revision
    assert ask(session, second.endpoint, "/v1/models/penguins:predict", rows) == {"predictions": [2, 2]}


def test_a_plain_model_is_served_by_kserves_runtime_for_mlserver(service, bucket, deploy, session, tmp_path):
    model = LinearRegression().fit([[1, 1], [2, 1], [1, 2]], [3, 4, 5])
    joblib.dump(model, tmp_path / "model.joblib")
    uri = copy_tree(tmp_path, f"{bucket}/plain")
    options = replace(service.kserve, runtime="kserve-mlserver", protocol="v2")
    done = deploy(ModelSource(uri=uri, format="sklearn", name="plain"), replace(service, kserve=options))
    inputs = [{"name": "columns", "shape": [2, 2], "datatype": "FP64", "data": [2, 2, 3, 1]}]
    (output,) = ask(session, done.endpoint, "/v2/models/penguins/infer", {"inputs": inputs})["outputs"]
    assert output["name"] == "predict"
    assert output["data"] == pytest.approx([6, 5])
    assert done.endpoint.protocols == ("v2",)
