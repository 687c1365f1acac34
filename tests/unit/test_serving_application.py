"""What is answered whatever the framework: routes, versions, tensors of all columns, ids, and time."""

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from longshore.errors import InvalidValue
from longshore.packaging import LoadedModel, save_model
from longshore.serving import Application, Predictor, protocol
from longshore.serving.messages import Request
from longshore.serving.models import Models
from longshore.serving.refusals import RequestError
from longshore.training.fit import train_sklearn

NAMES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]
INFER, PREDICT = "/v2/models/iris/infer", "/v1/models/iris:predict"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    iris = load_iris(as_frame=True)
    table = iris.data.set_axis(NAMES, axis="columns")
    table["species"] = [int(index) for index in iris.target]
    card = train_sklearn(table, target="species", estimator="sklearn.linear_model.LogisticRegression").card
    model = LogisticRegression(max_iter=1000).fit(table[NAMES], table["species"])
    path = tmp_path_factory.mktemp("models") / "iris"
    save_model(path, model, card)
    return path


def load(directory, **changes) -> Predictor:
    return Predictor.load(
        directory, **{"name": "iris", "digest": None, "version": None, "revision": "iris-1", **changes}
    )


@pytest.fixture(scope="module")
def predictor(directory):
    return load(directory)


@pytest.fixture
def application(predictor):
    return Application.of(predictor)


def ask(application, method, path, content=None, headers=()):
    body = content if isinstance(content, bytes) else b"" if content is None else json.dumps(content).encode()
    answer = application.answer(Request(method, path, dict(headers), body))
    return answer, dict(answer.headers)


def told(application, method, path, content=None, status=200):
    answer, _ = ask(application, method, path, content)
    assert answer.status == status, answer.body
    return json.loads(answer.body)


def samples(application, name):
    families = text_string_to_metric_families(application.metrics.render().decode())
    return [(s.labels, s.value) for family in families for s in family.samples if s.name == name]


def tensor(rows, **changes):
    flat = [value for row in rows for value in row]
    return {"name": "input-0", "shape": [len(rows), 4], "datatype": "FP64", "data": flat, **changes}


def predicted(application, *inputs):
    (output,) = told(application, "POST", INFER, {"inputs": list(inputs)})["outputs"]
    return output["data"]


