"""The same server behind each framework, with one worker and with several: tokens, logs, metrics, ends.

Starts ``python -m longshore.serving`` as a process.
"""

import json
import re
import signal
import subprocess
import sys

import pytest
import requests
from harness.serving import IRIS, PREDICT, ROWS, ModelServer, serving

ROW = dict(zip(IRIS, ROWS[0], strict=True))
TOKEN, OTHER = "token-of-the-first-team", "token-of-the-other-team"
FACES = [("fastapi", 1), ("flask", 1), ("fastapi", 2), ("flask", 2)]

EACH = pytest.mark.parametrize(("framework", "workers"), FACES)


@pytest.fixture
def serve(iris_model, tmp_path, framework, workers):
    def running(*options):
        return serving(iris_model, tmp_path / "log", f"--framework={framework}", f"--workers={workers}", *options)

    return running


def ask(server: ModelServer, **headers):
    return server.post(PREDICT, {"instances": [ROW]}, headers=headers)


@EACH
def test_only_who_has_a_token_is_answered(serve, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{TOKEN}\n")
    with serve(f"--token-file={tokens}") as server:
        assert ask(server, Authorization=f"Bearer {TOKEN}").json() == {"predictions": [0]}
        for headers in ({}, {"Authorization": f"Bearer {OTHER}"}):
            answer = ask(server, **headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert "token" in answer.json()["error"]
        assert server.get("/v2/models/iris").status_code == 401
        assert server.get("/openapi.json").status_code == 404
        for path in ("/v2/health/live", "/v2/health/ready", "/metrics"):
            assert server.get(path).status_code == 200
        new = tmp_path / "new"
        new.write_text(f"{OTHER}\n")
        new.replace(tokens)
        # every worker knows at once
        for _ in range(8):
            assert ask(server, Authorization=f"Bearer {OTHER}").status_code == 200
            assert ask(server, Authorization=f"Bearer {TOKEN}").status_code == 401
    assert TOKEN not in server.log.read_text()
    assert OTHER not in server.log.read_text()


@EACH
def test_each_line_of_the_log_is_json_and_each_request_has_one(serve):
    trace = "0af7651916cd43dd8448eb211c80319c"
    with serve("--log-format=json", "--access-log") as server:
        ask(server, **{"X-Request-ID": "one", "traceparent": f"00-{trace}-b7ad6b7169203331-01"})
        requests.post(f"{server.url}{PREDICT}", data="{", headers={"X-Request-ID": "two"}, timeout=30)
        server.get("/nowhere%0aelse")
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    first, second, third = [line for line in lines if line["logger"] == "longshore.access"]
    assert (first["request_id"], first["trace_id"], first["status"]) == ("one", trace, 200)
    assert first["route"] == "/v1/models/{model}:predict"
    assert 0 < first["seconds"] < 30
    assert (second["request_id"], second["status"]) == ("two", 400)
    assert (third["path"], third["route"], third["status"]) == ("/nowhere\nelse", None, 404)
    assert any("is ready on port" in line["message"] for line in lines)


@EACH
def test_the_log_has_no_requests_unless_asked(serve):
    with serve() as server:
        ask(server)
        assert server.counted("http_request_duration_seconds_count", route="/v1/models/{model}:predict") == 1
    assert ":predict" not in server.log.read_text()


@EACH
def test_the_command_serves_in_the_foreground_until_it_is_interrupted(iris_model, tmp_path, framework, workers):
    tokens = tmp_path / "tokens"
    tokens.write_text(f"# the team's\n{TOKEN}\n")
    command = [sys.executable, "-m", "longshore.cli", "serve", str(iris_model), "--port=0", f"--token-file={tokens}"]
    command += [f"--framework={framework}", f"--workers={workers}"]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as process:
        try:
            about, curl = process.stdout.readline().decode(), process.stdout.readline().decode()
            answer = subprocess.run(["bash", "-c", f"{curl.strip()} -sS"], capture_output=True, check=True, timeout=30)
            assert json.loads(answer.stdout)["predictions"] in ([0], [1], [2])
            url = re.search(r"at (http://127.0.0.1:\d+/v1/models/iris:predict)", about)[1]
            assert requests.post(url, json={"instances": [ROW]}, timeout=30).status_code == 401
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0, (tmp_path / "log").read_text()
    with pytest.raises(requests.ConnectionError):
        requests.post(url, json={"instances": [ROW]}, timeout=30)


@EACH
def test_the_command_says_why_a_model_is_not_served(tmp_path, framework, workers):
    command = [sys.executable, "-m", "longshore.cli", "serve", str(tmp_path), "--port=0"]
    command += [f"--framework={framework}", f"--workers={workers}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"longshore: {tmp_path} is not served: " in done.stderr
    assert "model.json" in done.stderr.splitlines()[-1]
