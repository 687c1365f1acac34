"""A TorchServe that runs: versions of a model beside each other, moved under load, and what may go wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from longshore.client import Client, probe
from longshore.deployment import predict
from longshore.errors import ConfigError, DeployError, DigestMismatch, InputError, InvalidValue, ModelError
from longshore.monitoring import read_metrics
from longshore.packaging import load_model, package_torchserve, read_card, save_model
from longshore.packaging.model import save_files
from longshore.pipelines.torch_to_torchserve import torch_to_torchserve
from longshore.registry import Registry
from longshore.runner.run import run_pipeline
from longshore.spec import ModelSource
from longshore.torchserve import ModelServer, Refused, deploy_version, promote_version, unregister_version
from longshore.torchserve.server import INFERENCE_TOKEN, MANAGEMENT_TOKEN
from longshore.training import train_sklearn
from longshore.validation.torchserve import running_torchserve


def packaged(directory, version, table, *, name="penguins", workers=None, **trained):
    """A package of a model that was trained on a table."""
    fitted = train_sklearn(table, target="species", estimator="sklearn.tree.DecisionTreeClassifier", **trained)
    place = directory / "models" / f"{name}-{version}"
    digest = save_model(place, fitted.model, fitted.card)
    model = ModelSource(uri=str(place), format="sklearn", name=name, version=version, digest=digest)
    return package_torchserve(model, str(directory / "repository"), name=name, version=version, workers=workers)


@pytest.fixture(scope="module")
def packages(penguins, tmp_path_factory):
    """Three versions of a model."""
    directory = tmp_path_factory.mktemp("packages")
    return {
        version: packaged(directory, version, penguins, parameters={"max_depth": int(version)})
        for version in ("1", "2", "3")
    }


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """A TorchServe without models, as it is by default but for its model API: with tokens."""
    store = tmp_path_factory.mktemp("store")
    settings = {"enable_model_api": True, "metrics_mode": "prometheus", "default_workers_per_model": 1}
    with running_torchserve(store, settings) as running:
        yield running


@pytest.fixture(scope="module")
def store(process):
    return next(
        Path(line.partition("=")[2])
        for line in (process.folder / "config.properties").read_text().splitlines()
        if line.startswith("model_store=")
    )


@pytest.fixture
def server(process, home, store):
    """It, without models of other tests."""
    one = ModelServer.connect(
        process.management,
        process.inference,
        grpc=f"http://127.0.0.1:{process.grpc_inference}",
        key_file=process.folder / "key_file.json",
    )
    yield one
    # the model of the faults stays: it must outlive them all
    for model in one.models().keys() - {"owls"}:
        for version in sorted(one.versions(model), key=lambda version: version.default):
            one.unregister(model, version.version)
    for archive in store.glob("penguins-*.mar"):
        archive.unlink()


def default_of(server, model="penguins"):
    return next(one.version for one in server.versions(model) if one.default)


def versions_of(server, model="penguins"):
    return {one.version for one in server.versions(model)}


class Load:
    """Clients that ask for predictions without a pause; a context manager."""

    def __init__(self, server, rows, clients=4, model="penguins"):
        self._server, self._rows, self._model = server, rows, model
        self._end = threading.Event()
        self.failures, self.answered = [], 0
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self):
        url = f"{self._server.inference}/predictions/{self._model}"
        with requests.Session() as session:
            session.headers.update(self._server.inference_access.headers())
            while not self._end.is_set():
                try:
                    answer = session.post(url, json={"instances": self._rows}, timeout=60)
                except requests.RequestException as error:
                    self.failures.append(str(error))
                    continue
                if answer.status_code == 200 and len(answer.json()["predictions"]) == len(self._rows):
                    self.answered += 1
                else:
                    self.failures.append(f"{answer.status_code} {answer.text}")

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        for thread in self._threads:
            thread.join()


def rows_of(package):
    return [dict(row) for row in read_card(Path(package.uri)).example]


def broken(package, directory, version, handler, *, entries=None):
    """A package whose archive has another handler, or other entries."""
    place = directory / f"broken-{version}"
    card = read_card(Path(package.uri))
    (source,) = Path(package.uri, "model-store").iterdir()
    with zipfile.ZipFile(source) as content:
        files = {name: content.read(name) for name in content.namelist()}
    manifest = json.loads(files["MAR-INF/MANIFEST.json"])
    manifest["model"]["modelVersion"] = version
    files["MAR-INF/MANIFEST.json"] = json.dumps(manifest).encode()
    files["handler.py"] = handler.encode()
    files |= entries or {}

    def write(work):
        (work / "model-store").mkdir()
        with zipfile.ZipFile(work / "model-store" / f"{package.name}-{version}.mar", "w") as archive:
            for name, value in files.items():
                archive.writestr(name, value)

    digest = save_files(place, write, replace(card, files={}))
    return replace(package, uri=str(place), version=version, digest=digest)


def test_versions_stand_beside_each_other_and_the_default_moves(server, packages, store):
    said = []
    first = deploy_version(packages["1"], server, on_progress=said.append)
    assert (first.version, first.replaced, first.retired) == ("1", None, ())
    assert "register version 1 of penguins" in "\n".join(said)
    second = deploy_version(packages["2"], server, store=str(store))
    assert (second.replaced, default_of(server)) == ("1", "2")
    # the one before is there still
    assert versions_of(server) == {"1", "2"}
    rows = rows_of(packages["2"])
    assert len(predict(second.endpoint, rows, access=server.inference_access)) == len(rows)
    # and again, which changes nothing
    again = deploy_version(packages["2"], server, store=str(store))
    assert (again.replaced, again.archive_digest) == (None, second.archive_digest)
    (one, two) = server.versions("penguins")
    assert {one.ready_workers, two.ready_workers} == {1}
    assert {one.archive, two.archive} == {
        f"file://{packages['1'].uri}/model-store/penguins-1.mar",
        "penguins-2.mar",
    }
    back = promote_version(server, "penguins", "1")
    assert (back.replaced, default_of(server)) == ("2", "1")
    assert promote_version(server, "penguins", "1").replaced is None
    with pytest.raises(ConfigError, match="has no version 7 of penguins: there is 1, 2"):
        promote_version(server, "penguins", "7")
    with pytest.raises(ConfigError, match="version 1 of penguins is the default"):
        unregister_version(server, "penguins", "1")
    unregister_version(server, "penguins", "2")
    unregister_version(server, "penguins", "2")
    assert versions_of(server) == {"1"}


SLOW = """
import time
from longshore.serving.torchserve_handler import TabularHandler