def test_one_tensor_may_hold_all_columns(application):
    assert told(application, "POST", PREDICT, {"instances": ROWS})["predictions"] == [0, 2]
    assert predicted(application, tensor(ROWS)) == [0, 2]
    assert predicted(application, tensor(ROWS, data=ROWS)) == [0, 2]
    assert predicted(application, tensor([[5, 3, 1, 0]])) == [0]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"data": [1.0] * 7}, "shape [2, 4] does not fit its 7 values, row by row"),
        ({"data": [[1.0] * 4, [1.0] * 3]}, "shape [2, 4] does not fit its 4 values, row by row"),
        ({"data": [[1.0] * 4, 7]}, "shape [2, 4] does not fit its 4 values"),
        ({"shape": ["2", 4]}, "shape ['2', 4] does not fit its 8 values"),
        ({"shape": [2, 3]}, "send one tensor for each column, of shape [n] or [n, 1], or one for all, of shape [n, 4]"),
        ({"data": [1.0] * 6 + ["x", 2.0]}, "row 1, column 'petal_length': expected a number, got a string ('x')"),
        ({"data": [1.0] * 6 + [True, 2.0]}, "row 1, column 'petal_length': expected a number, got a boolean"),
        ({"data": []}, "shape [2, 4] does not fit its 0 values"),
        ({"shape": [0, 4], "data": []}, "there are no rows: send at least one"),
        ({"data": "5.1"}, "'data' must be an array"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(application, changes, why):
    assert why in told(application, "POST", INFER, {"inputs": [tensor(ROWS, **changes)]}, 400)["error"]


def test_a_large_tensor_is_read_as_an_array_and_answered_the_same():
    rows = np.random.default_rng(0).random((3000, 4)).tolist()
    body = json.dumps({"id": "7", "parameters": {"a": [1, {"b": 2}]}, "inputs": [tensor(rows)]}).encode()
    content = protocol.parse_v2(body)
    data = content["inputs"][0].pop("data")
    assert isinstance(data, np.ndarray)
    assert data.reshape(3000, 4).tolist() == rows
    plain = json.loads(body)
    del plain["inputs"][0]["data"]
    assert content == plain


@pytest.mark.parametrize("value", [None, True, "x", {}, 1e999])
def test_a_large_tensor_with_other_values_is_read_as_a_small_one_is(application, value):
    flat = [1.0] * 12_000
    flat[5] = value
    body = json.dumps({"inputs": [tensor([[0.0] * 4] * 3000, data=flat)]}).replace("Infinity", "1e999").encode()
    small = tensor(ROWS, data=[1.0] * 5 + [value] + [1.0] * 2)
    answers = [
        ask(application, "POST", INFER, content)[0]
        for content in (body, json.dumps({"inputs": [small]}).replace("Infinity", "1e999").encode())
    ]
    assert answers[0].status == answers[1].status >= 400
    if answers[0].status == 400:
        assert json.loads(answers[0].body)["error"][:40] == json.loads(answers[1].body)["error"][:40]


@pytest.mark.parametrize("content", [b"[" * 40_000, b'{"inputs": 7' + b" " * 40_000 + b"}", b" " * 40_000])
def test_a_large_body_that_is_no_request_is_refused(application, content):
    assert "error" in told(application, "POST", INFER, content, 400)


def test_what_has_read_a_large_body_reads_the_next(application):
    bodies = []
    for size in (3000, 4000, 200_000):
        rows = np.random.default_rng(size).random((size, 4))
        bodies.append((json.dumps({"inputs": [tensor(rows.tolist())]}).encode(), rows))
    for body, rows in (*bodies, (b"[" * 40_000, None), *bodies[::-1]):
        if rows is None:
            told(application, "POST", INFER, body, 400)
        else:
            assert np.array_equal(protocol.parse_v2(body)["inputs"][0]["data"], rows.ravel())
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda index: protocol.parse_v2(bodies[index % 2][0])["inputs"][0]["data"], range(16)))
    assert all(np.array_equal(data, bodies[index % 2][1].ravel()) for index, data in enumerate(found))


def test_columns_as_tensors_and_null_values_come_to_the_same(application):
    columns = [
        {"name": name, "shape": [2, 1], "datatype": "FP64", "data": [row[index] for row in ROWS]}
        for index, name in enumerate(NAMES)
    ]
    assert predicted(application, *columns) == [0, 2]
    wide = [{**column, "shape": [2000], "data": column["data"] * 1000} for column in columns]
    assert predicted(application, *wide) == [0, 2] * 1000
    # the model itself has no use for a missing value
    broken = told(application, "POST", INFER, {"inputs": [tensor(ROWS, data=[None] * 8)]}, 500)
    assert "the model failed" in broken["error"]


class Answering:
    """A model that answers what it is told to, however many rows it is asked."""

    def __init__(self, values, shares):
        self.values, self.shares = values, shares

    def predict(self, rows):
        return self.values[: len(rows)]

    def predict_proba(self, rows):
        return self.shares[: len(rows)]


