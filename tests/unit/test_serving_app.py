"""The web application, spoken to in ASGI: no sockets."""

import asyncio
import json
import logging
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from longshore.packaging import load_model, save_model
from longshore.serving import Application, Predictor, create_app
from longshore.training.data import read_table
from longshore.training.fit import train_sklearn

PENGUINS = Path(__file__).parents[2] / "examples" / "data" / "penguins.csv"
REVISION = "penguins-1a2b3c4d"
PREDICT, INFER = "/v1/models/penguins:predict", "/v2/models/penguins/infer"
ROW = {
    "island": "Torgersen",
    "bill_length_mm": 39.1,
    "bill_depth_mm": 18.7,
    "flipper_length_mm": 181,
    "body_mass_g": 3750,
    "sex": "male",
    "year": 2007,
}
DATATYPES = {"island": "BYTES", "sex": "BYTES", "year": "INT64"}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "penguins"
    trained = train_sklearn(
        read_table(str(PENGUINS)), target="species", estimator="sklearn.linear_model.LogisticRegression"
    )
    return load_model(directory, save_model(directory, trained.model, trained.card))


def app_of(predictor, *, waiting=4096, **options):
    return create_app(Application.of(predictor, **options), waiting=waiting)


def predictor_of(loaded) -> Predictor:
    return Predictor(loaded, name="penguins", digest="sha256:" + "a" * 64, version="3", revision=REVISION)


@pytest.fixture
def app(loaded):
    return app_of(predictor_of(loaded))


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self) -> str:
        assert list(self.json) == ["error"]
        return self.json["error"]


async def ask(app, method, path, parts=(b"",), headers=(), *, gone=False) -> Answer | None:
    """One request; ``gone``: the client goes away instead of ending its body."""
    inbox = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    inbox.append({"type": "http.disconnect"} if gone else {"type": "http.request", "body": b"", "more_body": False})
    outbox = []

    async def receive():
        return inbox.pop(0)

    async def send(message):
        outbox.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        "server": ("test", 80),
        "client": ("test", 1),
    }
    await app(scope, receive, send)
    if not outbox:
        return None
    head = {name.decode(): value.decode() for name, value in outbox[0]["headers"]}
    return Answer(outbox[0]["status"], head, b"".join(m.get("body", b"") for m in outbox[1:]))


def get(app, path) -> Answer:
    return asyncio.run(ask(app, "GET", path))


def post(app, path, content, **options) -> Answer:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return asyncio.run(ask(app, "POST", path, [body], **options))


def tensors(*rows, **changes):
    return [
        {
            "name": name,
            "shape": [len(rows), 1],
            "datatype": DATATYPES.get(name, "FP64"),
            "data": [row[name] for row in rows],
            **changes,
        }
        for name in ROW
    ]


def samples(app):
    text = get(app, "/metrics").body.decode()
    return [s for family in text_string_to_metric_families(text) for s in family.samples]


def counted(app):
    return {
        (s.labels["method"], s.labels["route"], s.labels["status"]): s.value
        for s in samples(app)
        if s.name == "http_request_duration_seconds_count"
    }


def predictions(app):
    """Prediction requests and those that failed, as far as there are any, by protocol and by whose fault it was."""
    name = "longshore_prediction_duration_seconds_count"
    done = {s.labels["protocol"]: s.value for s in samples(app) if s.name == name and s.value}
    failed = [s for s in samples(app) if s.name == "longshore_prediction_errors_total" and s.value]
    return done, {(s.labels["protocol"], s.labels["kind"]): s.value for s in failed}


def test_v1_predicts(app):
    answer = post(app, PREDICT, {"instances": [ROW, list(ROW.values())]})
    assert (answer.status, answer.json) == (200, {"predictions": ["Adelie", "Adelie"]})
    assert answer.headers["content-type"] == "application/json"


def test_v1_gives_probabilities_with_their_classes(app):
    answer = post(app, PREDICT, {"instances": [ROW], "parameters": {"probabilities": True}}).json
    assert answer["classes"] == ["Adelie", "Chinstrap", "Gentoo"]
    (shares,) = answer["probabilities"]
    assert sum(shares) == pytest.approx(1)
    assert max(zip(shares, answer["classes"], strict=True))[1] == answer["predictions"][0]