class Handler(TabularHandler):
    def handle(self, data, context):
        # not where TorchServe asks what it is
        time.sleep(0.7 if data[0] else 0)
        return super().handle(data, context)
"""


def test_no_request_fails_while_the_default_moves_and_old_versions_go(server, packages, store, tmp_path):
    rows = rows_of(packages["1"])
    # when it goes it is at work, with two workers, and others wait
    deploy_version(broken(packages["1"], tmp_path, "1", SLOW), server, store=str(store), workers=2)
    with Load(server, rows) as load:
        second = deploy_version(packages["2"], server, store=str(store), keep_versions=0)
        third = deploy_version(packages["3"], server, store=str(store), keep_versions=1)
        answered = load.answered
        promote_version(server, "penguins", "3")
        while load.answered < answered + 20 and not load.failures:
            time.sleep(0.01)
    assert load.failures == []
    assert (second.retired, third.replaced, third.retired) == (("1",), "2", ())
    assert versions_of(server) == {"2", "3"}


def test_a_version_is_tried_out_at_its_own_address(server, packages, store, process):
    deploy_version(packages["1"], server, store=str(store))
    tried = deploy_version(packages["2"], server, store=str(store), make_default=False)
    assert (tried.endpoint.model, tried.replaced, default_of(server)) == ("penguins/2", None, "1")
    rows = rows_of(packages["2"])
    expected = load_model(Path(packages["2"].uri).parents[2] / "models" / "penguins-2").card.signature.classes
    for protocol in ("torchserve", "grpc-torchserve"):
        with Client(tried.endpoint, protocol=protocol, access=server.inference_access) as client:
            assert set(client.predict(rows)) <= set(expected)
            assert client.answering() == tried.endpoint.revision
            with pytest.raises(InputError, match="column 'wings' is unknown"):
                client.predict([{"wings": 2}])
    # TorchServe counts versions apart that are asked by their own address
    samples = read_metrics(f"{process.metrics}/metrics")
    counted = {one.labels["model_version"]: one.value for one in samples if one.name == "ts_inference_requests_total"}
    assert counted["2"] > 0
    promoted = promote_version(server, "penguins", "2")
    assert (promoted.replaced, default_of(server)) == ("1", "2")


def test_workers_are_scaled_and_a_stopped_version_comes_back(server, packages, store):
    deploy_version(packages["1"], server, store=str(store), workers=2)
    assert server.describe("penguins", "1").ready_workers == 2
    deploy_version(packages["2"], server, store=str(store))
    server.scale("penguins", "1", 0)
    assert server.describe("penguins", "1").workers == ()
    promote_version(server, "penguins", "1")
    assert server.describe("penguins", "1").ready_workers == 1
    with pytest.raises(InvalidValue, match="at least min_workers"):
        server.scale("penguins", "1", 2, 1)


def test_a_worker_that_dies_is_replaced_and_the_next_deploy_goes_on(server, packages, store):
    deploy_version(packages["1"], server, store=str(store))
    (worker,) = server.describe("penguins", "1").workers
    assert server.about("penguins", "1")["pid"] == worker.pid
    os.kill(worker.pid, signal.SIGKILL)
    done = deploy_version(packages["2"], server, store=str(store), keep_versions=0)
    assert (done.retired, versions_of(server)) == (("1",), {"2"})


RAISES = """
class Handler:
    def initialize(self, context):
        raise RuntimeError("there is no room in the cellar")
    def handle(self, data, context):
        return []
