"""The registry against a real MLflow store: a SQLite file shared by processes, and an MLflow server.

The server needs more packages than the client. Its tests run where LONGSHORE_TEST_MLFLOW names its executable:

    python -m venv /tmp/mlflow && /tmp/mlflow/bin/pip install mlflow
    export LONGSHORE_TEST_MLFLOW=/tmp/mlflow/bin/mlflow
"""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from longshore.errors import RegistryError
from longshore.registry import DeploymentState, Registry, RegistryRecorder
from longshore.spec import Endpoint, ModelSource, Release, Service


def model(letter: str = "a", name: str = "iris", **changes) -> ModelSource:
    known = {"uri": f"/runs/{letter}/model", "format": "sklearn", "name": name, "digest": "sha256:" + letter * 64}
    return ModelSource(**{**known, **changes})


@pytest.fixture(scope="module")
def empty_registry(tmp_path_factory) -> bytes:
    """MLflow's tables, made once: that takes longer than all that is tested with them."""
    path = tmp_path_factory.mktemp("registry") / "registry.db"
    Registry(f"sqlite:///{path}").register(model(), metrics={}, data_digest="", run=None)
    with sqlite3.connect(path) as database:
        for table in ("registered_model_aliases", "model_version_tags", "model_versions", "registered_models"):
            database.execute(f"DELETE FROM {table}")
    database.close()
    return path.read_bytes()


@pytest.fixture
def uri(tmp_path, empty_registry) -> str:
    (tmp_path / "registry.db").write_bytes(empty_registry)
    return f"sqlite:///{tmp_path / 'registry.db'}"


@pytest.fixture
def registry(uri) -> Registry:
    return Registry(uri)


def register(registry: Registry, letter: str = "a", **changes) -> ModelSource:
    return registry.register(model(letter, **changes), metrics={"accuracy": 0.9}, data_digest="d", run="run-1")


def release(of: ModelSource, service: str = "iris-api", **env: str) -> Release:
    return Release(service=Service(name=service, env=env), model=of)


def endpoint(of: Release, port: int = 8080) -> Endpoint:
    url = f"http://127.0.0.1:{port}"
    return Endpoint(name=of.service.name, url=url, model=of.model.name, revision=of.revision)


def states(registry: Registry, name: str = "iris", service: str = "iris-api") -> dict[str, str]:
    return {v.version: v.deployments[service].state for v in registry.versions(name) if service in v.deployments}


def test_a_model_becomes_a_challenger(registry):
    assert register(registry) == model(version="1")
    (version,) = registry.versions("iris")
    assert (version.name, version.version, version.uri, version.format) == ("iris", "1", "/runs/a/model", "sklearn")
    assert version.digest == model().digest
    assert version.aliases == ("challenger",)
    assert version.metrics == {"accuracy": 0.9}
    assert registry.champion("iris") is None
    assert registry.get("iris", "1") == registry.get("iris", "challenger") == model(version="1")


def test_the_same_content_is_the_same_version_wherever_it_lies(registry):
    register(registry)
    register(registry, "b")
    again = register(registry, uri="/runs/elsewhere/model")
    assert again == model(version="1", uri="/runs/elsewhere/model")
    assert [version.version for version in registry.versions("iris")] == ["2", "1"]
    assert registry.get("iris", "challenger").version == "1"
    assert register(registry, name="other") == model(name="other", version="1")


def test_a_model_without_a_digest_is_always_new(registry):
    assert [register(registry, digest=None).version for _ in range(2)] == ["1", "2"]


def test_tags_of_ones_own_cannot_overwrite_what_is_known(registry):
    tags = {"owner": "me", "longshore.digest": "none"}
    registry.register(model(), metrics={}, data_digest="", run=None, tags=tags)
    assert registry.get("iris", "1").digest == model().digest


def test_promoting_moves_the_champion(registry):
    for letter in "ab":
        register(registry, letter)
    registry.promote("iris", "2")
    assert registry.champion("iris") == model("b", version="2")
    registry.promote("iris", "1")
    assert registry.champion("iris") == model(version="1")
    aliases = {version.version: version.aliases for version in registry.versions("iris")}
    assert aliases == {"1": ("champion",), "2": ()}
    register(registry)
    assert {version.version: version.aliases for version in registry.versions("iris")} == aliases