def test_v2_predicts(app):
    answer = post(app, INFER, {"id": "42", "inputs": tensors(ROW, ROW)})
    assert answer.status == 200
    assert answer.json == {
        "model_name": "penguins",
        "model_version": "3",
        "id": "42",
        "outputs": [{"name": "predict", "datatype": "BYTES", "shape": [2], "data": ["Adelie", "Adelie"]}],
    }


def test_v2_gives_the_outputs_that_are_asked_for(app):
    answer = post(app, INFER, {"inputs": tensors(ROW, ROW), "outputs": [{"name": "predict_proba"}]}).json
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("predict_proba", "FP64", [2, 3])
    assert sum(output["data"]) == pytest.approx(2)


def test_both_protocols_agree(app):
    one = post(app, PREDICT, {"instances": [ROW], "parameters": {"probabilities": True}}).json
    two = post(app, INFER, {"inputs": tensors(ROW), "outputs": [{"name": "predict_proba"}]}).json
    assert two["outputs"][0]["data"] == one["probabilities"][0]


@pytest.mark.parametrize(
    ("path", "content", "word"),
    [
        (PREDICT, b'{"instances": [', "not JSON"),
        (PREDICT, {"instances": [{**ROW, "year": "MMVII"}]}, "row 0, column 'year'"),
        (INFER, {"inputs": tensors(ROW)[1:]}, "'island'"),
        (INFER, {"inputs": tensors({**ROW, "year": "MMVII"})}, "row 0, column 'year'"),
    ],
)
def test_a_request_that_does_not_fit_is_told_why(app, path, content, word):
    answer = post(app, path, content)
    assert answer.status == 400
    assert word in answer.error


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/models/cats:predict"),
        ("GET", "/v1/models/cats"),
        ("POST", "/v2/models/cats/infer"),
        ("GET", "/v2/models/cats"),
        ("GET", "/v2/models/cats/ready"),
    ],
)
def test_another_model_is_not_found_and_the_served_one_named(app, method, path):
    answer = asyncio.run(ask(app, method, path))
    assert answer.status == 404
    assert "'cats'" in answer.error
    assert "'penguins'" in answer.error


def test_other_paths_and_methods_are_refused_in_json(app):
    nowhere = get(app, "/nowhere")
    assert nowhere.status == 404
    assert "/nowhere" in nowhere.error
    wrong = get(app, INFER)
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
    assert "GET" in wrong.error


LIMIT = 1000


@pytest.mark.parametrize(
    ("parts", "headers", "status"),
    [
        ([b" " * (LIMIT + 1)], [("content-length", str(LIMIT + 1))], 413),
        ([], [("content-length", "9" * 15)], 413),
        ([b" " * 600, b" " * 600], [("transfer-encoding", "chunked")], 413),
        ([b" " * 400, b" " * 600], [], 400),
    ],
    ids=["declared", "declared, not sent", "chunked", "as large as allowed"],
)
def test_a_body_over_the_limit_is_refused(loaded, parts, headers, status):
    app = app_of(predictor_of(loaded), body_limit=LIMIT)
    answer = asyncio.run(ask(app, "POST", PREDICT, parts, headers))
    assert answer.status == status
    assert ("larger than 1000 bytes" in answer.error) == (status == 413)


def test_a_compressed_body_is_refused(app):
    answer = post(app, PREDICT, b"\x1f\x8b", headers=[("content-encoding", "gzip")])
    assert answer.status == 415
    assert "gzip" in answer.error


class Breaks:
    """A model that fails, or answers what cannot be answered."""

    def __init__(self, outcome):
        self.outcome = outcome

    def predict(self, frame):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.mark.parametrize("path", [PREDICT, INFER])
def test_a_failing_model_is_logged_and_tells_the_client_no_secrets(loaded, caplog, path):
    app = app_of(predictor_of(replace(loaded, model=Breaks(ZeroDivisionError("in /srv/secret.py")))))
    answer = post(app, path, {"instances": [ROW], "inputs": tensors(ROW)})
    assert answer.status == 500
    assert "ZeroDivisionError" in answer.error
    assert b"secret" not in answer.body
    assert b"Traceback" not in answer.body
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "in /srv/secret.py" in str(record.exc_info[1])
    route = path.replace("penguins", "{model}")
    assert counted(app)["POST", route, "500"] == 1
    spoken = "v1" if path == PREDICT else "v2"
    assert predictions(app) == ({spoken: 1}, {(spoken, "model"): 1})


