"""TorchServe's handlers, asked as its workers ask them; the real ones are in tests/frameworks."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from longshore.errors import DigestMismatch
from longshore.packaging import directory_digest, save_model
from longshore.packaging.images import encode_image, image_text
from longshore.serving.torchserve_handler import ImageHandler, TabularHandler, TextHandler
from longshore.training import train_sklearn


class Context:
    """What of TorchServe's context a handler uses."""

    def __init__(self, directory, digest, requests=1):
        self.system_properties = {"model_dir": str(directory)}
        self.manifest = {"model": {"modelName": "penguins", "modelVersion": "3"}}
        self.model_yaml_config = {"handler": {"digest": digest}}
        self.statuses, self.types = [(200, "")] * requests, [None] * requests

    def set_response_status(self, code, phrase, idx):
        self.statuses[idx] = (code, phrase)

    def set_response_content_type(self, idx, value):
        self.types[idx] = value


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(60, 2)), columns=["mass", "body"]).assign(kind=["a", "b", "c"] * 20)
    trained = train_sklearn(table, target="kind", estimator="sklearn.tree.DecisionTreeClassifier")
    directory = tmp_path_factory.mktemp("archive")
    save_model(directory / "model", trained.model, trained.card)
    return directory


@pytest.fixture(scope="module")
def loaded(place):
    handler = TabularHandler()
    handler.initialize(Context(place, directory_digest(place / "model")))
    return handler


ROWS = [{"mass": 1.0, "body": 0.5}, {"mass": -1.0, "body": 0.25}]
V1 = {"instances": ROWS}
V2 = {
    "inputs": [
        {"name": "mass", "shape": [2], "datatype": "FP64", "data": [1.0, -1.0]},
        {"name": "body", "shape": [2, 1], "datatype": "FP64", "data": [0.5, 0.25]},
    ]
}


def ask(handler, place, *requests):
    context = Context(place, None, len(requests))
    return [json.loads(answer) for answer in handler.handle(list(requests), context)], context


def test_requests_of_both_protocols_are_answered_together(loaded, place):
    requests = [{"body": V1}, {"data": json.dumps(V1).encode()}, {"body": V2}, {"body": {**V1, "instances": ROWS[:1]}}]
    (one, two, three, four), context = ask(loaded, place, *requests)
    assert one == two == {"predictions": three["outputs"][0]["data"]}
    assert four["predictions"] == one["predictions"][:1]
    assert three["model_version"] == "3"
    assert context.statuses == [(200, "")] * 4
    assert set(context.types) == {"application/json"}


def test_a_bad_request_spoils_nothing_for_the_others(loaded, place):
    requests = [
        {"body": {"instances": [{"mass": "heavy", "body": 1}]}},
        {"body": V1},
        {"body": b"no json"},
        {"body": {"rows": []}},
        {"body": {**V1, "parameters": {"probabilities": True}}},
    ]
    answers, context = ask(loaded, place, *requests)
    assert "column 'mass': expected a number, got a string" in answers[0]["error"]
    assert len(answers[1]["predictions"]) == 2
    assert "the body is not JSON" in answers[2]["error"]
    assert "'instances' must be an array" in answers[3]["error"]
    assert len(answers[4]["probabilities"][0]) == 3
    assert [status for status, _ in context.statuses] == [400, 200, 400, 400, 200]
    assert context.statuses[0] == (400, "Bad Request")


def test_a_failure_of_the_model_is_told_as_one(loaded, place, monkeypatch):
    broken = SimpleNamespace(card=loaded._predictor.card, predict=lambda *_, **__: 1 / 0)
    monkeypatch.setattr(loaded._predictor, "_model", broken)
    (answer,), context = ask(loaded, place, {"body": V1})
    assert answer["error"] == "the model failed (ZeroDivisionError): the server's log says where"
    assert context.statuses == [(500, "Internal Server Error")]


def test_rows_whose_envelope_was_taken_off_are_answered_as_rows(loaded, place):
    context = Context(place, None)
    (answer,) = loaded.handle([{"body": V1}], context)
    expected = json.loads(answer)["predictions"]
    assert loaded.handle(ROWS, context) == expected
    assert loaded.handle([[1.0, 0.5], [-1.0, 0.25]], context) == expected
    assert loaded.handle(V2["inputs"], context) == [expected]


def test_a_model_with_another_digest_is_not_loaded(place):
    with pytest.raises(DigestMismatch):
        TabularHandler().initialize(Context(place, "sha256:" + "0" * 64))


class Columns:
    """A predictor of which only the columns are asked."""

    def __init__(self, *names):
        self.card = SimpleNamespace(signature=SimpleNamespace(names=names))


def handler(kind, *names):
    made = kind()
    made._loaded = Columns(*names)
    return made


def test_a_picture_may_come_as_it_is():
    content = encode_image(np.zeros((2, 2), np.uint8))
    image = handler(ImageHandler, "photo")
    assert image._of_bytes(content) == {"instances": [{"photo": content}]}
    asked = {"instances": [{"photo": image_text(np.zeros((2, 2), np.uint8))}]}
    assert image._of_bytes(json.dumps(asked).encode()) == asked


def test_a_text_may_come_as_it_is():
    text = handler(TextHandler, "words")
    assert text._of_text("a lovely room") == {"instances": [{"words": "a lovely room"}]}
    assert text._of_text("{not json") == {"instances": [{"words": "{not json"}]}
    assert text._of_bytes("schön".encode()) == {"instances": [{"words": "schön"}]}
    assert text._of_bytes(b'{"instances": []}') == {"instances": []}


@pytest.mark.parametrize(
    ("entry", "is_request"),
    [
        ({"data": b"..."}, True),
        ({"body": {"instances": []}}, True),
        ({"body": "heavy", "mass": 1}, False),
        ({"body": {"b64": "..."}}, False),
        ([1, 2], False),
        ({"mass": 1}, False),
        ({"name": "mass", "shape": [1], "datatype": "FP64", "data": [1]}, False),
    ],
)
def test_a_column_named_as_the_parts_of_a_request_is_no_request(entry, is_request):
    assert handler(TabularHandler, "mass", "body")._is_request(entry) is is_request