def test_what_is_not_there_is_told_with_what_is(registry):
    with pytest.raises(RegistryError, match="no model 'iris'.*none"):
        registry.versions("iris")
    register(registry)
    register(registry, name="penguins")
    with pytest.raises(RegistryError, match="no model 'titanic'.*iris, penguins"):
        registry.get("titanic", "1")
    state = DeploymentState(state="serving", revision="r")
    for ask in (
        lambda: registry.get("iris", "7"),
        lambda: registry.promote("iris", "7"),
        lambda: registry.record("iris", "7", "iris-api", state),
    ):
        with pytest.raises(RegistryError, match=r"'iris' has no version or alias '7'.*1 \(challenger\)"):
            ask()
    assert registry.champion("titanic") is None


def test_a_state_is_recorded(registry):
    register(registry)
    state = DeploymentState(state="failed", revision="iris-api-1", reason="line one\nGröße | 'x' %")
    registry.record("iris", "1", "iris-api", state)
    assert dict(registry.versions("iris")[0].deployments) == {"iris-api": state}


def test_a_deploy_makes_the_champion_and_names_the_durable_place(registry, uri):
    packaged = model(uri="/models/iris/1", version=register(registry).version)
    RegistryRecorder(uri).serving(release(packaged), endpoint(release(packaged)), None)
    assert registry.champion("iris") == packaged
    (version,) = registry.versions("iris")
    assert version.aliases == ("champion",)
    state = version.deployments["iris-api"]
    assert (state.state, state.revision, state.endpoint) == (
        "serving",
        release(packaged).revision,
        "http://127.0.0.1:8080",
    )
    assert state.time.endswith("+00:00")


def test_what_was_made_of_a_version_for_one_server_is_not_the_version(registry, uri):
    registered = register(registry)
    archive = model("b", uri="/torchserve/iris/1", format="torchserve", version=registered.version)
    RegistryRecorder(uri).serving(release(archive), endpoint(release(archive)), None)
    # the next candidate is compared with it, and that loads what has this digest
    assert registry.champion("iris") == registered
    assert states(registry) == {"1": "serving"}


def test_a_replacement_and_a_rollback_are_told_apart(registry, uri):
    one, two = (release(register(registry, letter)) for letter in "ab")
    recorder = RegistryRecorder(uri)
    recorder.serving(one, endpoint(one), None)
    recorder.serving(two, endpoint(two), one)
    assert states(registry) == {"1": "replaced", "2": "serving"}
    assert registry.champion("iris").version == "2"
    recorder.serving(one, endpoint(one), two)
    assert states(registry) == {"1": "serving", "2": "rolled-back"}
    assert registry.champion("iris").version == "1"
    assert registry.versions("iris")[0].deployments["iris-api"].endpoint == "http://127.0.0.1:8080"


def test_recording_again_mends_what_an_interrupted_run_left(registry, uri):
    one, two = (release(register(registry, letter)) for letter in "ab")
    recorder = RegistryRecorder(uri)
    recorder.serving(one, endpoint(one), None)
    # the record of this deploy was lost; the step is run again and finds itself serving
    recorder.serving(two, endpoint(two), two)
    assert states(registry) == {"1": "replaced", "2": "serving"}


def test_services_are_recorded_apart(registry, uri):
    one, two = (register(registry, letter) for letter in "ab")
    recorder = RegistryRecorder(uri)
    for service in ("blue", "green"):
        recorder.serving(release(one, service), endpoint(release(one, service)), None)
    recorder.serving(release(two, "green"), endpoint(release(two, "green")), release(one, "green"))
    assert states(registry, service="blue") == {"1": "serving"}
    assert states(registry, service="green") == {"1": "replaced", "2": "serving"}


def test_a_failure_leaves_the_champion(registry, uri):
    one, two = (release(register(registry, letter)) for letter in "ab")
    recorder = RegistryRecorder(uri)
    recorder.serving(one, endpoint(one), None)
    recorder.failed(two, one, "x" * 10_000)
    assert states(registry) == {"1": "serving", "2": "failed"}
    assert len(registry.versions("iris")[0].deployments["iris-api"].reason) == 500
    assert registry.champion("iris").version == "1"
    recorder.serving(two, endpoint(two), one)
    assert registry.versions("iris")[0].deployments["iris-api"].reason == ""


