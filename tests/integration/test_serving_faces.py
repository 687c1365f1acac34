"""The same server behind each framework, with one worker and with several: tokens, logs, metrics, ends.

Starts ``python -m longshore.serving`` as a process.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from sklearn.datasets import load_iris

from longshore.packaging import save_model
from longshore.training.fit import train_sklearn

NAMES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
ROW = dict(zip(NAMES, [5.1, 3.5, 1.4, 0.2], strict=True))
PREDICT = "/v1/models/iris:predict"
TOKEN, OTHER = "token-of-the-first-team", "token-of-the-other-team"
FACES = [("fastapi", 1), ("flask", 1), ("fastapi", 2), ("flask", 2)]

EACH = pytest.mark.parametrize(("framework", "workers"), FACES)
SEVERAL = pytest.mark.parametrize(("framework", "workers"), FACES[2:])


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    iris = load_iris(as_frame=True)
    table = iris.data.set_axis(NAMES, axis="columns")
    table["species"] = [int(index) for index in iris.target]
    trained = train_sklearn(table, target="species", estimator="sklearn.tree.DecisionTreeClassifier")
    directory = tmp_path_factory.mktemp("models") / "iris"
    save_model(directory, trained.model, trained.card)
    return directory


@pytest.fixture
def serve(stored, tmp_path, framework, workers):
    log = tmp_path / "log"

    @contextmanager
    def running(*options):
        """A running server: its process, URL and log."""
        command = [sys.executable, "-m", "longshore.serving", f"--model={stored}", "--name=iris", "--revision=iris-1"]
        command += [f"--framework={framework}", f"--workers={workers}", *options]
        with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
            try:
                deadline = time.monotonic() + 60
                while (found := re.search(r"is ready on port (\d+)", log.read_text())) is None:
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.02)
                yield process, f"http://127.0.0.1:{found[1]}", log
            finally:
                process.terminate()
                assert process.wait(30) == 0, log.read_text()

    return running


def ask(url, path=PREDICT, **headers):
    return requests.post(f"{url}{path}", json={"instances": [ROW]}, headers=headers, timeout=30)


def counted(url, name, **labels):
    text = requests.get(f"{url}/metrics", timeout=30).text
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples if s.name == name]
    return sum(s.value for s in samples if labels.items() <= s.labels.items())


@EACH
def test_only_who_has_a_token_is_answered(serve, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{TOKEN}\n")
    with serve(f"--token-file={tokens}") as (_, url, log):
        assert ask(url, Authorization=f"Bearer {TOKEN}").json() == {"predictions": [0]}
        for headers in ({}, {"Authorization": f"Bearer {OTHER}"}):
            answer = ask(url, **headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert "token" in answer.json()["error"]
        assert requests.get(f"{url}/v2/models/iris", timeout=30).status_code == 401
        assert requests.get(f"{url}/openapi.json", timeout=30).status_code == 404
        for path in ("/v2/health/live", "/v2/health/ready", "/metrics"):
            assert requests.get(f"{url}{path}", timeout=30).status_code == 200
        new = tmp_path / "new"
        new.write_text(f"{OTHER}\n")
        new.replace(tokens)
        # every worker knows at once
        for _ in range(8):
            assert ask(url, Authorization=f"Bearer {OTHER}").status_code == 200
            assert ask(url, Authorization=f"Bearer {TOKEN}").status_code == 401
    assert TOKEN not in log.read_text()
    assert OTHER not in log.read_text()


@EACH
def test_each_line_of_the_log_is_json_and_each_request_has_one(serve):
    trace = "0af7651916cd43dd8448eb211c80319c"
    with serve("--log-format=json", "--access-log") as (_, url, log):
        ask(url, **{"X-Request-ID": "one", "traceparent": f"00-{trace}-b7ad6b7169203331-01"})
        requests.post(f"{url}{PREDICT}", data="{", headers={"X-Request-ID": "two"}, timeout=30)
        requests.get(f"{url}/nowhere%0aelse", timeout=30)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    first, second, third = [line for line in lines if line["logger"] == "longshore.access"]
    assert (first["request_id"], first["trace_id"], first["status"]) == ("one", trace, 200)
    assert first["route"] == "/v1/models/{model}:predict"
    assert 0 < first["seconds"] < 30
    assert (second["request_id"], second["status"]) == ("two", 400)
    assert (third["path"], third["route"], third["status"]) == ("/nowhere\nelse", None, 404)
    assert any("is ready on port" in line["message"] for line in lines)


@EACH
def test_the_log_has_no_requests_unless_asked(serve):
    with serve() as (_, url, log):
        ask(url)
        assert counted(url, "http_request_duration_seconds_count", route="/v1/models/{model}:predict") == 1
    assert ":predict" not in log.read_text()


@EACH
def test_what_all_workers_answered_is_counted_together(serve, workers):
    with serve() as (process, url, _):
        for _ in range(20):
            assert ask(url).status_code == 200
        assert counted(url, "longshore_prediction_duration_seconds_count", protocol="v1") == 20
        assert ask(url, "/v1/models/none:predict").status_code == 404
        assert requests.get(f"{url}/nowhere", timeout=30).status_code == 404
        assert counted(url, "longshore_feature_bin_total", feature=NAMES[0]) == 20
        assert counted(url, "longshore_model_info") == 1
        assert counted(url, "http_request_duration_seconds_count", status="404") == 2
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
        if workers > 1:
            assert len(children.stdout.split()) == workers


@SEVERAL
def test_a_killed_worker_is_replaced_and_what_it_counted_stays(serve, workers):
    with serve() as (process, url, _):
        for _ in range(20):
            assert ask(url).status_code == 200

        def children():
            found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
            return {int(pid) for pid in found.stdout.split()}

        before = children()
        os.kill(min(before), signal.SIGKILL)
        deadline = time.monotonic() + 60
        answered = 0
        while len(children() - before) < 1 or len(children()) < workers:
            assert time.monotonic() < deadline
            assert ask(url).status_code == 200
            answered += 1
        assert counted(url, "longshore_prediction_duration_seconds_count", protocol="v1") == 20 + answered
        assert counted(url, "longshore_model_info") == 1


@EACH
def test_what_is_accepted_is_answered_when_it_is_told_to_end(serve):
    outcomes, ended = [], threading.Event()
    with serve() as (process, url, _):

        def client():
            with requests.Session() as session:
                while not ended.is_set():
                    try:
                        status = session.post(f"{url}{PREDICT}", json={"instances": [ROW]}, timeout=30).status_code
                    except requests.ConnectionError as error:
                        # nobody listens any more: that request was never accepted
                        outcomes.append("refused" if "Connection refused" in str(error) else error)
                        return
                    outcomes.append(status)

        threads = [threading.Thread(target=client) for _ in range(4)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 60
        while len(outcomes) < 100:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.terminate()
        assert process.wait(30) == 0
        for thread in threads:
            thread.join(30)
        ended.set()
    assert set(outcomes) == {200, "refused"}


@EACH
def test_the_command_serves_in_the_foreground_until_it_is_interrupted(stored, tmp_path, framework, workers):
    tokens = tmp_path / "tokens"
    tokens.write_text(f"# the team's\n{TOKEN}\n")
    command = [sys.executable, "-m", "longshore.cli", "serve", str(stored), "--port=0", f"--token-file={tokens}"]
    command += [f"--framework={framework}", f"--workers={workers}"]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as process:
        try:
            about, curl = process.stdout.readline().decode(), process.stdout.readline().decode()
            answer = subprocess.run(["bash", "-c", f"{curl.strip()} -sS"], capture_output=True, check=True, timeout=30)
            assert json.loads(answer.stdout)["predictions"] in ([0], [1], [2])
            url = re.search(r"at (http://127.0.0.1:\d+)/v1/models/iris:predict", about)[1]
            assert ask(url).status_code == 401
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0, (tmp_path / "log").read_text()
    with pytest.raises(requests.ConnectionError):
        ask(url)


@EACH
def test_the_command_says_why_a_model_is_not_served(tmp_path, framework, workers):
    command = [sys.executable, "-m", "longshore.cli", "serve", str(tmp_path), "--port=0"]
    command += [f"--framework={framework}", f"--workers={workers}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"longshore: {tmp_path} is not served: " in done.stderr
    assert "model.json" in done.stderr.splitlines()[-1]