@pytest.mark.parametrize(
    "values",
    [
        np.arange(600) % 3,
        np.random.default_rng(0).normal(0, 1e5, 600),
        np.full(1200, 0.1 + 0.2)[::2],
        np.full(600, 0.1, np.float32),
        np.array(["a", "b"] * 300),
        np.array([True, False] * 300),
    ],
    ids=["whole", "float", "apart", "float32", "strings", "booleans"],
)
def test_many_rows_are_answered_as_each_is(directory, predictor, values):
    shares = np.random.default_rng(1).random((600, 3))
    loaded = LoadedModel(model=Answering(values, shares), card=predictor.card, directory=directory)
    application = Application.of(Predictor(loaded, name="iris", digest=None, version=None, revision="iris-1"))
    rows = [ROWS[0]] * 600
    parameters = {"probabilities": True}
    v1 = told(application, "POST", PREDICT, {"instances": rows, "parameters": parameters})
    wanted = [{"name": "predict"}, {"name": "predict_proba"}]
    v2 = told(application, "POST", INFER, {"inputs": [tensor(rows)], "outputs": wanted})
    # too few rows to be answered as an array
    few = told(application, "POST", PREDICT, {"instances": rows[:100], "parameters": parameters})
    assert v1["predictions"] == values.tolist()
    assert v1["predictions"][:100] == few["predictions"]
    assert v1["probabilities"] == shares.tolist()
    assert v1["probabilities"][:100] == few["probabilities"]
    assert [output["data"] for output in v2["outputs"]] == [values.tolist(), shares.ravel().tolist()]
    assert application.answer(Request("POST", PREDICT, body=json.dumps({"instances": rows}).encode())).body.startswith(
        b'{"predictions":[' + json.dumps(values[0].item()).encode() + b","
    )


def binary(rows, **more):
    raw = np.array(rows, "<f4").tobytes()
    described = tensor(rows, datatype="FP32", parameters={"binary_data_size": len(raw)})
    del described["data"]
    head = json.dumps({"inputs": [described], **more}).encode()
    return head + raw, {b"inference-header-content-length": str(len(head)).encode()}


def test_binary_data_is_taken_and_given(application):
    body, headers = binary(ROWS)
    answer, _ = ask(application, "POST", INFER, body, headers)
    assert json.loads(answer.body)["outputs"][0]["data"] == [0, 2]
    body, headers = binary(ROWS, parameters={"binary_data_output": True})
    answer, given = ask(application, "POST", INFER, body, headers)
    assert given["content-type"] == "application/octet-stream"
    length = int(given["inference-header-content-length"])
    (output,) = json.loads(answer.body[:length])["outputs"]
    assert (output["datatype"], output["parameters"]) == ("INT64", {"binary_data_size": 16})
    assert np.frombuffer(answer.body[length:], "<i8").tolist() == [0, 2]
    body, headers = binary([[float("inf")] * 4])
    answer, _ = ask(application, "POST", INFER, body, headers)
    assert answer.status == 400
    assert b"not a finite number" in answer.body


def test_versions_are_served_side_by_side(directory):
    metrics = load(directory).metrics
    one, ten, nine = (load(directory, version=version, metrics=metrics) for version in ("1", "10", "9"))
    application = Application.of(one, ten, nine)
    # as numbers, not as texts
    assert application.models.default is ten
    about = told(application, "GET", "/v2/models/iris")
    assert about["versions"] == ["1", "10", "9"]
    answered = told(application, "POST", "/v2/models/iris/versions/9/infer", {"inputs": [tensor(ROWS)]})
    assert answered["model_version"] == "9"
    told(application, "POST", "/v1/models/iris/versions/1:predict", {"instances": ROWS})
    told(application, "POST", PREDICT, {"instances": ROWS})
    told(application, "GET", "/v2/models/iris/versions/1/ready")
    missing = told(application, "POST", "/v2/models/iris/versions/2/infer", {"inputs": [tensor(ROWS)]}, 404)
    assert missing["error"] == ("there is no version '2' of 'iris' here: this server serves version '1', '10', '9'")
    done = {
        (labels["version"], labels["protocol"]): value
        for labels, value in samples(application, "longshore_prediction_duration_seconds_count")
        if value
    }
    # a version that there is not is counted for the default one
    assert done == {("9", "v2"): 1, ("1", "v1"): 1, ("10", "v1"): 1, ("10", "v2"): 1}
    shown = {labels["version"] for labels, _ in samples(application, "longshore_model_info")}
    assert shown == {"", "1", "9", "10"}


