"""The ``longshore`` command with real steps, real processes and a real HTTP server.

The server stands in for Kubeflow Pipelines: it speaks the REST calls of ``/apis/v2beta1`` that ``kfp.Client`` makes,
and checks what it is sent no further than the tests do. What a real KFP API server makes of the same calls is not
shown here; that belongs to the tests with a control plane.
"""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import dsl

from longshore import components, pipelines
from longshore.authoring import component
from longshore.cli import app


@component
def add(a: int, b: int = 1) -> int:
    print("adding", a, b)
    return a + b


@component
def refuse(message: str):
    from longshore.errors import DataError

    raise DataError(message)


@dsl.pipeline(name="sums", description="Add.")
def sums(start: int, more: int = 2, note: str = "") -> int:
    """Add numbers.

    Args:
        start: Where to start.
        more: What to add.
    """
    return add(a=add(a=start).output, b=more).output


@dsl.pipeline(name="refusing")
def refusing(message: str = "column 'age' is missing"):
    refuse(message=message)


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_HOME", str(tmp_path / "home"))
    # kfp.Client keeps a context file in the user's home and reads other settings from the environment
    monkeypatch.setattr("kfp.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    for name in [name for name in os.environ if name.startswith("KF_PIPELINES") or name == "LONGSHORE_KFP_TOKEN"]:
        monkeypatch.delenv(name)
    known = {"sums": sums, "refusing": refusing}
    monkeypatch.setattr(pipelines, "names", lambda: tuple(known))
    monkeypatch.setattr(pipelines, "get", known.__getitem__)


class Told:
    """What a command printed."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def longshore(capfd: pytest.CaptureFixture[str]):
    def run(*words: str) -> Told:
        status = app.run(words)
        return Told(status, *capfd.readouterr())

    return run


# --------------------------------------------------------------------------------------------- on this machine


def test_a_run_ends_with_a_summary_and_its_progress_goes_to_the_standard_error(longshore) -> None:
    told = longshore("run", "sums", "--local", "--set", "start=3")
    assert told.status == 0
    assert [line.split()[:2] for line in told.out.split("\n")[1:4]] == [
        ["add", "Output"],
        ["add-2", "Output"],
        ["Output", "6"],
    ]
    lines = told.err.splitlines()
    assert lines[0] == "add started"
    assert lines[1].startswith("add succeeded in ")
    assert lines[2] == "add-2 started"
    assert "adding" not in told.out + told.err


def test_json_is_one_document_on_the_standard_output(longshore) -> None:
    told = longshore("run", "sums", "--local", "--json", "--set", "start=3", "--set", "more=10")
    assert told.status == 0
    document = told.json
    assert (document["outcome"], document["state"], document["error"]) == ("succeeded", "succeeded", None)
    assert document["outputs"] == {"Output": 14}
    assert [(step["name"], step["outputs"]) for step in document["steps"]] == [
        ("add", {"Output": 4}),
        ("add-2", {"Output": 14}),
    ]
    assert Path(document["steps"][0]["log"]).is_file()


def test_verbose_shows_what_steps_print(longshore) -> None:
    told = longshore("run", "sums", "--local", "--verbose", "--set", "start=3")
    assert "add | adding 3 1\n" in told.err
    assert "add-2 | adding 4 2\n" in told.err


def test_a_failed_run_is_one_message_and_status_1(longshore) -> None:
    told = longshore("run", "refusing", "--local")
    assert told.status == 1
    assert told.out == ""
    assert told.err.splitlines()[-1] == "longshore: step refuse failed: column 'age' is missing"
    assert "Traceback" not in told.err


def test_a_failed_run_is_told_in_json_too(longshore) -> None:
    told = longshore("run", "refusing", "--local", "--json")
    assert told.status == 1
    assert told.json["outcome"] == "failed"
    assert told.json["error"] == "step refuse failed: column 'age' is missing"
    assert told.json["steps"][0]["error_type"] == "DataError"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "summs", "--local"], "there is no pipeline 'summs': did you mean sums?"),
        (["run", "sums", "--local"], "sums needs a value for start"),
        (["run", "sums", "--local", "--set", "start=x"], "parameter start takes a whole number, not 'x'"),
        (["run", "sums", "--local", "--set", "start=null"], "parameter start takes a whole number, not 'null'"),
        (["run", "sums", "--host", "localhost:8080", "--set", "start=1"], "write the address with http:// or https://"),
        (["components", "load_dta"], "there is no component 'load_dta': did you mean load_data"),
        (["compile", "sum", "-o", "-"], "did you mean sums?"),
        (["compile", "sums", "-o", "x.json"], "names end in .yaml or .yml"),
        (["compile", "sums", "-o", "/proc/x/y.yaml"], "/proc/x/y.yaml cannot be written"),
    ],
)
def test_wrong_use_is_one_message_and_status_2(longshore, words, told, tmp_path) -> None:
    done = longshore(*words)
    assert (done.status, done.out) == (2, "")
    assert told in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "home").exists()


SCRIPT = """
import sys
from kfp import dsl
from longshore import deployment, pipelines
from longshore.authoring import component
from longshore.cli import main

@component
def wait(path: str):
    import os, time
    with open(path, "w") as fifo:
        fifo.write(str(os.getpid()))
    time.sleep(600)

@component
def add(a: int) -> int:
    return a + 1

@dsl.pipeline(name="waiting")
def waiting(path: str):
    wait(path=path)

@dsl.pipeline(name="adding")
def adding(a: int = 1):
    add(a=a)

known = {"waiting": waiting, "adding": adding}
pipelines.names, pipelines.get = lambda: tuple(known), known.__getitem__
deployment.undo_run = lambda run: print("undo", run, flush=True)
main()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_undoes_its_servers_and_ends_with_130(script: Path, tmp_path: Path, number: int) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [sys.executable, str(script), "run", "waiting", "--local", "--set", f"path={fifo}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        step = int(fifo.read_text())
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert out.startswith("undo waiting-")
    assert err.endswith("\ninterrupted\n")
    assert "Traceback" not in err
    with pytest.raises(ProcessLookupError):
        os.kill(step, 0)


def terminal_output(command: list[str], **environment: str) -> str:
    """What a command writes to a terminal on its standard error."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=theirs, env={**os.environ, "TERM": "xterm-256color", **environment}
    )
    os.close(theirs)
    text = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break
        if not part:
            break
        text += part
    os.close(ours)
    assert process.wait(timeout=60) == 0
    return text.decode()


def test_a_terminal_gets_one_lasting_line_for_each_step(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    command = [sys.executable, str(script), "run", "adding", "--local"]
    coloured = terminal_output(command)
    assert "\x1b[32m✓\x1b[0m add \x1b[2msucceeded in" in coloured
    assert "\x1b[32m" not in terminal_output(command, NO_COLOR="1")


# ---------------------------------------------------------------------------------------------------- catalogue


def test_pipelines_and_components_are_described(longshore) -> None:
    (listed,) = [entry for entry in longshore("pipelines", "--json").json if entry["name"] == "sums"]
    assert [(p["name"], p["type"], p["required"], p["default"]) for p in listed["inputs"]] == [
        ("start", "Integer", True, None),
        ("more", "Integer", False, 2),
        ("note", "String", False, ""),
    ]
    assert "Where to start." in longshore("pipelines", "sums").out
    everything = longshore("components", "--json").json
    assert [entry["name"] for entry in everything] == list(components.names())
    assert all(entry["summary"] for entry in everything)
    described = longshore("components", "load-data").out
    for words in ("load_data", "Inputs", "Outputs", "Errors", "system.Dataset"):
        assert words in described


@pytest.mark.parametrize("name", ["sums", "load_data"])
def test_compiled_yaml_is_what_kubeflow_reads(longshore, name: str, tmp_path: Path) -> None:
    target = tmp_path / "new" / "compiled.yaml"
    assert longshore("compile", name, "-o", str(target)).status == 0
    told = longshore("compile", name, "-o", "-")
    assert told.out == target.read_text()
    (document,) = yaml.safe_load_all(told.out)
    assert document["schemaVersion"] == "2.1.0"
    assert document["sdkVersion"].startswith("kfp-2.17")


def test_set_changes_a_default_of_what_is_compiled(longshore) -> None:
    document = yaml.safe_load(longshore("compile", "sums", "-o", "-", "--set", "start=5", "--set", "note=a=b").out)
    inputs = document["root"]["inputDefinitions"]["parameters"]
    assert inputs["start"]["defaultValue"] == 5
    assert inputs["more"]["defaultValue"] == 2
    assert inputs["note"]["defaultValue"] == "a=b"


# --------------------------------------------------------------------------------------------------- Kubeflow


class Api(BaseHTTPRequestHandler):
    """The calls of a Kubeflow Pipelines API that ``kfp.Client`` makes to run a pipeline and look at it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def answer(self) -> None:
        kubeflow: Kubeflow = self.server.kubeflow
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        path, _, query = self.path.partition("?")
        kubeflow.calls.append((self.command, path, query, body, self.headers.get("Authorization")))
        status, answer = kubeflow.respond(self.command, path.removeprefix("/apis/v2beta1/"), body)
        text = answer if isinstance(answer, str) else json.dumps(answer)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text.encode())))
        if status == 302:
            self.send_header("Location", "/dex/auth")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