"""
DIES = """
import os
class Handler:
    def initialize(self, context):
        self.context = context
    def handle(self, data, context):
        os._exit(7)
"""
REFUSES = """
class Handler:
    def initialize(self, context):
        self.context = context
    def handle(self, data, context):
        raise ValueError("the sky is falling")
"""
FADES = """
from longshore.serving.torchserve_handler import TabularHandler

class Handler(TabularHandler):
    asked = 0

    def handle(self, data, context):
        # at its own address it answers, and no more once it is the default
        self.asked += bool(data[0])
        if data[0] and self.asked > 3:
            raise ValueError("no more")
        return super().handle(data, context)
"""
HANGS = """
import time
class Handler:
    def initialize(self, context):
        time.sleep(60)
    def handle(self, data, context):
        return []
"""


@pytest.fixture(scope="module")
def owls(penguins, tmp_path_factory):
    """Versions of another model."""
    directory = tmp_path_factory.mktemp("owls")
    return {
        version: packaged(directory, version, penguins, name="owls", parameters={"max_depth": int(version)})
        for version in ("1", "2", "3")
    }


@pytest.fixture
def serving(server, owls, store):
    """Version 1 serves, and at the end it does still, alone."""
    assert deploy_version(owls["1"], server, store=str(store)).version == "1"
    yield server
    assert (versions_of(server, "owls"), default_of(server, "owls")) == ({"1"}, "1")
    endpoint = promote_version(server, "owls", "1").endpoint
    card = read_card(Path(owls["1"].uri))
    probe(endpoint, card.example, card.signature.classes, access=server.inference_access)


def test_a_handler_that_raises_at_load_is_told_in_its_own_words(serving, owls, store, process, tmp_path):
    bad = broken(owls["2"], tmp_path, "8", RAISES)
    with pytest.raises(DeployError) as raised:
        deploy_version(bad, serving, store=str(store), logs=process.folder / "logs")
    assert "a worker of owls 8 died before it had loaded the model: RuntimeError: there is no room in the cellar" in (
        str(raised.value)
    )
    assert str(raised.value).endswith("Version 1 serves as before")
    assert raised.value.restored == "1"
    assert not (store / "owls-8.mar").exists()
    # without the logs it is said where to look
    with pytest.raises(DeployError, match=r"TorchServe's logs say why: model_log\.log"):
        deploy_version(bad, serving, store=str(store))


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (DIES, "Worker died"),
        (REFUSES, "Prediction failed"),
        (FADES, "/predictions/owls answered 503: Prediction failed"),
    ],
    ids=["dies", "refuses", "fades"],
)
def test_a_version_that_does_not_answer_its_example_rows_is_taken_back(serving, owls, store, tmp_path, handler, says):
    with pytest.raises(DeployError, match=f"{says}.*Version 1 serves as before"):
        deploy_version(broken(owls["2"], tmp_path, "8", handler), serving, store=str(store))


def test_one_that_does_not_load_in_time_is_taken_back(serving, owls, store, tmp_path):
    with pytest.raises(DeployError, match="not enough workers: owls 8: 0 of 1 workers are ready"):
        deploy_version(broken(owls["2"], tmp_path, "8", HANGS), serving, store=str(store), timeout_seconds=4)


def test_what_serves_under_the_version_has_to_be_this_model(serving, owls, store, penguins, tmp_path):
    other = packaged(tmp_path, "1", penguins, name="owls", parameters={"max_depth": 9})
    with pytest.raises(DeployError, match=r"owls-1\.mar is there with other content.*It serves as before"):
        deploy_version(other, serving, store=str(store))
    with pytest.raises(DeployError, match="version 1 of owls is there with other content"):
        deploy_version(other, serving)


def test_an_archive_that_climbs_out_is_refused_here_and_there(serving, owls, store, process, tmp_path):
    climbs = broken(owls["2"], tmp_path, "8", RAISES, entries={"../../climbed": b"out"})
    with pytest.raises(ModelError, match=r"holds the path '../../climbed', which leads out of it"):
        deploy_version(climbs, serving, store=str(store))
    shutil.copy(Path(climbs.uri, "model-store", "owls-8.mar"), store)
    with pytest.raises(Refused, match=r"registering owls-8\.mar: Failed to save model: owls-8\.mar \(500\)"):
        serving.register("owls-8.mar")
    assert list(process.folder.rglob("climbed")) == []


@pytest.mark.parametrize(
    ("archive", "says"),
    [
        ("owls-9.mar", r"Model not found at: owls-9\.mar \(404\)"),
        ("https://127.0.0.1:1/m.mar", r"Failed to download archive from: https://127\.0\.0\.1:1/m\.mar"),
    ],
)
def test_what_is_not_there_is_told_in_torchserves_words(serving, archive, says):
    with pytest.raises(Refused, match=says):
        serving.register(archive)


@pytest.mark.parametrize("archive", ["../m.mar", "a/m.mar", "http://h/../m.mar"])
def test_paths_are_no_names_of_archives(server, archive):
    with pytest.raises(InvalidValue, match="name of a file in the model store"):
        server.register(archive)


def test_a_wrong_version_is_refused(serving, owls, store):
    with pytest.raises(ConfigError, match="is to be version 7 of owls, and its archive is version 2"):
        deploy_version(replace(owls["2"], version="7"), serving, store=str(store))
    with pytest.raises(DigestMismatch):
        deploy_version(replace(owls["2"], digest="sha256:" + "0" * 64), serving, store=str(store))
    with pytest.raises(Refused, match=r"Model version: 7 does not exist for model: owls \(404\)"):
        serving.describe("owls", "7")
    with pytest.raises(Refused, match=r"Model version 7 does not exist for model owls \(404\)"):
        serving.set_default("owls", "7")
    with pytest.raises(Refused, match=r"Model version 1 is already registered for model owls \(409\)"):
        serving.register("owls-1.mar")


@pytest.mark.parametrize("token", ["wrong", None])
def test_a_wrong_token_is_refused_with_where_it_belongs(serving, owls, store, monkeypatch, token):
    for variable in (MANAGEMENT_TOKEN, INFERENCE_TOKEN):
        monkeypatch.delenv(variable, raising=False)
        if token is not None:
            monkeypatch.setenv(variable, token)
    stranger = ModelServer.connect(serving.management, serving.inference)
    with pytest.raises(Refused, match=f"Token Authorization failed.*{MANAGEMENT_TOKEN}, or by key_file") as raised:
        deploy_version(owls["2"], stranger, store=str(store))
    assert token is None or token not in str(raised.value)
    # and one that may manage but not predict is told before the default moves
    monkeypatch.setenv(MANAGEMENT_TOKEN, serving.access.headers()["Authorization"].removeprefix("Bearer "))
    half = ModelServer.connect(serving.management, serving.inference)
    with pytest.raises(DeployError, match="Token Authorization failed.*give a token that is allowed there.*1 serves"):
        deploy_version(owls["2"], half, store=str(store))


def test_keys_that_cannot_be_read_are_not_shown(tmp_path):
    keys = tmp_path / "key_file.json"
    keys.write_text('{"management": "secret"}')
    one = ModelServer.connect("http://127.0.0.1:1", "http://127.0.0.1:2", key_file=keys)
    with pytest.raises(ConfigError, match=r"cannot be read as TorchServe's key_file\.json") as raised:
        one.models()
    assert "secret" not in str(raised.value)


DEPLOYS = """
import sys
from longshore.spec import ModelSource
from longshore.torchserve import ModelServer, deploy_version

