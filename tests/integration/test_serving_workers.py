"""The model server on Gunicorn: Flask, and FastAPI with several workers.

Starts ``python -m longshore.serving`` as a process, with real clients, signals and kills.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from sklearn.datasets import load_iris

from longshore.packaging import save_model
from longshore.training.fit import train_sklearn

NAMES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]
PREDICT, INFER = "/v1/models/iris:predict", "/v2/models/iris/infer"
SETTINGS = [("flask", 1), ("flask", 2), ("fastapi", 2)]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    iris = load_iris(as_frame=True)
    table = iris.data.set_axis(NAMES, axis="columns")
    table["species"] = [int(index) for index in iris.target]
    trained = train_sklearn(table, target="species", estimator="sklearn.tree.DecisionTreeClassifier")
    directory = tmp_path_factory.mktemp("models") / "iris"
    save_model(directory, trained.model, trained.card)
    return directory


@dataclass
class Server:
    process: subprocess.Popen
    url: str
    log: Path

    def get(self, path, **options):
        return requests.get(f"{self.url}{path}", timeout=30, **options)

    def post(self, path, content=None, **options):
        return requests.post(f"{self.url}{path}", json=content, timeout=30, **options)

    def workers(self) -> set[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return {int(pid) for pid in path.read_text().split()}

    def samples(self, name, **labels):
        families = text_string_to_metric_families(self.get("/metrics").text)
        return [
            s.value
            for family in families
            for s in family.samples
            if s.name == name and labels.items() <= s.labels.items()
        ]


@contextmanager
def running(model, tmp_path, *options, ends=0):
    log = tmp_path / "log"
    command = [sys.executable, "-m", "longshore.serving", f"--model={model}", "--name=iris", "--revision=iris-1"]
    with log.open("wb") as output, subprocess.Popen([*command, *options], stdout=output, stderr=output) as process:
        try:
            found = wait_for(lambda: re.search(r"is ready on port (\d+)", log.read_text()) or process.poll())
            assert isinstance(found, re.Match), log.read_text()
            yield Server(process, f"http://127.0.0.1:{found[1]}", log)
        finally:
            process.terminate()
            assert process.wait(30) == ends, log.read_text()


def wait_for(found, seconds=60):
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)
    return value


@pytest.fixture(params=SETTINGS, ids=lambda setting: f"{setting[0]}-{setting[1]}", scope="module")
def server(request, stored, tmp_path_factory):
    framework, workers = request.param
    place = tmp_path_factory.mktemp("server")
    with running(stored, place, f"--framework={framework}", f"--workers={workers}") as found:
        found.count = workers
        yield found


def test_what_is_asked_is_answered(server):
    assert server.post(PREDICT, {"instances": ROWS}).json() == {"predictions": [0, 2]}
    tensor = {"name": "x", "shape": [2, 4], "datatype": "FP64", "data": ROWS}
    answer = server.post(INFER, {"inputs": [tensor]}, headers={"X-Request-ID": "abc"})
    assert answer.json()["outputs"][0]["data"] == [0, 2]
    assert answer.headers["x-request-id"] == "abc"
    assert answer.headers["content-type"] == "application/json"
    assert server.get("/v2/models/iris").json()["name"] == "iris"
    assert server.get("/v2/health/ready").json() == {"ready": True, "revision": "iris-1"}
    assert server.get("/v2/health/live").status_code == 200
    assert len(server.workers()) == server.count


def chunks():
    yield b'{"instances": [[5.1, 3.5,'
    yield b" 1.4, 0.2]]}"


def test_a_body_may_come_in_chunks(server):
    assert requests.post(f"{server.url}{PREDICT}", data=chunks(), timeout=30).json() == {"predictions": [0]}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "why"),
    [
        ("POST", PREDICT, b"nonsense", 400, "the body is not JSON"),
        ("POST", PREDICT, b"", 400, "the body is empty"),
        ("POST", PREDICT, b'{"instances": [[1, 2, 3]]}', 400, "row 0 has 3 values, 4 are needed"),
        ("POST", PREDICT, b" " * (33 * 2**20), 413, "the body is larger than"),
        ("POST", PREDICT, (b" " * 2**20 for _ in range(33)), 413, "the body is larger than"),
        ("POST", "/v1/models/roses:predict", b"{}", 404, "there is no model 'roses' here"),
        ("GET", "/v3", None, 404, "there is no /v3"),
        ("PUT", "/v2", None, 405, "PUT is not for /v2"),
    ],
    ids=["no JSON", "empty", "short row", "large", "large in chunks", "other model", "other path", "other method"],
)
def test_what_does_not_fit_is_refused_as_json(server, method, path, body, status, why):
    if not isinstance(body, bytes) and body is not None:
        # once for each server
        body = (b" " * 2**20 for _ in range(33))
    try:
        answer = requests.request(method, f"{server.url}{path}", data=body, timeout=30)
    except requests.ConnectionError:
        # the refusal comes before the body has been sent, and requests does not look
        assert status == 413
        return
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert why in answer.json()["error"]


def test_metrics_are_those_of_all_workers(server):
    name, labels = "longshore_prediction_duration_seconds_count", {"protocol": "v1"}
    (before,) = server.samples(name, **labels)
    rows = sum(server.samples("longshore_feature_bin_total", feature="petal_width"))
    for _ in range(40):
        assert server.post(PREDICT, {"instances": ROWS}).ok
    assert server.samples(name, **labels) == [before + 40]
    assert server.samples("longshore_model_info") == [1]
    assert server.samples("http_requests_in_flight") == [1]
    wait_for(lambda: sum(server.samples("longshore_feature_bin_total", feature="petal_width")) == rows + 80, 10)


def ask_all_the_time(server, end, answers, failures):
    while not end.is_set():
        try:
            answer = server.post(PREDICT, {"instances": ROWS})
            answers.append(answer.json()["predictions"])
        except (requests.RequestException, ValueError) as error:
            failures.append(error)


@contextmanager
def clients(server, count=4):
    end, answers, failures = threading.Event(), [], []
    threads = [threading.Thread(target=ask_all_the_time, args=(server, end, answers, failures)) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield answers, failures
    finally:
        end.set()
        for thread in threads:
            thread.join(30)


@pytest.mark.parametrize(("framework", "count"), [("flask", 2), ("fastapi", 2)])
def test_a_killed_worker_is_replaced_and_the_other_one_serves_meanwhile(stored, tmp_path, framework, count):
    with running(stored, tmp_path, f"--framework={framework}", f"--workers={count}") as server:
        before = server.workers()
        with clients(server) as (answers, failures):
            wait_for(lambda: len(answers) > 20)
            counted = server.samples("longshore_prediction_duration_seconds_count", protocol="v1")[0]
            os.kill(min(before), signal.SIGKILL)
            new = wait_for(lambda: len(now := server.workers()) == count and now - before)
            so_far = len(answers)
            wait_for(lambda: len(answers) > so_far + 20)
        # at most what the killed one was at
        assert len(failures) <= 4
        assert all(answer == [0, 2] for answer in answers)
        assert server.samples("longshore_prediction_duration_seconds_count", protocol="v1")[0] >= counted + 20
        assert server.samples("longshore_model_info") == [1]
        assert new.isdisjoint(before)


@pytest.mark.parametrize(("framework", "count"), SETTINGS)
def test_what_has_begun_is_answered_after_a_term(stored, tmp_path, framework, count):
    with running(stored, tmp_path, f"--framework={framework}", f"--workers={count}") as server:
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        body = b'{"instances": [[5.1, 3.5, 1.4, 0.2]]}'
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with (
            socket.create_connection(address, timeout=30) as kept,
            socket.create_connection(address, timeout=30) as slow,
        ):
            kept.sendall(head + body)
            assert kept.recv(4096).startswith(b"HTTP/1.1 200")
            slow.sendall(head + body[:10])
            # both are in the hands of workers
            wait_for(lambda: server.samples("http_requests_in_flight")[0] >= 1)
            server.process.terminate()
            wait_for(lambda: refused(address))
            slow.sendall(body[10:])
            # answered, and then ended
            answered = b"".join(iter(lambda: slow.recv(4096), b""))
            assert answered.startswith(b"HTTP/1.1 200"), answered
            assert answered.endswith(b'{"predictions":[0]}')
        assert server.process.wait(30) == 0


def refused(address) -> bool:
    with socket.socket() as client:
        return client.connect_ex(address) != 0


@pytest.mark.parametrize(("framework", "count"), [("flask", 1), ("fastapi", 2)])
def test_a_model_that_cannot_be_loaded_ends_the_server_with_its_reason(stored, tmp_path, framework, count):
    broken = tmp_path / "broken"
    shutil.copytree(stored, broken)
    (broken / "model.joblib").write_bytes(b"nothing")
    command = [sys.executable, "-m", "longshore.serving", f"--model={broken}", "--name=iris", "--revision=iris-1"]
    done = subprocess.run(
        [*command, f"--framework={framework}", f"--workers={count}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "does not have the recorded content" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("framework", "count"), [("flask", 2), ("fastapi", 2)])
def test_all_workers_load_anew_on_a_hup_and_keep_what_they_have_if_they_cannot(stored, tmp_path, framework, count):
    repository = tmp_path / "iris"
    shutil.copytree(stored, repository / "1")
    with running(repository, tmp_path, f"--framework={framework}", f"--workers={count}") as server:
        before = server.workers()
        shutil.copytree(stored, repository / "2")
        server.process.send_signal(signal.SIGHUP)
        outcome = {"outcome": "success"}
        wait_for(lambda: server.samples("longshore_reloads_total", **outcome) == [count])
        for _ in range(10):
            assert server.get("/v2/models/iris").json()["versions"] == ["1", "2"]
        (repository / "2" / "model.joblib").write_bytes(b"nothing")
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: server.samples("longshore_reloads_total", outcome="failure") == [count])
        for _ in range(10):
            assert server.post(PREDICT, {"instances": ROWS}).json() == {"predictions": [0, 2]}
        assert server.workers() == before


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--framework=flask", "--grpc-port=0"], "gRPC is served beside fastapi, by one worker"),
        (["--workers=2", "--grpc-port=0"], "gRPC is served beside fastapi, by one worker"),
        (["--workers=0"], "there is at least one"),
        (["--framework=rails"], "use one of fastapi, flask"),
        (["--framework=django", "--token-file=tokens"], "django has users with tokens of their own"),
    ],
)
def test_what_does_not_go_together_is_refused(stored, options, why):
    command = [sys.executable, "-m", "longshore.serving", f"--model={stored}", "--name=iris", "--revision=iris-1"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert why in done.stderr