def test_a_version_that_serves_is_not_called_failed(registry, uri):
    source = register(registry)
    old, new = release(source), release(source, WORKERS="many")
    recorder = RegistryRecorder(uri)
    recorder.serving(old, endpoint(old), None)
    recorder.failed(new, old, "WORKERS is no number")
    state = registry.versions("iris")[0].deployments["iris-api"]
    assert (state.state, state.revision, state.endpoint) == ("serving", old.revision, "http://127.0.0.1:8080")
    assert new.revision in state.reason
    assert "WORKERS is no number" in state.reason


def test_a_champion_that_is_taken_back_everywhere_is_champion_no_more(registry, uri):
    one = register(registry)
    recorder = RegistryRecorder(uri)
    for service in ("blue", "green"):
        recorder.serving(release(one, service), endpoint(release(one, service)), None)
    recorder.failed(release(one, "blue"), None, "the run was interrupted")
    assert registry.champion("iris") == one
    recorder.failed(release(one, "green"), None, "the run was interrupted")
    assert registry.champion("iris") is None
    assert states(registry, service="blue") == states(registry, service="green") == {"1": "failed"}


def test_a_release_without_a_version_is_passed_over(tmp_path):
    recorder = RegistryRecorder(f"sqlite:///{tmp_path / 'registry.db'}")
    some = release(model())
    recorder.serving(some, endpoint(some), None)
    recorder.failed(some, None, "why")
    assert list(tmp_path.iterdir()) == []


def test_a_predecessor_that_was_deleted_stops_no_record(registry, uri):
    one = release(register(registry))
    gone = release(model("c", name="gone", version="4"))
    RegistryRecorder(uri).serving(one, endpoint(one), gone)
    assert states(registry) == {"1": "serving"}


def test_a_version_of_something_else_is_listed_but_not_deployed(registry, uri):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    client.create_registered_model("iris")
    client.create_model_version("iris", source="/elsewhere")
    client.set_registered_model_alias("iris", "champion", "1")
    assert registry.versions("iris")[0].format is None
    with pytest.raises(RegistryError, match="not registered by longshore"):
        registry.champion("iris")


REGISTER = """
import sys
from longshore.registry import Registry
from longshore.spec import ModelSource
digest = "sha256:" + sys.argv[2] * 64
source = ModelSource(uri="/runs/x/model", format="sklearn", name="iris", digest=digest)
print(Registry(sys.argv[1]).register(source, metrics={"accuracy": 1.0}, data_digest="d", run="r").version)
"""


def quiet_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}


def test_processes_that_make_the_file_at_once_all_succeed_and_say_nothing(tmp_path):
    uri = f"sqlite:///{tmp_path / 'deep' / 'registry.db'}"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", REGISTER, uri, letter],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=quiet_environment(),
        )
        for letter in "aab"
    ]
    try:
        ended = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert [err for _, err in ended] == ["", "", ""]
    versions = [out.strip() for out, _ in ended]
    assert versions[0] == versions[1] != versions[2]
    assert sorted(set(versions)) == ["1", "2"]
    assert {path.name for path in tmp_path.iterdir()} == {"deep"}


ASK = """
import json, sys, time
from longshore.errors import RegistryError
from longshore.registry import Registry
import mlflow
began = time.monotonic()
try:
    Registry(sys.argv[1]).champion("iris")
except RegistryError as error:
    print(json.dumps({"error": str(error), "seconds": time.monotonic() - began}))
"""


def ask(uri: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", ASK, uri],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=quiet_environment(),
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.parametrize("listening", [False, True], ids=["refused", "silent"])
def test_a_server_that_is_away_is_told_soon(listening):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listening:
            server.listen(8)
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        told = ask(uri)
    assert uri in told["error"]
    assert "cannot be reached" in told["error"]
    assert told["seconds"] < 15


def test_a_file_that_is_no_registry_is_told_at_once(tmp_path):
    (tmp_path / "registry.db").write_text("this is no database at all, but a text of some length\n" * 20)
    (tmp_path / "folder.db").mkdir()
    for name, words in (("registry.db", "file is not a database"), ("folder.db", "unable to open database file")):
        began = time.monotonic()
        with pytest.raises(RegistryError) as raised:
            Registry(f"sqlite:///{tmp_path / name}").champion("iris")
        assert words in str(raised.value)
        assert name in str(raised.value)
        assert time.monotonic() - began < 15


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RegistryError, match="registry.db"):
        register(Registry(f"sqlite:///{tmp_path / 'file' / 'registry.db'}"))


