"""MLServer, the server behind V2 with Seldon and KServe, loads what is packaged; asked over REST and gRPC.

It runs where LONGSHORE_TEST_MLSERVER names the bin folder of an environment with it: $(tools/peer.sh mlserver).
"""

import json
import os
import shutil
import signal
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import requests
from harness.serving import wait_for
from harness.system import free_ports

from longshore.client import Client, predict, probe
from longshore.errors import DeployError, InputError
from longshore.packaging import frame_to_rows, package_model, read_card, save_model
from longshore.packaging.mlserver import SETTINGS_FILE
from longshore.serving import Predictor
from longshore.spec import Endpoint, ModelSource
from longshore.training.data import read_table
from longshore.training.fit import train_sklearn

PROTOCOLS = ("v2", "grpc-v2")
CLASSES = ["Adelie", "Chinstrap", "Gentoo"]


@contextmanager
def mlserver(place, log, **settings):
    """A server of the models in a folder; none of them has a process of its own."""
    programs = os.environ.get("LONGSHORE_TEST_MLSERVER")
    if not programs:
        pytest.skip(
            "set LONGSHORE_TEST_MLSERVER to the bin folder of requirements/mlserver.txt: $(tools/peer.sh mlserver)"
        )
    http, grpc, metrics = free_ports(3)
    told = {"HOST": "127.0.0.1", "HTTP_PORT": http, "GRPC_PORT": grpc, "METRICS_PORT": metrics, "PARALLEL_WORKERS": 0}
    variables = {f"MLSERVER_{name}": str(value) for name, value in {**told, **settings}.items()}
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [Path(programs) / "mlserver", "start", place],
            stdout=output,
            stderr=output,
            cwd=log.parent,
            env={**os.environ, **variables, "PYTHONWARNINGS": "ignore"},
            start_new_session=True,
        ) as process,
    ):

        def is_ready():
            assert process.poll() is None, log.read_text()
            try:
                return requests.get(f"http://127.0.0.1:{http}/v2/health/ready", timeout=10).ok
            except requests.ConnectionError:
                return False

        try:
            wait_for(is_ready)
            yield Endpoint(
                name="m",
                url=f"http://127.0.0.1:{http}",
                grpc_url=f"http://127.0.0.1:{grpc}",
                model="m",
                revision="m-1",
                protocols=PROTOCOLS,
                takes="tensors",
            )
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def houses(tmp_path_factory):
    """A model of LightGBM that predicts a number from numbers and truth values."""
    random = np.random.default_rng(3)
    table = pd.DataFrame({"area": random.uniform(20, 200, 300), "rooms": random.integers(1, 6, 300)})
    table["garden"] = random.integers(0, 2, 300).astype(bool)
    table["price"] = 1000 * table["area"] + 5000 * table["rooms"] + 20000 * table["garden"]
    trained = train_sklearn(table, target="price", estimator="lightgbm.LGBMRegressor", parameters={"n_estimators": 20})
    directory = tmp_path_factory.mktemp("models") / "houses"
    save_model(directory, trained.model, trained.card)
    return directory, frame_to_rows(trained.card.signature, table.drop(columns="price").head(20))


@pytest.fixture(scope="module")
def served(penguins_model, iris_model, houses, tmp_path_factory):
    """The models' directories as they are, beside each other."""
    place = tmp_path_factory.mktemp("repository")
    for directory in (penguins_model, iris_model, houses[0]):
        (place / directory.name).symlink_to(directory)
    rewritten = shutil.copytree(penguins_model, place / "rewritten") / SETTINGS_FILE
    settings = json.loads(rewritten.read_text())
    for tensor in (*settings["inputs"], *settings["outputs"]):
        tensor.pop("parameters", None)
    rewritten.write_text(json.dumps({**settings, "name": "rewritten"}))
    with mlserver(place, tmp_path_factory.mktemp("mlserver") / "log") as endpoint:
        yield endpoint


def load(directory):
    return Predictor.load(directory, name="m", digest=None, version=None, revision="r")


