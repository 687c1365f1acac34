"""The model server on Gunicorn: Flask, and FastAPI with several workers.

Starts ``python -m longshore.serving`` as a process, with real clients, signals and kills.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import pytest
import requests
from harness.serving import INFER, PREDICT, ROWS, Asking, refused, serving, wait_for

from longshore.packaging import read_card, save_model
from longshore.serving.control import ask

SETTINGS = [("flask", 1), ("flask", 2), ("fastapi", 2)]


@pytest.fixture(params=SETTINGS, ids=lambda setting: f"{setting[0]}-{setting[1]}", scope="module")
def server(request, iris_model, tmp_path_factory):
    framework, workers = request.param
    place = tmp_path_factory.mktemp("server")
    with serving(iris_model, place / "log", f"--framework={framework}", f"--workers={workers}") as found:
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
    assert len(server.children()) == server.count


def chunks():
    yield b'{"instances": [[5.1, 3.5,'
    yield b" 1.4, 0.2]]}"


def test_a_body_may_come_in_chunks(server):
    assert requests.post(f"{server.url}{PREDICT}", data=chunks(), timeout=30).json() == {"predictions": [0]}


def request(body: bytes) -> bytes:
    return f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_requests_that_come_together_are_answered_in_their_order(server):
    rows = [b'{"instances": [[5.1, 3.5, 1.4, 0.2]]}', b'{"instances": [[6.7, 3.0, 5.2, 2.3]]}', b'{"instances": []}']
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=30) as connection:
        connection.sendall(b"".join(map(request, rows)))
        answered = b""
        while answered.count(b"HTTP/1.1") < 3 or not answered.endswith(b"}"):
            answered += connection.recv(65536)
    assert re.findall(rb"HTTP/1.1 (\d+)", answered) == [b"200", b"200", b"400"]
    assert re.findall(rb'{"predictions":\[(\d)\]}', answered) == [b"0", b"2"]


@pytest.mark.parametrize("threads", [1, 2])
def test_more_clients_than_threads_are_all_answered(iris_model, tmp_path, threads):
    with (
        serving(iris_model, tmp_path / "log", "--framework=flask", f"--threads={threads}") as server,
        contextlib.ExitStack() as kept,
    ):
        # a thread that stays with one of them would leave the others without an answer
        clients = [kept.enter_context(requests.Session()) for _ in range(6)]
        for _ in range(5):
            for client in clients:
                answer = client.post(f"{server.url}{PREDICT}", json={"instances": ROWS}, timeout=30)
                assert answer.json() == {"predictions": [0, 2]}
        with Asking(server, clients=6) as asking:
            asking.wait_for(120)
        assert asking.failures == []


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
    before, rows = server.counted(name, **labels), server.counted("longshore_batch_rows_sum")
    for _ in range(40):
        assert server.post(PREDICT, {"instances": ROWS}).ok
    assert server.samples(name, **labels) == [before + 40]
    assert server.counted("longshore_batch_rows_sum") == rows + 80
    assert server.samples("longshore_model_info") == [1]
    assert server.samples("http_requests_in_flight") == [1]
    # the others count theirs within a second
    wait_for(lambda: server.counted("longshore_feature_bin_total", feature="petal_width") == rows + 80)


@pytest.mark.parametrize(("framework", "count"), [("flask", 2), ("fastapi", 2)])
def test_a_killed_worker_is_replaced_and_the_other_one_serves_meanwhile(iris_model, tmp_path, framework, count):
    with serving(iris_model, tmp_path / "log", f"--framework={framework}", f"--workers={count}") as server:
        before = server.children()
        with Asking(server) as clients:
            clients.wait_for(20)
            counted = server.counted("longshore_prediction_duration_seconds_count", protocol="v2")
            os.kill(min(before), signal.SIGKILL)
            wait_for(lambda: len(now := server.children()) == count and now - before)
            clients.wait_for(20)
        # at most what the killed one was at
        assert len(clients.failures) <= 4
        assert all(answer["outputs"][0]["data"] == [0, 2] for answer in clients.answers)
        assert server.counted("longshore_prediction_duration_seconds_count", protocol="v2") >= counted + 20
        assert server.samples("longshore_model_info") == [1]


def given_a_public_socket(control):
    """The address at which the server with a control socket answers from now on."""
    with socket.create_server(("127.0.0.1", 0)) as public:
        ask(control, {"do": "accept"}, fds=[public.fileno()])
        return f"http://127.0.0.1:{public.getsockname()[1]}{PREDICT}"


LATE = """
import time
from longshore.serving import control

def late(path, handle, was=control.serve_control):
    # workers have numbers
    time.sleep(path.name.isdigit())
    return was(path, handle)