uri, version, digest, management, inference, keys, store = sys.argv[1:]
server = ModelServer.connect(management, inference, key_file=keys)
model = ModelSource(uri=uri, format="torchserve", name="owls", version=version, digest=digest)
print(deploy_version(model, server, store=store).version)
"""


def test_two_deploys_at_once_from_two_machines_both_end_well(serving, owls, store, process, tmp_path):
    """Each with a home of its own, so that neither knows of the other."""

    def start(number, package):
        keys = str(process.folder / "key_file.json")
        about = [package.uri, package.version, package.digest, serving.management, serving.inference, keys, str(store)]
        return subprocess.Popen(
            [sys.executable, "-c", DEPLOYS, *about],
            env={**os.environ, "LONGSHORE_HOME": str(tmp_path / f"home-{number}")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    with Load(serving, rows_of(owls["1"]), clients=1, model="owls") as load:
        # two of the same version, and one of another
        deploys = [start(number, owls[version]) for number, version in enumerate(("2", "2", "3"))]
        ended = [deploy.communicate(timeout=120) for deploy in deploys]
    assert [deploy.returncode for deploy in deploys] == [0, 0, 0], ended
    assert load.failures == []
    assert versions_of(serving, "owls") == {"1", "2", "3"}
    assert default_of(serving, "owls") in ("2", "3")
    promote_version(serving, "owls", "1")
    for version in ("2", "3"):
        unregister_version(serving, "owls", version)


def test_the_pipeline_ends_with_the_next_version_behind_the_address(server, digits, process, home, tmp_path):
    data = tmp_path / "digits.parquet"
    digits[0].to_parquet(data)
    given = {
        "data": str(data),
        "target": "digit",
        "management": server.management,
        "inference": server.inference,
        "name": "digits",
        "epochs": 8,
        "parameters": {"width": 16},
        "optimizer_parameters": {"lr": 0.01},
        "key_file": str(process.folder / "key_file.json"),
        "logs": str(process.folder / "logs"),
        "keep_versions": 1,
    }
    first = run_pipeline(torch_to_torchserve, {**given, "thresholds": {"accuracy": 0.5}})
    assert first.step("validate-model").outputs["approved"] is True
    assert first.step("update-torchserve").outputs == {"url": server.inference, "version": "1", "replaced": ""}
    second = run_pipeline(torch_to_torchserve, {**given, "seed": 1, "champion_rule": "none", "check": False})
    assert second.step("update-torchserve").outputs == {"url": server.inference, "version": "2", "replaced": "1"}
    assert (versions_of(server, "digits"), default_of(server, "digits")) == ({"1", "2"}, "2")
    answer = requests.post(
        f"{server.inference}/predictions/digits",
        data=digits[1]["photo"][0],
        headers=server.inference_access.headers(),
        timeout=60,
    )
    assert answer.json()["predictions"][0] in range(10)
    # the registry knows what serves, and where
    registry = Registry()
    assert registry.champion("digits").version == "2"
    states = {one.version: one.deployments["digits"] for one in registry.versions("digits")}
    assert (states["2"].state, states["2"].endpoint, states["1"].state) == ("serving", server.inference, "replaced")
    # and back
    promote_version(server, "digits", "1")
    assert registry.champion("digits").version == "1"
