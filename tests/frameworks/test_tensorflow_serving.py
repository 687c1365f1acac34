"""Versions and labels of a running TensorFlow Serving.

A stand-in answers, which has the rules of versions and labels from the server's sources, and TensorFlow itself to load
and answer: the server's binary is in no registry. Where LONGSHORE_TEST_TENSORFLOW_SERVING names a real one as
HOST:GRPC_PORT:REST_PORT, started with ``--max_num_load_retries=0`` and no model that anybody misses, and
LONGSHORE_TEST_TENSORFLOW_MODELS a folder that both see under the same path, the same tests ask that.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from longshore import pipelines
from longshore.client import Client, predict
from longshore.errors import DeployError, InputError, InvalidValue
from longshore.packaging import ServedModel, config_files, package_tensorflow, read_card
from longshore.packaging.model import directory_digest
from longshore.registry import Registry
from longshore.runner.run import run_pipeline
from longshore.spec import ModelSource, Release, Service, Traffic
from longshore.targets.tfserving import TensorFlowServingTarget
from longshore.tfserving import TensorFlowServing, reload, smoke_test, switch_version
from longshore.training import train_tensorflow

SERVER = Path(__file__).parents[1] / "integration" / "parts" / "tensorflow" / "server.py"
SMALL = {"epochs": 2, "parameters": {"width": 8}}


@contextlib.contextmanager
def running(folder, *options):
    """A stand-in that serves nothing yet."""
    for name, text in config_files([]).items():
        (folder / name).write_text(text)
    flags = ["--max_num_load_retries=0", f"--model_config_file={folder}/models.config"]
    flags.append(f"--monitoring_config_file={folder}/monitoring.config")
    command = [sys.executable, SERVER, *flags, *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Address of a server over gRPC, and its URL over REST."""
    if real := os.environ.get("LONGSHORE_TEST_TENSORFLOW_SERVING"):
        host, grpc, rest = real.split(":")
        yield f"{host}:{grpc}", f"http://{host}:{rest}"
        return
    with running(tmp_path_factory.mktemp("server")) as ports:
        yield f"127.0.0.1:{ports['grpc']}", f"http://127.0.0.1:{ports['rest']}"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    place = os.environ.get("LONGSHORE_TEST_TENSORFLOW_MODELS")
    if place is None:
        yield tmp_path_factory.mktemp("models")
        return
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def versions(reviews, store, tmp_path_factory):
    """Three packaged versions of a model, each of which another word decides."""
    packaged = {}
    for number in (1, 2, 3):
        directory = tmp_path_factory.mktemp("trained") / "reviews"
        trained = train_tensorflow(reviews, target="kind", text_column="review", text_length=12, seed=number, **SMALL)
        source = ModelSource(
            uri=str(directory), format="tensorflow", name="reviews", digest=trained.save(directory), version=str(number)
        )
        packaged[number] = package_tensorflow(source, str(store), name="reviews", version=str(number))
    return packaged


@pytest.fixture
def clean(server):
    """The server with nothing loaded."""
    with TensorFlowServing(server[0]) as asked:
        asked.configure([])
        yield asked


def card_of(model):
    return read_card(Path(model.uri))


def rows_of(model):
    return [{"review": row["review"] or "", "nights": float(row["nights"])} for row in card_of(model).example]