control.serve_control = late
"""


@pytest.mark.parametrize(("framework", "count"), SETTINGS)
def test_workers_are_ready_once_they_can_be_told_of_a_socket(iris_model, tmp_path, framework, count):
    (tmp_path / "sitecustomize.py").write_text(LATE)
    options = [f"--framework={framework}", f"--workers={count}", f"--control={tmp_path / 'control'}"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with serving(iris_model, tmp_path / "log", *options, env=environment):
        url = given_a_public_socket(tmp_path / "control")
        assert requests.post(url, json={"instances": ROWS}, timeout=30).ok


@pytest.mark.parametrize(("framework", "count"), SETTINGS)
def test_workers_that_started_before_the_public_socket_came_answer_there(iris_model, tmp_path, framework, count):
    options = [f"--framework={framework}", f"--workers={count}", f"--control={tmp_path / 'control'}"]
    with serving(iris_model, tmp_path / "log", *options) as server:
        before = server.children()
        for worker in before:
            os.kill(worker, signal.SIGKILL)
        others = wait_for(lambda: len(now := server.children() - before) == count and now)
        for worker in others:
            os.kill(worker, signal.SIGSTOP)
        try:
            url = given_a_public_socket(tmp_path / "control")
        finally:
            for worker in others:
                os.kill(worker, signal.SIGCONT)
        assert requests.post(url, json={"instances": ROWS}, timeout=30).ok


@pytest.mark.parametrize(("framework", "count"), SETTINGS)
def test_under_load_nothing_is_lost_that_was_accepted(iris_model, tmp_path, framework, count):
    with serving(iris_model, tmp_path / "log", f"--framework={framework}", f"--workers={count}") as server:
        with Asking(server) as clients:
            clients.wait_for(50)
            server.process.terminate()
            assert server.process.wait(30) == 0
        assert clients.failures == []


@pytest.mark.parametrize(("framework", "count"), SETTINGS)
def test_what_has_begun_is_answered_after_a_term(iris_model, tmp_path, framework, count):
    with serving(iris_model, tmp_path / "log", f"--framework={framework}", f"--workers={count}") as server:
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
            wait_for(lambda: refused(server.url))
            slow.sendall(body[10:])
            # answered, and then ended
            answered = b"".join(iter(lambda: slow.recv(4096), b""))
            assert answered.startswith(b"HTTP/1.1 200"), answered
            assert answered.endswith(b'{"predictions":[0]}')
        assert server.process.wait(30) == 0


class Waiting:
    """A model that is there once somebody has written to a pipe."""

    def __init__(self, pipe):
        self.pipe = str(pipe)

    def __reduce__(self):
        return open, (self.pipe,)


@pytest.mark.parametrize(("framework", "count"), [("flask", 2), ("fastapi", 2)])
def test_who_is_told_to_end_while_it_loads_ends_well(iris_model, tmp_path, framework, count):
    pipe, log = tmp_path / "pipe", tmp_path / "log"
    os.mkfifo(pipe)
    save_model(tmp_path / "model", Waiting(pipe), read_card(iris_model))
    command = [sys.executable, "-m", "longshore.serving", f"--model={tmp_path / 'model'}", "--name=iris"]
    command += ["--revision=iris-1", f"--framework={framework}", f"--workers={count}"]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            wait_for(lambda: log.read_text().count("loading") == count)
        finally:
            process.terminate()
        assert process.wait(30) == 0, log.read_text()
    assert "could not be loaded" not in log.read_text()


SECOND_FAILS_LATE = """
import os, signal, time
from longshore.serving import process

def late(model, error, was=process.log_failure):
    try:
        os.close(os.open(os.environ["FIRST"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        # it has failed already when the first one's end has it told to end
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(1)
    return was(model, error)

process.log_failure = late
"""


@pytest.mark.parametrize(
    ("framework", "count", "late"),
    [("flask", 1, False), ("flask", 2, True), ("fastapi", 2, False), ("fastapi", 2, True)],
)
def test_a_model_that_cannot_be_loaded_ends_the_server_with_its_reason(iris_model, tmp_path, framework, count, late):
    broken = tmp_path / "broken"
    shutil.copytree(iris_model, broken)
    (broken / "model.joblib").write_bytes(b"nothing")
    command = [sys.executable, "-m", "longshore.serving", f"--model={broken}", "--name=iris", "--revision=iris-1"]
    environment = {**os.environ, "FIRST": str(tmp_path / "first")}
    if late:
        (tmp_path / "sitecustomize.py").write_text(SECOND_FAILS_LATE)
        environment["PYTHONPATH"] = str(tmp_path)
    done = subprocess.run(
        [*command, f"--framework={framework}", f"--workers={count}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "does not have the recorded content" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("framework", "count"), [("flask", 2), ("fastapi", 2)])
def test_all_workers_load_anew_on_a_hup_and_keep_what_they_have_if_they_cannot(iris_model, tmp_path, framework, count):
    repository = tmp_path / "iris"
    shutil.copytree(iris_model, repository / "1")
    with serving(repository, tmp_path / "log", f"--framework={framework}", f"--workers={count}") as server:
        before = server.children()
        shutil.copytree(iris_model, repository / "2")
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
        assert server.children() == before


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
def test_what_does_not_go_together_is_refused(iris_model, options, why):
    command = [sys.executable, "-m", "longshore.serving", f"--model={iris_model}", "--name=iris", "--revision=iris-1"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert why in done.stderr