def test_a_missing_driver_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(RegistryError, match=r"postgresql\+psycopg2://\*\*\*@.*driver is not installed.*psycopg2"):
        Registry("postgresql+psycopg2://me:secret@127.0.0.1/db").champion("iris")


def test_a_file_that_another_program_holds_is_told(registry, uri):
    with sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RegistryError, match="locked by another program"):
            register(registry)
        other.execute("ROLLBACK")
    other.close()
    assert register(registry).version == "1"


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory):
    executable = os.environ.get("LONGSHORE_TEST_MLFLOW")
    if not executable:
        pytest.skip(
            "set LONGSHORE_TEST_MLFLOW to the mlflow executable of an environment with the package mlflow: "
            "python -m venv /tmp/mlflow && /tmp/mlflow/bin/pip install mlflow"
        )
    place = tmp_path_factory.mktemp("mlflow")
    process = subprocess.Popen(
        [
            *(executable, "server", "--host", "127.0.0.1", "--port", "0", "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{place / 'mlflow.db'}"),
            *("--artifacts-destination", str(place / "files")),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=place,
        env={**quiet_environment(), "MLFLOW_DISABLE_TELEMETRY": "true"},
        start_new_session=True,
    )
    assert process.stdout is not None
    said: list[str] = []
    # an unread pipe that fills up would stop the server
    drain = threading.Thread(target=lambda: said.extend(process.stdout))
    try:
        for line in process.stdout:
            said.append(line)
            if address := re.search(r"running on (http://127\.0\.0\.1:\d+)", line):
                break
        else:
            pytest.fail("the MLflow server did not start:\n" + "".join(said))
        drain.start()
        yield address[1]
    finally:
        # it has helper processes, which end with their group
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if drain.ident is not None:
            drain.join()
        process.stdout.close()


def test_a_server_keeps_versions_aliases_and_states(mlflow_server):
    registry, recorder = Registry(mlflow_server), RegistryRecorder(mlflow_server)
    assert registry.champion("iris") is None
    with pytest.raises(RegistryError, match=rf"no model 'iris'.*{mlflow_server}"):
        registry.versions("iris")

    one, two = (register(registry, letter) for letter in "ab")
    assert (one.version, two.version) == ("1", "2")
    assert register(registry).version == "1"
    assert registry.versions("iris")[1].metrics == {"accuracy": 0.9}
    # the path as it was given, though the server takes no path for a source
    assert registry.get("iris", "2") == model("b", version="2")

    first, second = release(one), release(two)
    recorder.serving(first, endpoint(first), None)
    recorder.serving(second, endpoint(second), first)
    assert states(registry) == {"1": "replaced", "2": "serving"}
    recorder.serving(first, endpoint(first), second)
    recorder.failed(second, first, "Größe: 'x' | %\nsecond line")
    assert states(registry) == {"1": "serving", "2": "failed"}
    assert registry.versions("iris")[0].deployments["iris-api"].reason == "Größe: 'x' | %\nsecond line"
    assert registry.champion("iris") == model(version="1")

    registry.promote("iris", "2")
    assert {v.version: v.aliases for v in registry.versions("iris")} == {"1": (), "2": ("champion",)}
    with pytest.raises(RegistryError, match=r"no version or alias '7'.*2 \(champion\)"):
        registry.get("iris", "7")


def test_a_server_takes_a_model_of_a_store_and_of_a_path(mlflow_server):
    registry = Registry(mlflow_server)
    for version, uri in enumerate(("s3://models/iris/1", "file:///models/iris", "/models/my iris"), start=1):
        added = register(registry, "abc"[version - 1], name="places", uri=uri)
        assert registry.get("places", str(version)) == added
        assert added.uri == uri


def test_processes_that_register_at_once_on_a_server_all_succeed_and_say_nothing(mlflow_server):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", REGISTER.replace('"iris"', '"rivals"'), mlflow_server, letter],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=quiet_environment(),
        )
        for letter in "ab"
    ]
    try:
        ended = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert [err for _, err in ended] == ["", ""]
    assert sorted(out.strip() for out, _ in ended) == ["1", "2"]
    assert {version.digest for version in Registry(mlflow_server).versions("rivals")} == {
        model(letter).digest for letter in "ab"
    }


def test_a_path_of_the_server_that_is_no_registry_is_told(mlflow_server):
    uri = f"{mlflow_server}/elsewhere"
    with pytest.raises(RegistryError, match="check that this is an MLflow server") as raised:
        Registry(uri).champion("iris")
    assert uri in str(raised.value)