def test_an_answer_that_json_cannot_hold_is_an_error(loaded):
    app = app_of(predictor_of(replace(loaded, model=Breaks(np.array([np.nan])))))
    answer = post(app, PREDICT, {"instances": [ROW]})
    assert answer.status == 500
    assert "row 0" in answer.error
    assert predictions(app) == ({"v1": 1}, {("v1", "model"): 1})


def test_health_is_answered_while_the_model_works(loaded):
    started, finish = threading.Event(), threading.Event()

    class Slow:
        def predict(self, frame):
            started.set()
            assert finish.wait(30)
            return np.array(["Adelie"])

    app = app_of(predictor_of(replace(loaded, model=Slow())))

    async def talk():
        body = json.dumps({"instances": [ROW]}).encode()
        prediction = asyncio.create_task(ask(app, "POST", PREDICT, [body]))
        await asyncio.to_thread(started.wait, 30)
        try:
            live = await ask(app, "GET", "/v2/health/live")
            metrics = await ask(app, "GET", "/metrics")
            assert not prediction.done()
        finally:
            finish.set()
        return live, metrics, await prediction

    live, metrics, prediction = asyncio.run(talk())
    assert (live.status, prediction.status) == (200, 200)
    # the prediction and the scrape itself
    assert b"\nhttp_requests_in_flight 2.0\n" in metrics.body
    assert b"\nhttp_requests_in_flight 1.0\n" in get(app, "/metrics").body


def test_more_than_may_wait_are_told_to_come_again_and_it_is_the_servers_fault(loaded):
    started, finish = threading.Event(), threading.Event()

    class Slow:
        def predict(self, frame):
            started.set()
            assert finish.wait(30)
            return np.array(["Adelie"] * len(frame))

    predictor = predictor_of(replace(loaded, model=Slow()))
    app = app_of(predictor, waiting=1)

    async def talk():
        body = json.dumps({"instances": [ROW]}).encode()
        first = asyncio.create_task(ask(app, "POST", PREDICT, [body]))
        await asyncio.to_thread(started.wait, 30)
        waits = asyncio.create_task(ask(app, "POST", PREDICT, [body]))
        await asyncio.sleep(0)
        try:
            late = await ask(app, "POST", PREDICT, [body])
        finally:
            finish.set()
        return late, await first, await waits

    late, first, waits = asyncio.run(talk())
    assert (late.status, late.headers["retry-after"]) == (503, "1")
    assert "1 requests wait for the model already" in late.error
    assert (first.status, waits.status) == (200, 200)
    counted = {s.labels["kind"]: s.value for s in errors_of(predictor) if s.labels["protocol"] == "v1"}
    assert counted == {"client": 0, "model": 0, "server": 1}


def errors_of(predictor):
    families = text_string_to_metric_families(predictor.metrics.render().decode())
    return [s for family in families for s in family.samples if s.name == "longshore_prediction_errors_total"]


def test_metadata_describes_the_model(app):
    about = get(app, "/v2/models/penguins").json
    assert (about["name"], about["versions"], about["platform"]) == ("penguins", ["3"], "sklearn")
    assert {t["name"]: t["datatype"] for t in about["inputs"]} == {name: DATATYPES.get(name, "FP64") for name in ROW}
    assert [(t["name"], t["datatype"]) for t in about["outputs"]] == [("predict", "BYTES"), ("predict_proba", "FP64")]
    assert get(app, "/v1/models").json == {"models": ["penguins"]}
    assert get(app, "/v2").json["name"] == "longshore"


def test_readiness_names_the_revision(app):
    answer = get(app, "/v2/health/ready")
    assert (answer.status, answer.json) == (200, {"ready": True, "revision": REVISION})
    assert "connection" not in answer.headers


