"""A real server with several versions of a model, told to load them anew while it is asked.

Starts ``python -m longshore.serving`` as a process.
"""

import asyncio
import json
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import requests
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from sklearn.datasets import load_iris

from longshore.packaging import directory_digest, save_model
from longshore.training.fit import train_sklearn

NAMES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    iris = load_iris(as_frame=True)
    table = iris.data.set_axis(NAMES, axis="columns")
    table["species"] = [int(index) for index in iris.target]
    trained = train_sklearn(table, target="species", estimator="sklearn.tree.DecisionTreeClassifier")
    directory = tmp_path_factory.mktemp("models") / "iris"
    save_model(directory, trained.model, trained.card)
    return directory


@contextmanager
def server(repository, log, *options, **more):
    """A running server, and its URL."""
    command = [sys.executable, "-m", "longshore.serving", f"--model={repository}", "--name=iris", "--revision=iris-1"]
    with (
        log.open("wb") as output,
        subprocess.Popen([*command, *options], stdout=output, stderr=output, **more) as process,
    ):
        try:
            found = awaited(log, r"is ready on port (\d+)", process)
            yield process, f"http://127.0.0.1:{found[1]}"
        finally:
            process.terminate()
            assert process.wait(30) == 0, log.read_text()


def awaited(log, pattern, process):
    deadline = time.monotonic() + 60
    while (found := re.search(pattern, log.read_text())) is None:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    return found


class Clients:
    """Threads that ask all the time, and what they were answered."""

    def __init__(self, url):
        self._url, self._end = url, threading.Event()
        self.answers, self.failures = [], []
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self):
        body = {"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP64", "data": ROWS}]}
        with requests.Session() as session:
            while not self._end.is_set():
                try:
                    answer = session.post(f"{self._url}/v2/models/iris/infer", json=body, timeout=30)
                    answer.raise_for_status()
                    self.answers.append(answer.json()["model_version"])
                except requests.RequestException as error:
                    self.failures.append(error)

    def wait_for(self, version):
        deadline = time.monotonic() + 60
        while version not in self.answers[-4:]:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_new_version_is_taken_up_and_a_broken_one_is_not_without_a_failed_request(stored, tmp_path):
    repository, log = tmp_path / "iris", tmp_path / "log"
    shutil.copytree(stored, repository / "1")
    with server(repository, log) as (process, url), Clients(url) as clients:
        clients.wait_for("1")
        shutil.copytree(stored, repository / "2")
        process.send_signal(signal.SIGHUP)
        clients.wait_for("2")
        assert requests.get(f"{url}/v2/models/iris", timeout=30).json()["versions"] == ["1", "2"]
        paths = requests.get(f"{url}/openapi.json", timeout=30).json()["paths"]
        shown = paths["/v2/models/{model}/versions/{version}/infer"]["post"]["parameters"]
        assert {parameter["name"]: parameter["schema"]["enum"] for parameter in shown} == {
            "model": ["iris"],
            "version": ["1", "2"],
        }
        shutil.copytree(stored, repository / "3")
        card = json.loads((repository / "3" / "model.json").read_text())
        (repository / "3" / "model.json").write_text(json.dumps({**card, "seed": 7, "files": {}}))
        process.send_signal(signal.SIGHUP)
        awaited(log, r"could not be loaded anew, and goes on \(1, 2\)", process)
        clients.wait_for("2")
        shutil.rmtree(repository / "3")
        shutil.rmtree(repository / "1")
        process.send_signal(signal.SIGHUP)
        awaited(log, "serving version 2\n", process)
        missing = requests.post(f"{url}/v2/models/iris/versions/1/infer", json={}, timeout=30)
        assert missing.status_code == 404
        metrics = requests.get(f"{url}/metrics", timeout=30).text
        assert 'longshore_reloads_total{outcome="success",revision="iris-1"} 2.0' in metrics
        assert 'longshore_reloads_total{outcome="failure",revision="iris-1"} 1.0' in metrics
    assert clients.failures == []
    # in this order
    assert list(dict.fromkeys(clients.answers)) == ["1", "2"]


def test_versions_have_digests_of_their_own(stored, tmp_path):
    repository, log = tmp_path / "iris", tmp_path / "log"
    for version in ("1", "2"):
        shutil.copytree(stored, repository / version)
    digest = directory_digest(stored)
    with server(repository, log, f"--digest=1={digest}", f"--digest=2={digest}", "--model-version=1") as (_, url):
        metrics = requests.get(f"{url}/metrics", timeout=30).text
        assert f'longshore_model_info{{digest="{digest}",model="iris",revision="iris-1",version="2"}} 1.0' in metrics
        answer = requests.post(f"{url}/v2/models/iris/infer", json={"inputs": []}, timeout=30)
        assert answer.status_code == 400


@pytest.mark.parametrize("binary", [True, False])
def test_kserves_client_sends_one_tensor_as_binary_data_or_not(stored, tmp_path, binary):
    log = tmp_path / "log"

    async def infer(url):
        client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
        tensor = InferInput("input-0", [2, 4], "FP64")
        tensor.set_data_from_numpy(np.array(ROWS), binary_data=binary)
        request = InferRequest("iris", [tensor], parameters={"binary_data_output": binary})
        try:
            return await client.infer(url, request, model_name="iris", timeout=30)
        finally:
            await client.close()

    with server(stored, log) as (_, url):
        answer = asyncio.run(infer(url))
    (output,) = answer.outputs
    assert output.as_numpy().tolist() == [0, 2]


def test_predictions_go_on_when_the_disk_fills_while_requests_are_captured(stored, tmp_path):
    log, where = tmp_path / "log", tmp_path / "captured"
    limit = 64 * 1024

    def small_files():
        # what the kernel says is not that the disk is full, but it comes in the same place
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    options = (f"--capture={where}", "--capture-share=1")
    with server(stored, log, *options, preexec_fn=small_files) as (_, url), requests.Session() as session:
        for _ in range(200):
            answer = session.post(f"{url}/v1/models/iris:predict", json={"instances": ROWS * 4}, timeout=30)
            assert answer.json() == {"predictions": [0, 2] * 4}
        metrics = session.get(f"{url}/metrics", timeout=30).text
    written, dropped = (
        float(re.search(rf'longshore_captured_requests_total{{outcome="{outcome}".*}} (.*)', metrics)[1])
        for outcome in ("written", "dropped")
    )
    assert written > 0
    assert dropped > 0
    (path,) = where.iterdir()
    lines = path.read_text().splitlines()
    assert written <= len(lines) < 200
    assert all(json.loads(line)["predictions"] == [0, 2] * 4 for line in lines)
    said = log.read_text()
    assert said.count("requests cannot be captured") == 1
    assert "predictions go on" in said
