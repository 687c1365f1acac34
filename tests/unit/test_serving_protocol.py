"""V1 and V2 requests in bytes, without the web."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from longshore.errors import InputError
from longshore.packaging import load_model, save_model
from longshore.serving import Predictor, protocol
from longshore.serving.protocol import encode, model_v2, parse
from longshore.serving.refusals import RequestError
from longshore.training.data import read_table
from longshore.training.fit import train_sklearn

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
DATATYPES = {"island": "BYTES", "sex": "BYTES", "year": "INT64"}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "penguins"
    trained = train_sklearn(
        read_table(str(PENGUINS)), target="species", estimator="sklearn.linear_model.LogisticRegression"
    )
    return load_model(directory, save_model(directory, trained.model, trained.card))


@pytest.fixture(scope="module")
def predictor(loaded):
    return Predictor(loaded, name="penguins", digest=None, version=None, revision="penguins-1")


def encoded(content) -> bytes:
    return content if isinstance(content, bytes) else json.dumps(content).encode()


def infer(predictor, content):
    return json.loads(encode(protocol.infer(predictor, parse(encoded(content)))))


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


@pytest.mark.parametrize("parameters", [None, {}, {"probabilities": False}])
def test_v1_answers_with_predictions_only_by_default(predictor, parameters):
    answer = encode(protocol.predict(predictor, parse(encoded({"instances": [ROW], "parameters": parameters}))))
    assert json.loads(answer) == {"predictions": ["Adelie"]}


def test_v2_leaves_out_what_is_not_known_and_keeps_the_id(predictor):
    answer = infer(predictor, {"inputs": tensors(ROW), "id": "42", "outputs": []})
    assert set(answer) == {"model_name", "id", "outputs"}
    assert answer["id"] == "42"


def test_v2_takes_missing_values_as_null(predictor):
    answer = infer(predictor, {"inputs": tensors({**ROW, "sex": None, "body_mass_g": None})})
    assert answer["outputs"][0]["data"] == ["Adelie"]


def test_v2_takes_columns_that_the_model_ignores(predictor):
    target = {"name": "species", "shape": [1], "datatype": "BYTES", "data": ["Gentoo"]}
    assert infer(predictor, {"inputs": [*tensors(ROW), target]})["outputs"][0]["data"] == ["Adelie"]


class Answers:
    """A model that always answers the same."""

    def __init__(self, value):
        self.value = value

    def predict(self, frame):
        return np.array([self.value] * len(frame))


@pytest.mark.parametrize(
    ("classes", "value", "datatype"),
    [
        (("a", "b"), "a", "BYTES"),
        ((0, 1), 1, "INT64"),
        ((False, True), True, "BOOL"),
        ((0.5, 1.5), 0.5, "FP64"),
        (None, 3.25, "FP64"),
    ],
)
def test_v2_names_the_datatype_of_the_labels(loaded, classes, value, datatype):
    task = "regression" if classes is None else "classification"
    signature = replace(loaded.card.signature, classes=classes, task=task)
    card = replace(loaded.card, signature=signature, task=task)
    predictor = Predictor(
        replace(loaded, model=Answers(value), card=card), name="m", digest=None, version=None, revision="m-1"
    )
    (output,) = infer(predictor, {"inputs": tensors(ROW)})["outputs"]
    assert (output["datatype"], output["data"]) == (datatype, [value])
    assert model_v2(predictor)["outputs"] == [{"name": "predict", "datatype": datatype, "shape": [-1]}]


@pytest.mark.parametrize("shape", [[1], [1, 1]])
@pytest.mark.parametrize("nested", [True, False])
def test_v2_takes_both_shapes_flat_and_nested(predictor, shape, nested):
    inputs = [{**t, "shape": shape, "data": [t["data"]] if nested else t["data"]} for t in tensors(ROW)]
    assert infer(predictor, {"inputs": inputs})["outputs"][0]["data"] == ["Adelie"]


BAD_V1 = {
    "empty": (b"", ["empty"]),
    "no JSON": (b'{"instances": [', ["not JSON", "line 1"]),
    "NaN": (b'{"instances": [{"year": NaN}]}', ["not JSON", "null"]),
    "Infinity": (b'{"instances": [{"year": -Infinity}]}', ["not JSON", "null"]),
    "too large a number": (b'{"instances": [{"year": 1e999}]}', ["not JSON", "infinity"]),
    "no UTF-8": (b'{"instances": "\xff"}', ["not JSON", "UTF-8"]),
    "too deep": (b"[" * 5000, ["not JSON", "depth"]),
    "an array": ([ROW], ["must be a JSON object"]),
    "no instances": ({"rows": [ROW]}, ["'instances'"]),
    "instances no array": ({"instances": ROW}, ["'instances'", "array"]),
    "no rows": ({"instances": []}, ["no rows"]),
    "a row that is none": ({"instances": [ROW, 5]}, ["row 1", "not an object or an array"]),
    "missing column": ({"instances": [{k: v for k, v in ROW.items() if k != "sex"}]}, ["row 0", "'sex'", "missing"]),
    "misspelt column": ({"instances": [{**ROW, "bill_lenght_mm": 1}]}, ["row 0", "did you mean 'bill_length_mm'"]),
    "wrong type": ({"instances": [ROW, {**ROW, "body_mass_g": "heavy"}]}, ["row 1", "'body_mass_g'", "'heavy'"]),
    "too few values": ({"instances": [[1, 2]]}, ["row 0 has 2 values, 7 are needed"]),
    "parameters no object": ({"instances": [ROW], "parameters": [1]}, ["'parameters'"]),
    "misspelt parameter": ({"instances": [ROW], "parameters": {"probs": True}}, ["'probs'", "'probabilities'"]),
    "parameter no boolean": ({"instances": [ROW], "parameters": {"probabilities": "yes"}}, ["true or false"]),
}


@pytest.mark.parametrize(("content", "words"), BAD_V1.values(), ids=BAD_V1)
def test_v1_says_what_is_wrong(predictor, content, words):
    with pytest.raises((RequestError, InputError)) as caught:
        encode(protocol.predict(predictor, parse(encoded(content))))
    assert getattr(caught.value, "status", 400) == 400
    for word in words:
        assert word in str(caught.value)


BAD_V2 = {
    "no inputs": ({}, ["'inputs'"]),
    "inputs no array": ({"inputs": {}}, ["'inputs'"]),
    "no name": ({"inputs": [{"data": [1]}]}, ["inputs[0]", "'name'"]),
    "twice": ({"inputs": [*tensors(ROW), tensors(ROW)[0]]}, ["'island'", "twice"]),
    "missing": ({"inputs": tensors(ROW)[1:]}, ["no input for column 'island'"]),
    "unknown": ({"inputs": [*tensors(ROW), {**tensors(ROW)[0], "name": "islet"}]}, ["'islet'", "unknown"]),
    "no data": ({"inputs": tensors(ROW, data=None)}, ["'island'", "'data'"]),
    "wrong shape": ({"inputs": tensors(ROW, shape=[7])}, ["'island'", "shape [7]", "1 values"]),
    "no shape": ({"inputs": tensors(ROW, shape=None)}, ["'island'", "shape None"]),
    "a matrix": ({"inputs": tensors(ROW, shape=[1, 7], data=[[1] * 7])}, ["one tensor for each column"]),
    "lengths": ({"inputs": [*tensors(ROW)[:-1], tensors(ROW, ROW)[-1]]}, ["as many values", "'year' has 2"]),
    "no values": ({"inputs": tensors(shape=[0])}, ["no rows"]),
    "wrong type": ({"inputs": tensors(ROW, {**ROW, "year": "MMVII"})}, ["row 1", "'year'", "'MMVII'"]),
    "outputs no array": ({"inputs": tensors(ROW), "outputs": "predict"}, ["'outputs'"]),
    "unknown output": ({"inputs": tensors(ROW), "outputs": [{"name": "score"}]}, ["'score'", "predict_proba"]),
}


@pytest.mark.parametrize(("content", "words"), BAD_V2.values(), ids=BAD_V2)
def test_v2_says_what_is_wrong(predictor, content, words):
    with pytest.raises((RequestError, InputError)) as caught:
        encode(protocol.infer(predictor, parse(encoded(content))))
    assert getattr(caught.value, "status", 400) == 400
    for word in words:
        assert word in str(caught.value)