def test_draining_refuses_readiness_and_closes_connections_but_predicts(app):
    app.state.application.draining = True
    for path in ("/v2/health/ready", "/v2/models/penguins/ready", "/v1/models/penguins"):
        assert (get(app, path).status, get(app, path).json["ready"]) == (503, False)
    answers = [
        get(app, "/v2/health/live"),
        get(app, "/nowhere"),
        get(app, "/metrics"),
        post(app, PREDICT, b""),
        post(app, PREDICT, {"instances": [ROW]}),
    ]
    assert [answer.status for answer in answers] == [200, 404, 200, 400, 200]
    assert {answer.headers["connection"] for answer in answers} == {"close"}


def test_draining_closes_connections_after_an_unexpected_failure_too(loaded):
    app = app_of(predictor_of(replace(loaded, model=Breaks(ZeroDivisionError()))))
    app.state.application.draining = True
    answer = post(app, PREDICT, {"instances": [ROW]})
    assert (answer.status, answer.headers["connection"]) == (500, "close")


def test_requests_are_counted_by_route_and_not_by_path(app):
    post(app, PREDICT, {"instances": [ROW]})
    post(app, PREDICT, b"nonsense")
    post(app, "/v1/models/cats:predict", b"")
    get(app, "/nowhere/1")
    get(app, "/nowhere/2")
    get(app, PREDICT.removesuffix(":predict"))
    assert counted(app) == {
        ("POST", "/v1/models/{model}:predict", "200"): 1,
        ("POST", "/v1/models/{model}:predict", "400"): 1,
        ("POST", "/v1/models/{model}:predict", "404"): 1,
        ("GET", "unmatched", "404"): 2,
        ("GET", "/v1/models/{model}", "200"): 1,
    }
    labels = {(s.labels["model"], s.labels["revision"]) for s in samples(app) if s.name.endswith("seconds_count")}
    assert labels == {("penguins", REVISION)}


def test_predictions_are_counted_by_protocol_and_by_whose_fault_an_error_is(app, monkeypatch):
    post(app, PREDICT, {"instances": [ROW]})
    post(app, INFER, {"inputs": tensors(ROW)})
    assert predictions(app) == ({"v1": 1, "v2": 1}, {})
    post(app, PREDICT, b"nonsense")
    post(app, PREDICT, {"instances": [{**ROW, "year": "now"}]})
    post(app, "/v2/models/cats/infer", {"inputs": tensors(ROW)})
    asyncio.run(ask(app, "POST", INFER, [b'{"inp'], gone=True))
    # none of these asks for a prediction
    get(app, PREDICT)
    get(app, "/v2/models/penguins")
    post(app, "/nowhere", b"")
    assert predictions(app) == ({"v1": 3, "v2": 3}, {("v1", "client"): 2, ("v2", "client"): 2})
    monkeypatch.setattr("longshore.serving.drift.BinCounter.add", lambda *_: 1 / 0)
    answer = post(app, INFER, {"inputs": tensors(ROW)})
    assert (answer.status, "ZeroDivisionError" in answer.error) == (500, True)
    assert predictions(app)[1]["v2", "server"] == 1


def test_a_client_that_goes_away_is_no_failure_of_the_server(app, caplog):
    assert asyncio.run(ask(app, "POST", PREDICT, [b'{"insta'], gone=True)) is None
    assert counted(app) == {("POST", "/v1/models/{model}:predict", "499"): 1}
    assert caplog.records == []


def test_openapi_shows_the_columns_and_examples_that_work(app):
    document = get(app, "/openapi.json").json
    for template in ("/v1/models/{model}:predict", "/v2/models/{model}/infer"):
        operation = document["paths"][template]["post"]
        assert operation["parameters"][0]["schema"]["enum"] == ["penguins"]
        assert {"200", "400", "404", "413", "500"} <= set(operation["responses"])
        example = operation["requestBody"]["content"]["application/json"]["example"]
        assert post(app, template.replace("{model}", "penguins"), example).status == 200
    v1 = document["paths"]["/v1/models/{model}:predict"]["post"]
    row = v1["requestBody"]["content"]["application/json"]["schema"]["properties"]["instances"]["items"]
    assert list(row["properties"]) == row["required"] == list(ROW)
    assert row["properties"]["year"] == {"type": ["integer", "null"]}
    assert "Biscoe, Dream, Torgersen" in row["properties"]["island"]["description"]
    assert get(app, "/docs").status == 200
