"""The main job, on real data, with real servers, a real registry and the command line that users type."""

import json
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
import requests

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


def predict(url: str, row: dict = ROW, name: str = "penguins") -> requests.Response:
    return requests.post(f"{url}/v1/models/{name}:predict", json={"instances": [row]}, timeout=10)


def registry(longshore) -> Registry:
    return Registry(f"sqlite:///{longshore.home / 'registry.db'}")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("framework", ["fastapi", "flask"])
def test_data_becomes_a_monitored_endpoint(longshore, framework):
    done = longshore.run(thresholds={"accuracy": 0.9}, framework=framework)
    assert done.code == 0, done.err
    assert done.json["outcome"] == "deployed"

    url = done.step("deploy-model")["outputs"]["url"]
    answer = predict(url)
    assert answer.status_code == 200
    assert answer.json()["predictions"] == ["Adelie"]
    assert (answer.headers.get("server") == "gunicorn") == (framework == "flask")

    champion = registry(longshore).champion("penguins")
    assert champion.version == "1"
    assert champion.digest == done.step("train-sklearn")["outputs"]["digest"]

    sent = done.step("predict-endpoint")["outputs"]["requests"]
    seen = done.step("monitor-endpoint")["outputs"]
    assert sent == 69
    assert seen["requests"] >= sent
    assert seen["errors"] == 0
    assert 0 < seen["p50_seconds"] <= seen["p99_seconds"] < 5
    assert seen["drift"] == "none"


def test_the_summary_tells_a_person_what_happened(longshore):
    done = longshore("run", "train_and_deploy", "--local", "--set", f"data={PENGUINS}", "--set", "target=species")
    assert done.code == 0, done.err
    shown = " ".join(done.out.split())
    for word in ("accuracy", "champion", "http://127.0.0.1:", "requests", "p50", "p99", "drift", "curl"):
        assert word in shown
    curl = next(line for line in done.out.splitlines() if line.strip().startswith("curl"))
    asked = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True)
    assert json.loads(asked.stdout)["predictions"]


def test_a_rejected_model_ends_the_run_before_registration(longshore):
    done = longshore.run(thresholds={"accuracy": 0.9999})
    assert done.code == 0, done.err
    assert done.json["outcome"] == "rejected"
    assert "accuracy" in done.step("validate-model")["outputs"]["summary"]
    assert {step["name"] for step in done.json["steps"]}.isdisjoint({"register-model", "deploy-model"})
    assert registry(longshore).champion("penguins") is None
    assert longshore.servers() == []


def test_a_rejected_model_leaves_the_champion_serving(longshore):
    first = longshore.run()
    second = longshore.run(estimator="sklearn.dummy.DummyClassifier")
    assert second.json["outcome"] == "rejected", second.err
    assert "champion" in second.step("validate-model")["outputs"]["summary"]
    assert registry(longshore).champion("penguins").version == "1"
    assert predict(first.step("deploy-model")["outputs"]["url"]).json()["predictions"] == ["Adelie"]


def test_a_second_run_replaces_the_first_without_a_failed_request(longshore, clients):
    first = longshore.run()
    url = first.step("deploy-model")["outputs"]["url"]
    with clients(f"{url}/v1/models/penguins:predict", ROW) as load:
        second = longshore.run(seed=1)
    assert second.code == 0, second.err
    deployed = second.step("deploy-model")["outputs"]
    assert deployed["url"] == url
    assert deployed["replaced"] == first.step("deploy-model")["outputs"]["revision"] != deployed["revision"]
    assert load.failures == []
    assert load.answered > 100
    versions = {version.version: version for version in registry(longshore).versions("penguins")}
    assert registry(longshore).champion("penguins").version == "2"
    assert set(versions) == {"1", "2"}
    assert [server["revision"] for server in longshore.servers()] == [deployed["revision"]]