def test_versions_stand_side_by_side_and_labels_move(server, clean, versions):
    address, rest = server
    first = switch_version([address], versions[1], rest_url=rest)
    assert (first.replaced, first.endpoint.model) == (None, "reviews/labels/stable")
    switch_version([address], versions[2], label="canary", rest_url=rest)
    assert {one.version: one.state for one in clean.status("reviews")} == {1: "AVAILABLE", 2: "AVAILABLE"}
    assert (clean.labelled("reviews", "stable"), clean.labelled("reviews", "canary")) == (1, 2)
    moved = switch_version([address], versions[2], rest_url=rest)
    assert (moved.replaced, clean.labelled("reviews", "stable")) == (1, 2)
    assert clean.labelled("reviews", "canary") is None
    # the way back is short
    assert {one.version for one in clean.status("reviews") if one.state == "AVAILABLE"} == {1, 2}
    rows = rows_of(versions[2])
    for protocol in ("tensorflow", "grpc-tensorflow"):
        answers = predict(moved.endpoint, rows, protocol=protocol)
        assert {row["predict"] for row in answers} <= {"good", "bad"}
    switch_version([address], versions[3], keep_previous=False)
    states = {one.version: one.state for one in clean.status("reviews")}
    assert (states[3], {states[1], states[2]} <= {"END", "UNLOADING"}) == ("AVAILABLE", True)


