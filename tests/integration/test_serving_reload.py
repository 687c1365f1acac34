"""A real server with several versions of a model, told to load them anew while it is asked.

Starts ``python -m longshore.serving`` as a process.
"""

import asyncio
import json
import resource
import shutil
import signal

import numpy as np
import pytest
from harness.serving import PREDICT, ROWS, Asking, serving, wait_for
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

from longshore.packaging import directory_digest


def answering(clients, version):
    """Wait until a version answers."""
    wait_for(lambda: version in {answer["model_version"] for answer in clients.answers[-4:]})


def test_a_new_version_is_taken_up_and_a_broken_one_is_not_without_a_failed_request(iris_model, tmp_path):
    repository, log = tmp_path / "iris", tmp_path / "log"
    shutil.copytree(iris_model, repository / "1")
    with serving(repository, log) as server, Asking(server) as clients:
        answering(clients, "1")
        shutil.copytree(iris_model, repository / "2")
        server.process.send_signal(signal.SIGHUP)
        answering(clients, "2")
        assert server.get("/v2/models/iris").json()["versions"] == ["1", "2"]
        paths = server.get("/openapi.json").json()["paths"]
        shown = paths["/v2/models/{model}/versions/{version}/infer"]["post"]["parameters"]
        assert {parameter["name"]: parameter["schema"]["enum"] for parameter in shown} == {
            "model": ["iris"],
            "version": ["1", "2"],
        }
        shutil.copytree(iris_model, repository / "3")
        card = json.loads((repository / "3" / "model.json").read_text())
        (repository / "3" / "model.json").write_text(json.dumps({**card, "seed": 7, "files": {}}))
        server.process.send_signal(signal.SIGHUP)
        server.said(r"could not be loaded anew, and goes on \(1, 2\)")
        answering(clients, "2")
        shutil.rmtree(repository / "3")
        shutil.rmtree(repository / "1")
        server.process.send_signal(signal.SIGHUP)
        server.said("serving version 2\n")
        missing = server.post("/v2/models/iris/versions/1/infer", {})
        assert missing.status_code == 404
        metrics = server.get("/metrics").text
        assert 'longshore_reloads_total{outcome="success",revision="iris-1"} 2.0' in metrics
        assert 'longshore_reloads_total{outcome="failure",revision="iris-1"} 1.0' in metrics
    assert clients.failures == []
    # in this order
    assert list(dict.fromkeys(answer["model_version"] for answer in clients.answers)) == ["1", "2"]


def test_versions_have_digests_of_their_own(iris_model, tmp_path):
    repository, log = tmp_path / "iris", tmp_path / "log"
    for version in ("1", "2"):
        shutil.copytree(iris_model, repository / version)
    digest = directory_digest(iris_model)
    with serving(repository, log, f"--digest=1={digest}", f"--digest=2={digest}", "--model-version=1") as server:
        metrics = server.get("/metrics").text
        assert f'longshore_model_info{{digest="{digest}",model="iris",revision="iris-1",version="2"}} 1.0' in metrics
        answer = server.post("/v2/models/iris/infer", {"inputs": []})
        assert answer.status_code == 400


@pytest.mark.parametrize("binary", [True, False])
def test_kserves_client_sends_one_tensor_as_binary_data_or_not(iris_model, tmp_path, binary):
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

    with serving(iris_model, log) as server:
        answer = asyncio.run(infer(server.url))
    (output,) = answer.outputs
    assert output.as_numpy().tolist() == [0, 2]


def test_predictions_go_on_when_the_disk_fills_while_requests_are_captured(iris_model, tmp_path):
    log, where = tmp_path / "log", tmp_path / "captured"
    limit = 64 * 1024

    def small_files():
        # what the kernel says is not that the disk is full, but it comes in the same place
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    options = (f"--capture={where}", "--capture-share=1")
    with serving(iris_model, log, *options, preexec_fn=small_files) as server:
        for _ in range(200):
            answer = server.post(PREDICT, {"instances": ROWS * 4})
            assert answer.json() == {"predictions": [0, 2] * 4}
        written, dropped = (
            server.counted("longshore_captured_requests_total", outcome=outcome) for outcome in ("written", "dropped")
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