@pytest.fixture(scope="module")
def rows(penguins_model, penguins_table):
    frame = read_table(penguins_table).drop(columns="species")
    rows = frame_to_rows(read_card(penguins_model).signature, frame)
    return [row for row in rows if row["sex"] is not None]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_columns_of_numbers_and_texts_are_answered_as_by_longshores_server(served, penguins_model, rows, protocol):
    there = replace(served, model="penguins")
    assert predict(there, rows, protocol=protocol) == load(penguins_model).predict(rows).values
    gaps = [{**row, "bill_length_mm": None} for row in rows[:20]]
    assert predict(there, gaps, protocol=protocol) == load(penguins_model).predict(gaps).values
    probe(there, rows[:2], CLASSES, protocol=protocol)
    with Client(there, protocol=protocol) as client:
        assert client.answering() == "m-1"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_other_estimators_and_truth_values(served, houses, protocol):
    directory, rows = houses
    assert predict(replace(served, model="houses"), rows, protocol=protocol) == pytest.approx(
        load(directory).predict(rows).values
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numbers_as_one_matrix_take_a_model_on_plain_arrays(served, iris_model, protocol):
    there = replace(served, model="iris")
    frame = pd.DataFrame([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]], columns=read_card(iris_model).signature.names)
    assert predict(there, frame, protocol=protocol) == load(iris_model).predict(frame.to_dict("records")).values
    with pytest.raises((DeployError, InputError), match="answered"):
        predict(there, frame.to_numpy(), protocol=protocol)


def test_a_client_need_not_say_how_its_request_is_to_be_read(served, penguins_model, rows):
    """The settings beside the model do, for a request with nothing but what V2 asks for."""
    names = read_card(penguins_model).signature.names
    types = {"island": "BYTES", "sex": "BYTES", "year": "INT64"}
    inputs = [
        {"name": n, "shape": [5, 1], "datatype": types.get(n, "FP64"), "data": [row[n] for row in rows[:5]]}
        for n in names
    ]
    answer = requests.post(f"{served.url}/v2/models/penguins/infer", json={"inputs": inputs}, timeout=30).json()
    (output,) = answer["outputs"]
    assert (output["name"], output["data"]) == ("predict", load(penguins_model).predict(rows[:5]).values)
    both = {"inputs": inputs, "outputs": [{"name": "predict"}, {"name": "predict_proba"}]}
    answer = requests.post(f"{served.url}/v2/models/penguins/infer", json=both, timeout=30).json()
    shares = np.array(load(penguins_model).predict(rows[:5], probabilities=True).probabilities)
    assert np.array(answer["outputs"][1]["data"]) == pytest.approx(shares.ravel())
    about = requests.get(f"{served.url}/v2/models/penguins", timeout=30).json()
    assert {one["name"]: one["datatype"] for one in about["inputs"]} == {n: types.get(n, "FP64") for n in names}


def test_settings_that_seldon_core_2_has_written_anew(served, penguins_model, rows):
    """Its agent keeps name, shape and datatype of each tensor, and no more."""
    there = replace(served, model="rewritten")
    assert predict(there, rows[:5], protocol="v2") == load(penguins_model).predict(rows[:5]).values
    # it is read well, and MLServer cannot send the texts that it answers
    with pytest.raises(DeployError, match="expected bytes, str found"):
        predict(there, rows[:5], protocol="grpc-v2")


def test_a_packaged_version_is_served_under_the_name_that_the_platform_gives(penguins_model, tmp_path, rows):
    """As KServe's runtime for MLServer does it; the folder is named by the version."""
    source = ModelSource(uri=str(penguins_model), format="sklearn", name="penguins")
    packaged = package_model(source, str(tmp_path / "models"), name="penguins", version="3")
    with mlserver(packaged.uri, tmp_path / "log", MODEL_NAME="team-penguins") as endpoint:
        there = replace(endpoint, model="team-penguins")
        assert predict(there, rows[:5], protocol="grpc-v2") == load(penguins_model).predict(rows[:5]).values