def test_the_same_run_again_changes_nothing_that_serves(longshore):
    first, second = longshore.run(), longshore.run()
    assert second.code == 0, second.err
    assert second.step("train-sklearn")["outputs"]["digest"] == first.step("train-sklearn")["outputs"]["digest"]
    assert second.step("deploy-model")["outputs"]["revision"] == first.step("deploy-model")["outputs"]["revision"]
    assert len(registry(longshore).versions("penguins")) == 1


CRASHES_IN_THE_SERVER = '''
import sys
from sklearn.linear_model import LogisticRegression


class Fragile(LogisticRegression):
    """Can be trained and scored, and cannot be loaded by the server."""

    def __setstate__(self, state):
        if "longshore.serving" in sys.modules:
            raise RuntimeError("libfragile.so.1: cannot open shared object file")
        super().__setstate__(state)
'''


def test_a_failing_new_revision_leaves_the_old_one_serving(longshore, tmp_path, clients):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "fragile.py").write_text(CRASHES_IN_THE_SERVER)
    longshore.env["PYTHONPATH"] = str(tmp_path / "modules")
    first = longshore.run()
    url = first.step("deploy-model")["outputs"]["url"]
    with clients(f"{url}/v1/models/penguins:predict", ROW) as load:
        second = longshore.run(estimator="fragile.Fragile", parameters={"max_iter": 1000}, champion_rule="none")
    assert second.code == 1
    assert "libfragile.so.1" in second.err
    assert "serves as before" in second.err
    assert "Traceback" not in second.err
    assert load.failures == []
    assert load.answered > 100
    assert [s["revision"] for s in longshore.servers()] == [first.step("deploy-model")["outputs"]["revision"]]
    assert registry(longshore).champion("penguins").version == "1"
    states = [v.deployments["penguins"].state for v in registry(longshore).versions("penguins")]
    assert sorted(states) == ["failed", "serving"]


def test_a_rollback_is_written_back(longshore):
    first = longshore.run()
    longshore.run(seed=1)
    back = longshore("local", "rollback", "penguins")
    assert back.code == 0, back.err
    assert [s["revision"] for s in longshore.servers()] == [first.step("deploy-model")["outputs"]["revision"]]
    assert registry(longshore).champion("penguins").version == "1"
    states = {v.version: v.deployments["penguins"].state for v in registry(longshore).versions("penguins")}
    assert states == {"1": "serving", "2": "rolled-back"}


MESSY = """\
Straße;Größe (m²);Preis €;verkauft am;Zustand;leer;Nr
Hauptstraße;{size};{price};2024-{month:02d}-15;{state};;{n}
"""


def messy_table(path: Path) -> None:
    header, row = MESSY.splitlines()
    lines = [header]
    for n in range(120):
        size = 40 + (n * 37) % 90
        state = ["neu", "alt", "", "saniert"][n % 4]
        lines.append(
            row.format(
                size="" if n % 17 == 0 else size,
                price=1000 * size + (n * 7919) % 9000,
                month=1 + n % 12,
                state=state,
                n=n,
            )
        )
    path.write_text("\n".join(lines) + "\n", encoding="cp1252")


