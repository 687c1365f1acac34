"""A packaged model inside Seldon Core's own microservice, asked by Seldon's own client."""

import contextlib
import json
import os
import pickle
import shutil
from pathlib import Path

import grpc
import pytest
from harness.local import alive
from harness.seldon import microservice, run_client, serving
from harness.serving import wait_for

from longshore.monitoring import assess, bin_counts, read_metrics, summarise
from longshore.packaging import read_card
from longshore.packaging.model import MODEL_FILE, directory_digest
from longshore.serving import Predictor

CALLS = Path(__file__).parent / "parts" / "seldon_calls.py"
NAMES = ["island", "bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g", "sex", "year"]
ROWS = [["Torgersen", 39.1, 18.7, 181, 3750, "male", 2007], ["Biscoe", 50.0, 15.2, 220, 5000, None, 2009]]
CLASSES = ["Adelie", "Chinstrap", "Gentoo"]
TAGS = {
    "model": "penguins",
    "version": "3",
    "revision": "penguins-1",
    "unit": "penguins",
    "predictor": "main",
    "predictor_version": "v7",
}
TRANSPORTS = ("rest", "grpc")


@pytest.fixture(scope="module")
def penguins(penguins_model):
    return Predictor.load(penguins_model, name="p", digest=None, version=None, revision="r")


@pytest.fixture(scope="module")
def iris(iris_model):
    return Predictor.load(iris_model, name="i", digest=None, version=None, revision="r")


@pytest.fixture(scope="module")
def ask():
    def call(server, *calls):
        """What Seldon's client makes of calls over REST and then of the same over gRPC."""
        addresses = {"rest": server.port, "grpc": server.grpc_port}
        given = [
            {"transport": transport, "address": f"127.0.0.1:{port}", "do": "predict", **one}
            for transport, port in addresses.items()
            for one in calls
        ]
        return run_client(CALLS, json.dumps(given))

    return call


def test_seldons_client_gets_what_the_model_says(seldon, ask, penguins):
    done = penguins.predict(ROWS, probabilities=True)
    turned = [row[::-1] for row in ROWS]
    answers = ask(
        seldon,
        {"data": ROWS, "payload_type": "ndarray"},
        {"data": turned, "names": NAMES[::-1], "payload_type": "ndarray"},
        {"raw_data": {"data": {"ndarray": ROWS}, "meta": {"tags": {"probabilities": True, "explain": True}}}},
        {"json_data": {"instances": ROWS, "parameters": {"probabilities": True}}},
        {"str_data": json.dumps({"instances": ROWS})},
        {"do": "microservice", "method": "predict", "data": ROWS, "payload_type": "ndarray"},
    )
    assert [answer["message"] for answer in answers if not answer["success"]] == []
    for plain, by_name, explained, v1, text, direct in (
        [answer["response"] for answer in answers[:6]],
        [answer["response"] for answer in answers[6:]],
    ):
        for answer in (plain, by_name, direct):
            assert answer["data"]["ndarray"] == done.values
            assert answer["meta"]["tags"] == TAGS
            assert answer["meta"]["requestPath"] == {"penguins": "longshore-seldon:0.1.0"}
        assert explained["data"]["names"] == CLASSES
        assert explained["data"]["ndarray"] == [pytest.approx(shares) for shares in done.probabilities]
        told = explained["meta"]["tags"]["explanations"]
        for one, shares in zip(told, done.probabilities, strict=True):
            assert one["base"] + sum(one["contributions"].values()) == pytest.approx(max(shares))
        assert v1["jsonData"] == {
            "predictions": done.values,
            "probabilities": [pytest.approx(shares) for shares in done.probabilities],
            "classes": CLASSES,
        }
        assert json.loads(text["strData"]) == {"predictions": done.values}


def test_numbers_come_back_in_the_kind_of_tensor_that_was_sent(seldon_iris, ask, iris):
    rows = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]
    shares = iris.predict(rows, probabilities=True).probabilities
    # TensorFlow is not installed, and its tensors are taken all the same
    dims = [{"size": "2"}, {"size": "4"}]
    floats = {"dtype": "DT_FLOAT", "tensorShape": {"dim": dims}, "floatVal": [cell for row in rows for cell in row]}
    answers = ask(
        seldon_iris,
        {"data": rows, "dtype": "float64", "payload_type": "tensor"},
        {"data": rows, "dtype": "float64", "payload_type": "ndarray"},
        {"raw_data": {"data": {"tftensor": floats}}},
        {"raw_data": {"data": {"ndarray": rows}, "meta": {"tags": {"probabilities": False}}}},
    )
    assert [answer["message"] for answer in answers if not answer["success"]] == []
    flat = [cell for row in shares for cell in row]
    for tensor, ndarray, tftensor, classes in (
        [answer["response"]["data"] for answer in answers[:4]],
        [answer["response"]["data"] for answer in answers[4:]],
    ):
        # the node's parameter 'method' has it give probabilities
        assert tensor["names"] == ndarray["names"] == ["0", "1", "2"]
        assert (tensor["tensor"]["shape"], tensor["tensor"]["values"]) == ([2, 3], flat)
        assert ndarray["ndarray"] == shares
        assert tftensor["tftensor"]["doubleVal"] == flat
        assert classes["ndarray"] == [0, 2]