def test_no_request_fails_while_a_label_moves(server, clean, versions):
    address, rest = server
    endpoint = switch_version([address], versions[1], rest_url=rest).endpoint
    rows, stop, asked, failed = rows_of(versions[1]), threading.Event(), [0, 0], []

    def ask(number, protocol):
        with Client(endpoint, protocol=protocol) as client:
            while not stop.is_set():
                try:
                    client.predict(rows)
                    asked[number] += 1
                except Exception as error:
                    failed.append(error)

    threads = [
        threading.Thread(target=ask, args=(number, protocol))
        for number, protocol in enumerate(("tensorflow", "grpc-tensorflow"))
    ]
    for thread in threads:
        thread.start()
    try:
        for number in (2, 1, 3):
            before = list(asked)
            switch_version([address], versions[number], keep_previous=False)
            while not failed and any(now <= was for now, was in zip(asked, before, strict=True)):
                stop.wait(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == []
    assert clean.labelled("reviews", "stable") == 3


def test_a_version_that_never_becomes_available_changes_nothing(server, clean, versions, store):
    address, _ = server
    switch_version([address], versions[1])
    broken = store / "reviews" / "7"
    shutil.copytree(versions[2].uri, broken)
    (broken / "saved_model.pb").write_bytes(b"\x00 this is no message")
    bad = ModelSource(uri=str(broken), format="tensorflow", name="reviews", version="7")
    try:
        for label in ("canary", "stable"):
            with pytest.raises(DeployError) as raised:
                switch_version([address], bad, label=label)
            assert f"{address}: reviews, version 7, could not be loaded: " in str(raised.value)
            # TensorFlow's own words
            assert "saved_model.pb" in str(raised.value)
            assert "As before is served: reviews 1 (stable)" in str(raised.value)
            assert clean.labelled("reviews", "stable") == 1
            assert clean.labelled("reviews", "canary") is None
        # once it is whole it can be loaded, although it was refused before
        (broken / "saved_model.pb").write_bytes(Path(versions[2].uri, "saved_model.pb").read_bytes())
        switch_version([address], bad, label="canary")
        assert clean.labelled("reviews", "canary") == 7
    finally:
        clean.configure([])
        shutil.rmtree(broken)


def test_a_model_without_the_signature_changes_nothing(server, clean, versions, store):
    import tensorflow as tf

    address, _ = server
    switch_version([address], versions[1])

    class Plain(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
        def twice(self, x):
            return {"y": 2 * x}

    plain = Plain()
    tf.saved_model.save(plain, str(store / "reviews" / "8"), signatures={"twice": plain.twice})
    bad = ModelSource(uri=str(store / "reviews" / "8"), format="tensorflow", name="reviews", version="8")
    with pytest.raises(DeployError, match=r"no signature 'serving_default' \(there is .*twice\).*reviews 1 \(stable\)"):
        switch_version([address], bad)
    assert clean.labelled("reviews", "stable") == 1


def test_what_is_not_there_is_said(server, clean, versions):
    address, _ = server
    switch_version([address], versions[1])
    gone = ModelSource(uri=versions[1].uri[:-1] + "9", format="tensorflow", name="reviews", version="9")
    with pytest.raises(DeployError, match=r"it has not found reviews, version 9, at .*reviews/9\. As before is served"):
        switch_version([address], gone, timeout_seconds=1)
    with pytest.raises(InvalidValue, match="version 1 is what serves: a canary is another one"):
        switch_version([address], versions[1], label="canary")
    with pytest.raises(DeployError, match="UNAVAILABLE"):
        switch_version(["127.0.0.1:1"], versions[1])


def test_the_server_refuses_a_label_on_what_is_not_loaded(server, clean, versions):
    model = ServedModel(name="reviews", base_path=str(Path(versions[1].uri).parent), versions=(1,))
    reload([server[0]], [model])
    early = ServedModel(name="reviews", base_path=model.base_path, versions=(1, 2), labels={"canary": 2})
    with pytest.raises(
        DeployError, match=r"FAILED_PRECONDITION: Request to assign label to version 2 of model reviews"
    ):
        clean.configure([early])
    # together with the rest
    assert [one.version for one in clean.status("reviews") if one.state == "AVAILABLE"] == [1]
    reload([server[0]], [early])
    assert clean.labelled("reviews", "canary") == 2


def test_several_servers_and_other_models(server, clean, versions, tmp_path, store):
    """Where one of two servers cannot load it, both serve as before."""
    if os.environ.get("LONGSHORE_TEST_TENSORFLOW_SERVING"):
        pytest.skip("one server is named, and two are needed")
    other = ServedModel(name="other", base_path=str(Path(versions[1].uri).parent), latest=1)
    with running(tmp_path) as ports:
        addresses = [server[0], f"127.0.0.1:{ports['grpc']}"]
        switch_version(addresses, versions[1], others=[other])
        assert [one.state for one in clean.status("other")].count("AVAILABLE") == 1
        told = []

        def refuse(at):
            told.append(at)
            if at == addresses[1]:
                raise InputError("it answers otherwise")

        model = ServedModel(name="reviews", base_path=other.base_path, versions=(2,), labels={"stable": 2})
        with pytest.raises(DeployError, match="it answers otherwise"):
            reload(addresses, [model, other], check=refuse)
        assert told == addresses
        for address in addresses:
            with TensorFlowServing(address) as asked:
                assert asked.labelled("reviews", "stable") == 1
                assert [one.state for one in asked.status("other")].count("AVAILABLE") == 1


def test_a_server_that_starts_with_what_is_broken_says_why(tmp_path, versions):
    """What the pods of the platform ``tensorflow-serving`` depend on."""
    shutil.copytree(versions[1].uri, tmp_path / "reviews" / "1")
    (tmp_path / "reviews" / "1" / "saved_model.pb").write_bytes(b"\x00 this is no message")
    served = ServedModel(name="reviews", base_path=str(tmp_path / "reviews"), versions=(1,))
    (tmp_path / "models.config").write_text(config_files([served])["models.config"])
    command = [sys.executable, SERVER, f"--model_config_file={tmp_path}/models.config"]
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 255
    assert "Failed to start server. Error: UNKNOWN: 1 servable(s) did not become available" in done.stdout
    assert "saved_model.pb" in done.stdout


def test_what_is_in_a_pod_works_together(tmp_path, versions):
    """The loader brings the versions, the server starts with what it wrote, and the watcher tells of one that fails."""
    broken = tmp_path / "broken"
    shutil.copytree(versions[2].uri, broken)
    (broken / "saved_model.pb").write_bytes(b"\x00 this is no message")
    service = Service(name="reviews")
    remote = [replace(one, uri=f"s3://any/{one.version}") for one in (versions[1], versions[2])]
    stable = Release(service=service, model=remote[0])
    pod = TensorFlowServingTarget().pod(
        Release(service=service, model=remote[1], traffic=Traffic(percent=0)).next_to(stable)
    )
    (loader,), (server, watcher) = pod["initContainers"], pod["containers"]
    places = {"s3://any/1": versions[1].uri, "s3://any/2": str(broken), versions[2].digest: directory_digest(broken)}

    places |= {"=/models": f"={tmp_path}/models", "=/tmp/loaded": f"={tmp_path}/loaded"}

    def here(words):
        for there, local in places.items():
            words = [word.replace(there, local) for word in words]
        return words

    subprocess.run([sys.executable, *loader["command"][1:], *here(loader["args"])], check=True)
    known = ("--model_config_file", "--monitoring_config_file", "--max_num_load_retries", "--allow_version_labels")
    flags = [word for word in here(server["args"]) if word.startswith(known)]
    with subprocess.Popen([sys.executable, SERVER, *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            rest = f"http://127.0.0.1:{json.loads(process.stdout.readline())['rest']}"
            watch = [sys.executable, *watcher["command"][1:], *here(watcher["args"])]
            watch = [word.replace("http://127.0.0.1:8501", rest) for word in watch]
            done = subprocess.run(watch, check=False, capture_output=True, text=True, timeout=60)
            assert done.returncode == 1
            assert "TensorFlow Serving cannot load reviews, version 2: " in done.stderr
            assert "saved_model.pb" in done.stderr
            assert not (tmp_path / "loaded").exists()
            # what is asked for its readiness: the version that is there, and the one that is not
            path = server["readinessProbe"]["httpGet"]["path"]
            assert requests.get(f"{rest}{path}", timeout=10).status_code == 404
            assert requests.get(f"{rest}{path.replace('/2/', '/1/')}", timeout=10).status_code == 200
            watch = [word.replace("--versions=1,2", "--versions=1") for word in watch]
            with subprocess.Popen(watch) as waiting:
                while not (tmp_path / "loaded").exists():
                    assert waiting.poll() is None
                waiting.kill()
        finally:
            process.kill()


def test_the_smoke_test_of_a_card(server, clean, versions):
    endpoint = switch_version([server[0]], versions[1], rest_url=server[1]).endpoint
    smoke_test(card_of(versions[1]))(endpoint)
    wrong = json.loads(card_of(versions[1]).to_json())
    wrong["signature"]["classes"] = ["neither", "nor"]
    card = type(card_of(versions[1])).from_json(json.dumps(wrong), where="card")
    with pytest.raises(DeployError, match="which is no class of the model"):
        smoke_test(card)(endpoint)


def test_the_pipeline_serves_version_after_version(server, clean, home, reviews, store, tmp_path):
    address, rest = server
    reviews.to_csv(tmp_path / "reviews.csv", index=False)
    given = {
        "data": str(tmp_path / "reviews.csv"),
        "target": "kind",
        "name": "opinions",
        "text_column": "review",
        "text_length": 12,
        "epochs": 4,
        "parameters": {"width": 8},
        "thresholds": {"accuracy": 0.0},
        "repository": str(store),
        "servers": [address],
        "rest_url": rest,
        "max_requests": 20,
    }
    pipeline = pipelines.get("tensorflow_versions")
    first = run_pipeline(pipeline, given)
    assert first.step("deploy-tfserving").outputs["revision"] == "opinions-1"
    assert (clean.labelled("opinions", "stable"), clean.labelled("opinions", "canary")) == (1, None)
    champion = Registry().get("opinions", "champion")
    assert (champion.version, champion.uri) == ("1", str(store / "opinions" / "1"))
    assert first.step("predict-endpoint").outputs["requests"] == 20
    run_pipeline(pipeline, {**given, "seed": 1, "champion_rule": "none"})
    assert (clean.labelled("opinions", "stable"), clean.labelled("opinions", "canary")) == (2, None)
    # the way back
    assert {one.version for one in clean.status("opinions") if one.state == "AVAILABLE"} == {1, 2}
    assert Registry().get("opinions", "champion").version == "2"
