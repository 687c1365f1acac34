"""The web application behind a real uvicorn process: what only sockets can show."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest
import requests

from longshore.client import predict, probe, replay
from longshore.errors import InputError
from longshore.monitoring import bin_counts, read_metrics, summarise
from longshore.packaging import frame_to_rows, save_model
from longshore.spec import Endpoint
from longshore.training.data import read_table
from longshore.training.fit import train_sklearn

PENGUINS = Path(__file__).parents[2] / "examples" / "data" / "penguins.csv"
PREDICT = "/v1/models/penguins:predict"
MEBIBYTE = 2**20

SERVER = """
import logging, signal, socket, sys
from pathlib import Path

import uvicorn

from longshore.serving import Application, Predictor, create_app

logging.basicConfig(stream=sys.stderr)
predictor = Predictor.load(Path(sys.argv[1]), name="penguins", digest=sys.argv[2], version="1", revision="penguins-1")
application = Application.of(predictor)
app = create_app(application)
signal.signal(signal.SIGUSR1, lambda *_: setattr(application, "draining", True))
sock = socket.socket()
sock.bind(("127.0.0.1", 0))
sock.listen()
print(sock.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning")).run(sockets=[sock])
"""


@dataclass
class Running:
    process: subprocess.Popen
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(name="penguins", url=self.url, model="penguins", revision="penguins-1")

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=30)


@pytest.fixture(scope="module")
def table():
    return read_table(str(PENGUINS))


@pytest.fixture(scope="module")
def model(table, tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "penguins"
    trained = train_sklearn(
        table,
        target="species",
        estimator="sklearn.ensemble.RandomForestClassifier",
        parameters={"n_estimators": 20},
    )
    return directory, save_model(directory, trained.model, trained.card), trained


@contextmanager
def running(model, log: Path) -> Iterator[Running]:
    directory, digest, _ = model
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(directory), digest], stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    try:
        first = process.stdout.readline()
        assert first, log.read_text()
        yield Running(process, int(first), log)
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()


@pytest.fixture(scope="module")
def server(model, tmp_path_factory) -> Iterator[Running]:
    """One for all tests that leave it as it was; what they count, they count from where they began."""
    with running(model, tmp_path_factory.mktemp("server") / "log") as one:
        yield one


def rows_of(model, table):
    return frame_to_rows(model[2].card.signature, table)


@dataclass
class Observed:
    requests: int
    errors: int
    p50_seconds: float
    p99_seconds: float
    rows: dict[str, int]


def observed(server: Running) -> Observed:
    samples = read_metrics(f"{server.url}/metrics")
    stats = summarise(samples, revision="penguins-1")
    rows = {feature: sum(counts) for feature, counts in bin_counts(samples).items()}
    return Observed(stats.requests, stats.errors, stats.p50_seconds, stats.p99_seconds, rows)


def test_the_client_and_the_monitoring_agree_with_the_server(server, model, table):
    card = model[2].card
    rows = rows_of(model, table)[:60]
    before = observed(server)
    probe(server.endpoint, rows[:3], card.signature.classes)
    report = replay(server.endpoint, rows, card.signature.classes, batch_size=2)
    assert (report.requests, report.failed) == (30, 0), report.first_error
    with pytest.raises(InputError, match=r"answered 400: row 0, column 'year'"):
        predict(server.endpoint, [{**rows[0], "year": "now"}])
    after = observed(server)
    # three rows together and each alone, the replay, the refused one
    assert after.requests - before.requests == 4 + 30 + 1
    assert after.errors == before.errors
    assert 0 < after.p50_seconds <= after.p99_seconds
    assert after.rows == {name: number + 3 + 3 + 60 for name, number in before.rows.items()}


def test_clients_at_once_get_their_own_answers_and_the_log_stays_quiet(server, model, table):
    rows = rows_of(model, table)[::8]
    expected = predict(server.endpoint, rows)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda row: predict(server.endpoint, [row])[0], rows))
    assert answers == expected
    assert server.log.read_text() == ""


def test_a_chunked_body_over_the_default_limit_is_refused_and_the_connection_lives(server):
    def endless():
        for _ in range(33):
            yield b" " * MEBIBYTE

    with requests.Session() as session:
        session.trust_env = False
        refused = session.post(server.url + PREDICT, data=endless(), timeout=30)
        assert refused.status_code == 413
        assert str(32 * MEBIBYTE) in refused.json()["error"]
        assert session.get(f"{server.url}/v2/health/ready", timeout=30).json()["revision"] == "penguins-1"


def test_a_declared_body_over_the_limit_is_refused_before_it_is_sent(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(
            f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
            f"Content-Length: {33 * MEBIBYTE}\r\n\r\n".encode()
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_large_batch_under_the_limit_is_answered(server, model, table):
    rows = rows_of(model, table) * 30
    assert len(json.dumps(rows)) > MEBIBYTE
    assert len(predict(server.endpoint, rows)) == len(rows)


def test_a_client_that_goes_away_leaves_no_trace_but_a_count(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
    deadline = time.monotonic() + 30
    while not (gone := requests.get(f"{server.url}/metrics", timeout=30).text.count('status="499"')):
        assert time.monotonic() < deadline
    assert gone
    assert server.log.read_text() == ""


def test_draining_answers_and_closes_kept_connections(model, tmp_path):
    with running(model, tmp_path / "log") as server:
        drain(server, model)


def drain(server: Running, model) -> None:
    body = json.dumps({"instances": [model[2].card.example[0]]}, default=dict)
    connection = server.connect()
    connection.request("POST", PREDICT, body)
    first = connection.getresponse()
    assert first.status == 200
    assert first.read()
    kept = connection.sock
    assert first.headers["connection"] is None
    os.kill(server.process.pid, signal.SIGUSR1)
    deadline = time.monotonic() + 30
    while requests.get(f"{server.url}/v2/health/ready", timeout=30).status_code != 503:
        assert time.monotonic() < deadline
    assert connection.sock is kept
    connection.request("POST", PREDICT, body)
    last = connection.getresponse()
    assert (last.status, last.headers["connection"]) == (200, "close")
    assert re.fullmatch(rb'\{"predictions":\["\w+"\]\}', last.read())
    assert connection.sock is None
    connection.close()