def test_a_regression_on_a_table_of_ones_own(longshore, tmp_path):
    table = tmp_path / "Wohnungen 2024.csv"
    messy_table(table)
    done = longshore.run(
        data=table,
        target="Preis €",
        name="wohnungen",
        exclude=["Nr"],
        split="time",
        time_column="verkauft am",
        thresholds={"r2": 0.5},
    )
    assert done.code == 0, done.err
    assert done.json["outcome"] == "deployed", done.step("validate-model")
    assert done.step("train-sklearn")["outputs"]["task"] == "regression"
    url = done.step("deploy-model")["outputs"]["url"]
    row = {"Straße": "Hauptstraße", "Größe (m²)": 100, "verkauft am": "2024-06-01", "Zustand": None}
    answer = predict(url, row, "wohnungen")
    assert answer.status_code == 200, answer.text
    assert 50_000 < answer.json()["predictions"][0] < 150_000


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"data": "nowhere.csv"}, ["nowhere.csv", "no such file"]),
        ({"target": "specie"}, ["specie", "bill_length_mm", "species"]),
        ({"estimator": "sklearn.nowhere.Tree"}, ["sklearn.nowhere"]),
        ({"parameters": {"n_treez": 5}}, ["n_treez", "n_estimators"]),
        ({"thresholds": {"beauty": 1}}, ["beauty", "accuracy"]),
        ({"split": "time", "time_column": "when"}, ["when", "year"]),
        ({"name": "No_Name"}, ["No_Name"]),
    ],
)
def test_a_mistake_gets_one_clear_message_and_leaves_nothing(longshore, settings, words):
    done = longshore.run(**settings)
    assert done.code in (1, 2)
    for word in words:
        assert word in done.err
    assert "Traceback" not in done.err + done.out
    assert longshore.servers() == []
    assert registry(longshore).champion("penguins") is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["empty"]),
        ("a,b\n", ["no rows"]),
        ("a,b\n1,x\n2,x\n3,x\n4,x\n5,x\n6,x\n", ["one class"]),
        ("a,b\n,x\n,y\n,x\n,y\n,x\n,y\n,x\n,y\n,x\n,y\n", ["column"]),
    ],
    ids=["empty", "header-only", "one-class", "all-missing"],
)
def test_a_table_that_cannot_be_learned_from_is_told(longshore, tmp_path, content, words):
    table = tmp_path / "table.csv"
    table.write_text(content)
    done = longshore.run(data=table, target="b")
    assert done.code == 1
    for word in words:
        assert word in done.err
    assert "Traceback" not in done.err + done.out
    assert longshore.servers() == []


def test_an_interrupted_run_leaves_no_server_and_can_be_run_again(longshore):
    arguments = ("run", "train_and_deploy", "--local", "--set", f"data={PENGUINS}", "--set", "target=species")
    process = subprocess.Popen(
        longshore.command(*arguments, "--set", "name=penguins"),
        env=longshore.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    seen = []
    for line in process.stdout:
        seen.append(line)
        if "predict-endpoint" in line:
            os.killpg(process.pid, signal.SIGINT)
            break
    process.stdout.read()
    assert process.wait(timeout=60) == 130, seen
    process.stdout.close()
    assert longshore.servers() == []
    again = longshore.run()
    assert again.code == 0, again.err
    assert predict(again.step("deploy-model")["outputs"]["url"]).status_code == 200


def test_stop_ends_the_server(longshore):
    done = longshore.run()
    (server,) = longshore.servers()
    assert alive(server["pid"])
    stopped = longshore("local", "stop", "penguins")
    assert stopped.code == 0
    deadline = time.monotonic() + 10
    while alive(server["pid"]) and time.monotonic() < deadline:
        pass
    assert not alive(server["pid"])
    with pytest.raises(requests.ConnectionError):
        predict(done.step("deploy-model")["outputs"]["url"])


def test_a_service_moves_to_django_and_back_without_a_failed_request(longshore, clients):
    first = longshore.run()
    url = first.step("deploy-model")["outputs"]["url"]
    with clients(f"{url}/v1/models/penguins:predict", ROW) as load:
        for framework in ("django", "fastapi"):
            done = longshore.run(framework=framework)
            assert done.code == 0, done.err
            assert done.step("deploy-model")["outputs"]["url"] == url
            if framework == "django":
                assert done.step("monitor-endpoint")["outputs"]["errors"] == 0
                assert requests.get(f"{url}/admin/login/", timeout=10).status_code == 200
    assert load.failures == []
    assert load.answered > 100
    with sqlite3.connect(longshore.home / "django" / "django.db") as connection:
        (written,) = connection.execute("SELECT count(*) FROM longshore_prediction WHERE status = 200").fetchone()
    connection.close()
    assert written > 69