def test_a_request_that_does_not_fit_is_refused_in_words_and_by_its_field(seldon, seldon_iris, ask):
    calls = {
        "row 0, column 'bill_length_mm': expected a number, got a string ('wide')": {
            "data": [["Torgersen", "wide", *ROWS[0][2:]]]
        },
        "column 'yaer' is unknown: did you mean 'year'?": {"data": ROWS, "names": [*NAMES[:6], "yaer"]},
        "row 0 has 2 values, 7 are needed": {"data": [["Torgersen", 39.1]]},
        "there is 'binData'": {"raw_data": {"binData": "aGVsbG8="}},
        "'meta.tags.explain' must be true or false": {
            "raw_data": {"data": {"ndarray": ROWS}, "meta": {"tags": {"explain": 3}}}
        },
        "'jsonData' must hold a request of V1 or V2": {"json_data": {"rows": []}},
    }
    answers = ask(seldon, *({"payload_type": "ndarray", **one} for one in calls.values()))
    for words, rest, rpc in zip(calls, answers[: len(calls)], answers[len(calls) :], strict=True):
        assert not rest["success"]
        assert not rpc["success"]
        assert rest["message"].startswith("400")
        told = rest["response"]["status"]
        assert (told["code"], told["reason"], told["status"]) == (400, "MICROSERVICE_BAD_DATA", 1)
        assert words in told["info"]
        assert "INVALID_ARGUMENT" in rpc["message"]
        assert words in rpc["message"]
    # read as text
    answer = seldon_iris.post("/api/v1.0/predictions", {"data": {"tftensor": {"dtype": "DT_FLOAT", "floatVal": [1]}}})
    assert (answer.status_code, answer.json()["status"]["info"]) == (
        400,
        (
            "'data.tftensor.shape' is [] and there are 1 values: it must be [rows, 4], the columns being sepal_length, "
            "sepal_width, petal_length, petal_width"
        ),
    )
    answer = seldon_iris.post("/api/v1.0/predictions", data=b'{"data"')
    assert (answer.status_code, "the body is not JSON" in answer.text) == (400, True)


def test_rewards_are_counted_by_predictor_and_version(seldon, ask):
    other = {"meta": {"tags": {"version": "4", "revision": "p-2", "predictor": "canary", "predictor_version": "v8"}}}
    own = {"data": {"ndarray": ["Adelie", "Gentoo"]}, "meta": {"tags": TAGS}}
    request = {"data": {"names": NAMES, "ndarray": ROWS}}
    truth = {"data": {"ndarray": ["Adelie", "Adelie"]}}

    own_labels = {"predictor_name": "main", "predictor_version": "v7", "version": "3", "model": "penguins"}
    others = {"predictor_name": "canary", "predictor_version": "v8", "version": "4", "revision": "p-2"}

    def counted():
        return {
            "feedback": seldon.counted("longshore_feedback_total", **own_labels),
            "rewards": seldon.counted("longshore_feedback_reward_total", **own_labels),
            "penalties": seldon.counted("longshore_feedback_penalty_total", **own_labels),
            "right": seldon.counted("longshore_feedback_rows_total", correct="true", **own_labels),
            "wrong": seldon.counted("longshore_feedback_rows_total", correct="false", **own_labels),
            "others' feedback": seldon.counted("longshore_feedback_total", **others),
            "others' rewards": seldon.counted("longshore_feedback_reward_total", **others),
            "Seldon's own": seldon.counted("seldon_api_model_feedback_total", predictor_version="v7"),
        }

    before = counted()
    answers = ask(
        seldon,
        {"do": "feedback", "request": request, "response": own, "truth": truth, "reward": 1.0},
        {"do": "feedback", "request": request, "response": own, "reward": 0.0},
        {"do": "feedback", "request": request, "response": own, "reward": -0.5},
        {"do": "feedback", "request": request, "response": other, "reward": 0.25},
        {"do": "microservice_feedback", "request": request, "response": own, "reward": 1.0},
    )
    assert [answer["message"] for answer in answers if not answer["success"]] == []
    assert answers[0]["response"]["meta"]["tags"]["revision"] == "penguins-1"
    assert {name: value - before[name] for name, value in counted().items()} == {
        "feedback": 8,
        "rewards": 4,
        "penalties": 1,
        "right": 2,
        "wrong": 2,
        # what came here by chance is counted for whom it is about
        "others' feedback": 2,
        "others' rewards": 0.5,
        # which leaves out those without a reward, and takes all for its own
        "Seldon's own": 8,
    }

    (rest, rpc) = ask(
        seldon,
        {"do": "feedback", "response": own, "truth": {"data": {"ndarray": ["Adelie"]}}, "reward": 1.0},
    )
    words = "'truth' has 1 values, and 'response' has 2"
    assert words in rest["response"]["status"]["info"]
    assert words in rpc["message"]
    refused = seldon.post("/api/v1.0/feedback", {"reward": "NaN"})
    assert (refused.status_code, refused.json()["status"]["info"]) == (400, "'reward' must be a finite number")