class Kubeflow:
    """A server with one script: the states that a run goes through."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []
        self.states = ["SUCCEEDED"]
        self.tasks: list[dict] = []
        self.multi_user = False
        self.refusals: dict[str, tuple[int, Any]] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
        self.server.kubeflow = self
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def respond(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path in self.refusals:
            return self.refusals[path]
        if path == "healthz":
            return 200, {"multi_user": self.multi_user}
        if path == "experiments":
            experiment = {"experiment_id": "e-1", "display_name": "Default"}
            return 200, experiment if method == "POST" else {"experiments": []}
        if path == "runs" and method == "POST":
            return 200, {"run_id": "r-1", "state": "PENDING", "display_name": body["display_name"]}
        if path == "runs/r-1":
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            return 200, {"run_id": "r-1", "state": state, "run_details": {"task_details": self.tasks}}
        return 404, {"code": 5, "message": f"no {path}"}

    def sent(self, method: str, path: str) -> list[Any]:
        return [body for verb, where, _, body, _ in self.calls if (verb, where) == (method, f"/apis/v2beta1/{path}")]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def kubeflow() -> Iterator[Kubeflow]:
    server = Kubeflow()
    yield server
    server.close()


def test_a_run_is_started_with_its_arguments_and_its_page_printed(longshore, kubeflow: Kubeflow) -> None:
    told = longshore("run", "sums", "--host", kubeflow.url, "--set", "start=3")
    assert (told.status, told.err) == (0, "")
    assert told.out == f"run r-1\n{kubeflow.url}/#/runs/details/r-1\n"
    (sent,) = kubeflow.sent("POST", "runs")
    assert sent["runtime_config"]["parameters"] == {"start": 3}
    assert sent["pipeline_spec"]["pipelineInfo"]["name"] == "sums"
    assert sent["display_name"].startswith("sums ")
    assert kubeflow.sent("GET", "runs/r-1") == []


def test_namespace_experiment_and_token_are_sent(longshore, kubeflow: Kubeflow, monkeypatch) -> None:
    monkeypatch.setenv("LONGSHORE_KFP_TOKEN", "secret")
    kubeflow.multi_user = True
    told = longshore(
        "run",
        "sums",
        "--host",
        kubeflow.url + "/",
        "--namespace",
        "team-a",
        "--experiment",
        "trials",
        "--set",
        "start=3",
    )
    assert told.status == 0, told.err
    (experiment,) = kubeflow.sent("POST", "experiments")
    assert (experiment["display_name"], experiment["namespace"]) == ("trials", "team-a")
    assert {call[4] for call in kubeflow.calls} == {"Bearer secret"}
    assert "secret" not in told.out + told.err


@pytest.mark.parametrize(
    ("states", "status", "last"),
    [
        (["PENDING", "RUNNING", "SUCCEEDED"], 0, "SUCCEEDED"),
        (["SKIPPED"], 0, "SKIPPED"),
        (["RUNNING", "CANCELING", "CANCELED"], 1, "longshore: run r-1 was cancelled: {url}/#/runs/details/r-1"),
        (
            ["RUNNING", "FAILED"],
            1,
            "longshore: run r-1 failed in train-sklearn. Its logs: {url}/#/runs/details/r-1",
        ),
    ],
)
def test_wait_follows_a_run_to_its_end_in_kubeflows_words(longshore, kubeflow: Kubeflow, states, status, last) -> None:
    kubeflow.states = list(states)
    kubeflow.tasks = [
        {"task_id": "1", "display_name": "root", "state": states[-1]},
        {"task_id": "2", "display_name": "load-data", "state": "SUCCEEDED", "parent_task_id": "1"},
        {"task_id": "3", "display_name": "train-sklearn", "state": states[-1], "parent_task_id": "1"},
    ]
    told = longshore("run", "sums", "--host", kubeflow.url, "--wait", "--set", "start=3")
    assert told.status == status
    lines = told.err.splitlines()
    assert lines[: len(states)] == states
    assert lines[-1] == last.format(url=kubeflow.url)


def test_json_of_a_run_that_was_waited_for(longshore, kubeflow: Kubeflow) -> None:
    kubeflow.states = ["FAILED"]
    kubeflow.tasks = [{"task_id": "1", "display_name": "train-sklearn", "state": "FAILED"}]
    told = longshore("run", "sums", "--host", kubeflow.url, "--wait", "--json", "--set", "start=3")
    assert told.status == 1
    assert told.json["state"] == "FAILED"
    assert told.json["failed"] == ["train-sklearn"]
    assert told.json["id"] == "r-1"


def test_waiting_ends_after_the_timeout_and_says_that_the_run_goes_on(longshore, kubeflow: Kubeflow) -> None:
    kubeflow.states = ["RUNNING"]
    told = longshore("run", "sums", "--host", kubeflow.url, "--wait", "--timeout-seconds", "0.7", "--set", "start=3")
    assert told.status == 1
    assert "run r-1 is RUNNING after 0.7 s and goes on" in told.err


def test_an_unused_port_is_told_in_one_sentence(longshore, kubeflow: Kubeflow) -> None:
    kubeflow.close()
    told = longshore("run", "sums", "--host", kubeflow.url, "--set", "start=3")
    assert told.status == 1
    assert told.err == f"longshore: nothing answers at {kubeflow.url}: is the address right, is the port forwarded?\n"


DENIED = {"code": 16, "message": "User identity is empty", "error": "Unauthenticated"}


@pytest.mark.parametrize(
    ("path", "answer", "words"),
    [
        ("healthz", (401, DENIED), ["does not let this request in (401)", "LONGSHORE_KFP_TOKEN"]),
        ("healthz", (403, "RBAC: access denied"), ["does not let this request in (403)", "LONGSHORE_KFP_TOKEN"]),
        ("healthz", (302, ""), ["does not let this request in (302)", "LONGSHORE_KFP_TOKEN"]),
        ("healthz", (200, "<html>a page</html>"), ["is no Kubeflow Pipelines API", "/pipeline"]),
        ("healthz", (404, {}), ["is no Kubeflow Pipelines API"]),
        (
            "experiments",
            (403, {"code": 7, "message": "User 'a@b.c' is not authorized: namespaces \"team-x\" not found"}),
            ["namespace 'team-x' (403)", 'namespaces "team-x" not found'],
        ),
        (
            "runs",
            (400, {"code": 3, "message": "Invalid input error: bad spec"}),
            ["(400): Invalid input error: bad spec"],
        ),
        ("runs", (401, DENIED), ["does not let this request in (401)"]),
        ("runs", (500, "oops"), ["(500)"]),
        ("runs/r-1", (404, {"message": "Run r-1 not found"}), ["Run r-1 not found"]),
    ],
)
def test_a_refusal_is_one_clear_sentence(longshore, kubeflow: Kubeflow, path, answer, words) -> None:
    kubeflow.refusals[path] = answer
    told = longshore("run", "sums", "--host", kubeflow.url, "--namespace", "team-x", "--wait", "--set", "start=3")
    assert told.status == 1
    (line,) = [line for line in told.err.splitlines() if line.startswith("longshore:")]
    for word in words:
        assert word in line
    assert "Traceback" not in told.err


def test_several_users_need_a_namespace(longshore, kubeflow: Kubeflow) -> None:
    kubeflow.multi_user = True
    told = longshore("run", "sums", "--host", kubeflow.url, "--set", "start=3")
    assert told.status == 2
    assert "serves several users: name yours with --namespace" in told.err


def test_arguments_are_checked_before_kubeflow_is_asked(longshore, kubeflow: Kubeflow) -> None:
    told = longshore("run", "sums", "--host", kubeflow.url)
    assert told.status == 2
    assert "needs a value for start" in told.err
    assert kubeflow.calls == []