def test_versions_of_one_model_only_and_each_once(directory, predictor):
    with pytest.raises(InvalidValue, match="one model, and each version of it once"):
        Models([predictor, load(directory)])
    with pytest.raises(InvalidValue, match="one model"):
        Models([predictor, load(directory, name="roses", version="1")])
    with pytest.raises(InvalidValue, match="default"):
        Models([predictor], default="2")


def test_a_request_keeps_its_id_or_gets_one(application, caplog):
    _, headers = ask(application, "GET", "/v2", headers={b"x-request-id": b"abc-1.2:3_4"})
    assert headers["x-request-id"] == "abc-1.2:3_4"
    own = {ask(application, "GET", "/v2", headers={b"x-request-id": bad})[1]["x-request-id"] for bad in _BAD_IDS}
    assert len(own) == len(_BAD_IDS)
    assert all(len(given) == 24 and int(given, 16) for given in own)


_BAD_IDS = (b"", b"a b", b"a\nb", "ü".encode(), b"x" * 129)


def test_what_fails_is_logged_with_the_requests_id_and_its_trace(directory, caplog):
    broken = load(directory)
    broken._model = replace(broken._model, model=Breaks())
    trace = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {b"x-request-id": b"abc", b"traceparent": trace}
    with caplog.at_level(logging.ERROR, "longshore.serving"):
        answer, _ = ask(Application.of(broken), "POST", PREDICT, {"instances": ROWS}, headers)
    assert answer.status == 500
    (record,) = caplog.records
    assert (record.request_id, record.trace_id) == ("abc", "4bf92f3577b34da6a3ce929d0e0e4736")


class Breaks:
    """A model that fails."""

    def predict(self, frame):
        raise ZeroDivisionError


def test_what_needs_a_token_says_so_and_probes_need_none(predictor):
    def authorise(headers):
        if headers.get(b"authorization") != b"Bearer geheim":
            raise RequestError(401, "a token is needed")

    application = Application.of(predictor, authorise=authorise)
    for path in ("/v2/health/live", "/v2/health/ready", "/metrics"):
        assert ask(application, "GET", path)[0].status == 200
    answer, headers = ask(application, "POST", PREDICT, {"instances": ROWS})
    assert (answer.status, headers["www-authenticate"]) == (401, "Bearer")
    answer, _ = ask(application, "POST", PREDICT, {"instances": ROWS}, {b"authorization": b"Bearer geheim"})
    assert answer.status == 200


def test_other_paths_and_methods_are_refused(application):
    assert "there is no /v3" in told(application, "GET", "/v3", status=404)["error"]
    assert "GET is not for" in told(application, "GET", INFER, status=405)["error"]
    labels = [labels["route"] for labels, _ in samples(application, "http_request_duration_seconds_count")]
    assert "unmatched" in labels


def test_who_waits_too_long_for_the_model_is_told_and_not_predicted_any_more(directory):
    started, finish, asked = threading.Event(), threading.Event(), []

    class Slow:
        def predict(self, frame):
            asked.append(len(frame))
            started.set()
            assert finish.wait(30)
            return np.zeros(len(frame), dtype=int)

    loaded = load(directory)._model
    slow = Predictor(
        LoadedModel(model=Slow(), card=loaded.card, directory=directory),
        name="iris",
        digest=None,
        version=None,
        revision="iris-1",
    )
    application = Application.of(slow, seconds=0.01)
    first: list = []
    thread = threading.Thread(target=lambda: first.append(ask(application, "POST", PREDICT, {"instances": ROWS})[0]))
    thread.start()
    assert started.wait(30)
    late = told(application, "POST", PREDICT, {"instances": ROWS}, 504)
    finish.set()
    thread.join(30)
    assert late["error"].startswith("there was no prediction within 0.01 seconds")
    assert first[0].status == 200
    assert asked == [2]
    assert slow.predict(ROWS).values == [0, 0]