def test_metrics_are_those_of_all_workers(seldon, ask, penguins_model):
    labels = {"model": "penguins", "version": "3", "revision": "penguins-1"}

    def counted():
        return {
            (name, way): seldon.counted(f"longshore_prediction_{name}", protocol=way, **labels)
            for name in ("duration_seconds_count", "errors_total")
            for way in ("seldon", "grpc-seldon")
        }

    before = counted()
    assert seldon.counted("longshore_prediction_errors_total", kind="model", **labels) == 0
    calls = [{"data": ROWS, "payload_type": "ndarray"}] * 5 + [{"data": [["x"]], "payload_type": "ndarray"}]
    ask(seldon, *calls)
    added = {name: value - before[name] for name, value in counted().items()}
    assert added == {
        ("duration_seconds_count", "seldon"): 6,
        ("duration_seconds_count", "grpc-seldon"): 6,
        ("errors_total", "seldon"): 1,
        ("errors_total", "grpc-seldon"): 1,
    }
    # what longshore's monitoring reads of its own servers, it reads here
    samples = read_metrics(f"http://127.0.0.1:{seldon.metrics_port}/prometheus")
    stats = summarise(samples, revision="penguins-1")
    assert stats.requests >= 12
    counts = bin_counts(samples, revision="penguins-1", version="3")
    report = assess(read_card(penguins_model).baseline, counts)
    assert report.rows >= 20


def test_it_tells_what_it_serves(seldon, penguins_model):
    health = seldon.get("/health/status").json()
    assert health["jsonData"] == {**TAGS, "digest": directory_digest(penguins_model)}
    about = seldon.get("/api/v1.0/metadata").json()
    assert (about["name"], about["versions"], about["platform"]) == ("penguins", ["3"], "sklearn")
    assert about["custom"] == {"revision": "penguins-1", "digest": directory_digest(penguins_model)}
    assert {one["name"]: one["datatype"] for one in about["inputs"]}["year"] == "INT64"
    with grpc.insecure_channel(f"127.0.0.1:{seldon.grpc_port}") as channel:
        told = channel.unary_unary("/seldon.protos.Seldon/ModelMetadata")(b"", timeout=30)
    assert b"penguins-1" in told


def test_it_ends_when_it_is_told_to(iris_model, tmp_path):
    """All of its processes do; that of gRPC would keep a container until it is killed."""
    with serving(tmp_path / "log", "--grpc-workers=2", parameters={"model_uri": str(iris_model)}) as server:
        server.process.terminate()
        assert server.process.wait(30) == 0
        wait_for(lambda: not group(server.process.pid))


def group(leader: int) -> list[int]:
    """Processes of a group that live."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and os.getpgid(int(entry.name)) == leader and alive(int(entry.name)):
                found.append(int(entry.name))
    return found


def ends(server):
    assert server.process.wait(60) != 0
    return server.log.read_text().strip()


def test_a_model_that_was_tampered_with_is_refused(penguins_model, tmp_path):
    changed = shutil.copytree(penguins_model, tmp_path / "changed")
    digest = directory_digest(changed)
    (changed / MODEL_FILE).write_bytes(pickle.dumps(pytest.fail))
    given = {"model_uri": str(changed), "digest": digest}
    with microservice(tmp_path / "log", parameters=given) as server:
        said = ends(server).splitlines()[-1]
    assert "does not have the recorded content" in said
    assert "is not loaded" in said


def test_a_model_that_cannot_be_loaded_ends_the_microservice(penguins_model, tmp_path):
    """Seldon's own code takes an AttributeError for a class without load, and serves nothing."""
    import hashlib

    broken = shutil.copytree(penguins_model, tmp_path / "broken")
    content = b"csklearn.base\nNoSuchThing\n."
    (broken / MODEL_FILE).write_bytes(content)
    card = json.loads((broken / "model.json").read_text())
    card["files"][MODEL_FILE] = "sha256:" + hashlib.sha256(content).hexdigest()
    (broken / "model.json").write_text(json.dumps(card))
    with microservice(tmp_path / "log", parameters={"model_uri": str(broken)}) as server:
        assert "could not be loaded (AttributeError" in ends(server)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"modelUri": "x"}, "parameters = 'modelUri' is not valid: there is model_uri, name"),
        ({}, "/mnt/models: no such directory"),
    ],
)
def test_parameters_that_are_not_valid_are_told_by_name(tmp_path, parameters, words):
    with microservice(tmp_path / "log", parameters=parameters) as server:
        assert words in ends(server).splitlines()[-1]
