"""The pipeline ``seldon_ab_test``: real training, a real API server, Seldon's real microservice, a real Prometheus.

Pods are fake, and what is asked of them is answered by processes: see harness.seldon_serving. In place of a gateway,
the test itself asks the revisions by their shares, and counts what their executors would.
"""

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from harness.cluster import eventually
from harness.prometheus import prometheus
from harness.seldon_metrics import SeldonMetrics
from harness.seldon_serving import ServingSeldonOperator
from harness.serving import wait_for
from harness.system import Missing, free_port

from longshore.client import Client
from longshore.deployment import deployed_release, find_endpoint
from longshore.errors import ConfigError
from longshore.registry import Registry

PENGUINS = Path(__file__).parents[2] / "examples" / "data" / "penguins.csv"
ROW = {
    "island": "Torgersen",
    "bill_length_mm": 39.1,
    "bill_depth_mm": 18.7,
    "flipper_length_mm": 181,
    "body_mass_g": 3750,
    "sex": "male",
    "year": 2007,
}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A bucket of an S3 server on loopback."""
    import s3fs

    port = free_port()
    settings = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (
        (tmp_path / "s3.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            s3fs.S3FileSystem.clear_instance_cache()
            filesystem = s3fs.S3FileSystem()

            def made() -> bool:
                filesystem.mkdir("models")
                return True

            eventually(made, "S3")
            yield "s3://models"
        finally:
            s3fs.S3FileSystem.clear_instance_cache()
            process.terminate()


@pytest.fixture
def observed(tmp_path):
    """A Prometheus, and what executors count."""
    try:
        with SeldonMetrics() as executors, prometheus(tmp_path) as server:
            server.scrape("executors", executors.port)
            yield server, executors
    except Missing as error:
        pytest.skip(str(error))


def test_two_candidates_share_the_requests_and_the_better_rewarded_one_stays(
    seldon_kinds, namespace, runtime, repository, observed, tmp_path
):
    server, executors = observed
    registry = f"sqlite:///{tmp_path / 'registry.db'}"
    where = {"platform": "seldon", "namespace": namespace, "session": runtime.session}
    settings = {
        "data": str(PENGUINS),
        "target": "species",
        "name": "penguins",
        "namespace": namespace,
        "repository": repository,
        "registry": registry,
        "prometheus": server.url,
        "thresholds": {"accuracy": 0.9},
        "parameters_a": {"n_estimators": 20},
        "estimator_b": "sklearn.linear_model.LogisticRegression",
        "parameters_b": {"max_iter": 1000},
        "percent_b": 40,
        "window_seconds": 10,
        "min_requests": 30,
        "min_rewards": 20,
        "deploy_timeout_seconds": 120,
    }
    given = [f"--set={key}={one if isinstance(one, str) else json.dumps(one)}" for key, one in settings.items()]
    home = {"KUBECONFIG": str(seldon_kinds.kubeconfig), "LONGSHORE_HOME": str(tmp_path / "home")}

    def started(revision, microservice):
        server.scrape(revision, microservice.metrics_port, "/prometheus")

    with (
        ServingSeldonOperator(seldon_kinds, namespace, started) as operator,
        (tmp_path / "out").open("wb") as out,
        (tmp_path / "err").open("wb") as err,
        subprocess.Popen(
            [sys.executable, "-m", "longshore.cli", "run", "seldon_ab_test", "--local", "--json", *given],
            stdout=out,
            stderr=err,
            env={**os.environ, **home},
            cwd=tmp_path,
        ) as run,
    ):
        try:
            asked = send_requests(run, where, operator.servers, executors)
        finally:
            run.terminate()
            run.wait(60)
    assert run.returncode == 0, (tmp_path / "err").read_text() + (tmp_path / "out").read_text()
    assert len(operator.servers) == 2
    report = json.loads((tmp_path / "out").read_text())
    compared = next(step for step in report["steps"] if step["name"] == "compare-revisions")["outputs"]
    assert (compared["winner"], compared["decided"]) == ("b", True), (compared, asked)
    last = deployed_release("penguins", **where)
    assert (last.revision, last.traffic.percent, last.beside) == (compared["revision"], 100, ())
    second, first = Registry(registry).versions("penguins")
    assert (second.aliases, first.aliases) == (("champion",), ())
    states = {one.version: one.deployments["penguins"] for one in (first, second)}
    assert [states[version].state for version in "12"] == ["replaced", "serving"]
    assert states["1"].reason == states["2"].reason == compared["reason"]


def send_requests(run, where, servers, executors) -> dict[str, int]:
    """Ask both revisions by their shares, with rewards, until the pipeline has ended; b earns more."""
    draw, asked = random.Random(1), {}

    def shared():
        assert run.poll() is None, "the pipeline has ended before its requests were shared"
        try:
            release = deployed_release("penguins", **where)
        except ConfigError:
            return None
        return release if 0 < release.traffic.percent < 100 else None

    release = wait_for(shared, seconds=200)
    endpoint = find_endpoint("penguins", **where)
    (a,), b = release.traffic.others, release.revision

    def at(revision):
        return Client(replace(endpoint, url=servers[revision].url, grpc_url=None, revision=revision))

    with at(a) as first, at(b) as second:
        while run.poll() is None:
            revision, client = (b, second) if draw.random() < 0.4 else (a, first)
            answer = client.ask([ROW])
            client.send_feedback(answer, 1.0 if revision == b else float(draw.random() < 0.3))
            executors.ask(revision, 1, name="penguins")
            asked[revision] = asked.get(revision, 0) + 1
    return asked
