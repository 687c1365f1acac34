"""Seldon's protocol and rewards, without Seldon's package."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from longshore.errors import InputError
from longshore.packaging import save_model
from longshore.serving import Predictor, seldon_protocol
from longshore.serving.refusals import RequestError
from longshore.serving.rewards import Rewards
from longshore.serving.seldon_protocol import Feedback, read_feedback
from longshore.training.data import read_table
from longshore.training.fit import train_sklearn

PENGUINS = Path(__file__).parents[2] / "examples" / "data" / "penguins.csv"
NAMES = ["island", "bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g", "sex", "year"]
ROWS = [["Torgersen", 39.1, 18.7, 181, 3750, "male", 2007], ["Biscoe", 50.0, 15.2, 220, 5000, None, 2009]]
CLASSES = ["Adelie", "Chinstrap", "Gentoo"]


def load(tmp_path_factory, table, **options):
    trained = train_sklearn(table, **options)
    directory = tmp_path_factory.mktemp("models") / "m"
    save_model(directory, trained.model, trained.card)
    return Predictor.load(directory, name="m", digest=None, version="3", revision="m-1")


@pytest.fixture(scope="module")
def penguins(tmp_path_factory):
    table = read_table(str(PENGUINS))
    return load(tmp_path_factory, table, target="species", estimator="sklearn.linear_model.LogisticRegression")


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """A model of numbers and a boolean that predicts a number."""
    table = pd.DataFrame({"a": np.arange(60.0), "flag": [True, False, True] * 20, "n": range(60)})
    table["y"] = 2 * table["a"] + 100 * table["flag"]
    return load(tmp_path_factory, table, target="y", estimator="sklearn.linear_model.LinearRegression")


def predict(predictor, content, **options):
    return json.loads(json.dumps(seldon_protocol.predict(predictor, content, **options)))


def test_rows_of_an_ndarray_are_answered_as_one(penguins):
    expected = penguins.predict(ROWS).values
    assert predict(penguins, {"data": {"ndarray": ROWS}}) == {"data": {"names": [], "ndarray": expected}}
    assert predict(penguins, {"data": {"names": NAMES, "ndarray": ROWS}})["data"]["ndarray"] == expected


def test_columns_go_by_name(penguins):
    turned = [row[::-1] for row in ROWS]
    content = {"data": {"names": NAMES[::-1], "ndarray": turned}}
    assert predict(penguins, content)["data"]["ndarray"] == penguins.predict(ROWS).values


def test_rows_may_be_objects(penguins):
    rows = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
    assert predict(penguins, {"data": {"ndarray": rows}})["data"]["ndarray"] == penguins.predict(ROWS).values


@pytest.mark.parametrize("kind", ["tensor", "tftensor"])
@pytest.mark.parametrize("array", [False, True])
def test_numbers_of_a_tensor_are_answered_as_one(numbers, kind, array):
    values = [1.0, 1.0, 7.0, 2.0, 0.0, 8.0]
    tensor = {"shape": [2, 3], "values": np.array(values) if array else values}
    expected = numbers.predict([[1.0, True, 7], [2.0, False, 8]]).values
    answer = predict(numbers, {"data": {kind: tensor}})["data"]
    assert (answer["names"], answer[kind]["shape"]) == ([], [2])
    assert answer[kind]["values"] == pytest.approx(expected)
    turned = np.array(values).reshape(2, 3)[:, ::-1].ravel()
    answer = predict(numbers, {"data": {"names": ["n", "flag", "a"], kind: {"shape": [2, 3], "values": turned}}})
    assert answer["data"][kind]["values"] == pytest.approx(expected)


def test_a_gap_in_a_tensor_is_no_number(numbers):
    gap = predict(numbers, {"data": {"tensor": {"shape": [1, 3], "values": [1.0, float("nan"), 3.0]}}})
    assert gap["data"]["tensor"]["values"] == pytest.approx(numbers.predict([[1.0, None, 3]]).values)


def test_probabilities_come_with_the_names_of_the_classes(penguins):
    expected = penguins.predict(ROWS, probabilities=True).probabilities
    for answer in (
        predict(penguins, {"data": {"ndarray": ROWS}}, probabilities=True),
        predict(penguins, {"data": {"ndarray": ROWS}, "meta": {"tags": {"probabilities": True}}}),
    ):
        assert answer == {"data": {"names": CLASSES, "ndarray": expected}}
    # what a request says goes before
    plain = predict(
        penguins, {"data": {"ndarray": ROWS}, "meta": {"tags": {"probabilities": False}}}, probabilities=True
    )
    assert plain["data"]["ndarray"] == penguins.predict(ROWS).values


@pytest.mark.parametrize("probabilities", [False, True])
def test_an_answer_is_explained_where_that_is_asked(penguins, probabilities):
    tags = {"explain": True, "probabilities": probabilities}
    answer = predict(penguins, {"data": {"ndarray": ROWS}, "meta": {"tags": tags}})
    done = penguins.predict(ROWS, probabilities=True)
    assert answer["data"]["ndarray"] == (done.probabilities if probabilities else done.values)
    explanations = answer["meta"]["tags"]["explanations"]
    for one, shares in zip(explanations, done.probabilities, strict=True):
        assert list(one["contributions"]) == NAMES
        assert one["base"] + sum(one["contributions"].values()) == pytest.approx(max(shares))


def test_requests_of_v1_and_v2_within_a_message(penguins):
    v1 = {"instances": ROWS, "parameters": {"probabilities": True}}
    done = penguins.predict(ROWS, probabilities=True)
    answer = {"predictions": done.values, "probabilities": done.probabilities, "classes": CLASSES}
    assert predict(penguins, {"jsonData": v1}) == {"jsonData": answer}
    assert json.loads(predict(penguins, {"strData": json.dumps(v1)})["strData"]) == answer
    columns = zip(NAMES, zip(*ROWS, strict=True), strict=True)
    inputs = [{"name": name, "shape": [2], "datatype": "x", "data": list(values)} for name, values in columns]
    (output,) = predict(penguins, {"jsonData": {"inputs": inputs}})["jsonData"]["outputs"]
    assert output["data"] == done.values


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "a message must be an object"),
        ({}, "needs one of data, jsonData, strData .there is none of them"),
        ({"binData": "aa", "meta": {}}, "there is 'binData'"),
        ({"data": []}, "'data' must be an object"),
        ({"data": {}}, "must hold one of ndarray, tensor, tftensor, and holds 0"),
        ({"data": {"ndarray": [], "tensor": {}}}, "holds 2 of them"),
        ({"data": {"ndarray": "a"}}, "'data.ndarray' must be an array of rows"),
        ({"data": {"ndarray": [1, 2]}}, "its first entry is 1"),
        ({"data": {"ndarray": ["ab"]}}, "its first entry is 'ab'"),
        ({"data": {"names": "ab", "ndarray": [[1]]}}, "'data.names' must be an array"),
        ({"data": {"names": [1], "ndarray": [[1]]}}, "'data.names' must be an array"),
        ({"data": {"names": ["a", "a"], "ndarray": [[1]]}}, "names 'a' more than once"),
        ({"data": {"tensor": [1]}}, "'data.tensor' must be an object with 'shape'"),
        ({"data": {"tensor": {"shape": [1, 3]}}}, "with 'shape' and 'values'"),
        (
            {"data": {"tensor": {"shape": [3], "values": [1, 2, 3]}}},
            r"is \[3\] and there are 3 values: it must be .rows",
        ),
        ({"data": {"tensor": {"values": [1, 2, 3]}}}, "shape' is None"),
        ({"data": {"tensor": {"shape": [2, 3], "values": [1, 2, 3]}}}, "the columns being a, flag, n"),
        ({"data": {"tensor": {"shape": "ab", "values": [1, 2, 3]}}}, "shape' is 'ab'"),
        ({"data": {"names": ["a", "n"], "tensor": {"shape": [1, 2], "values": [1, 2]}}}, "'data.names' lacks 'flag'"),
        (
            {"data": {"names": ["a", "n", "flag", "z"], "tensor": {"shape": [1, 4], "values": [1, 2, 1, 0]}}},
            "has no column 'z'",
        ),
        ({"jsonData": [1]}, "'jsonData' must hold a request of V1 or V2"),
        ({"strData": 3}, "'strData' must be a text"),
        ({"strData": "{"}, "the body is not JSON"),
        ({"strData": "{}"}, "'strData' must hold a request of V1 or V2"),
        ({"data": {"ndarray": [[1, True, 2]]}, "meta": 3}, "'meta' must be an object"),
        ({"data": {"ndarray": [[1, True, 2]]}, "meta": {"tags": [1]}}, "'meta.tags' must be an object"),
        ({"data": {"ndarray": [[1, True, 2]]}, "meta": {"tags": {"explain": 1}}}, "'meta.tags.explain' must be true"),
    ],
)
def test_what_is_no_request_is_told_by_its_field(numbers, content, words):
    with pytest.raises(RequestError, match=words) as refused:
        predict(numbers, content)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"data": {"ndarray": []}}, "there are no rows"),
        ({"data": {"ndarray": [[1, True]]}}, "row 0 has 2 values, 3 are needed"),
        ({"data": {"ndarray": [[1, True, 2], 3]}}, "row 1 is a number"),
        ({"data": {"names": ["a", "flag", "m"], "ndarray": [[1, True, 2]]}}, "column 'm' is unknown"),
        ({"data": {"tensor": {"shape": [1, 3], "values": [1, 2, 3]}}}, "column 'flag': expected true or false"),
        ({"data": {"tensor": {"shape": [0, 3], "values": []}}}, "there are no rows"),
        ({"data": {"ndarray": [[1, True, 2]]}, "meta": {"tags": {"probabilities": True}}}, "gives no probabilities"),
    ],
)
def test_rows_that_do_not_fit_are_told(numbers, content, words):
    with pytest.raises(InputError, match=words):
        predict(numbers, content)


def test_a_feedback_says_who_answered_and_what_was_right(penguins):
    signature = penguins.card.signature
    content = {
        "reward": 1,
        "response": {"data": {"ndarray": ["Adelie", "Gentoo"]}, "meta": {"tags": {"revision": "m-1", "explain": True}}},
        "truth": {"data": {"ndarray": [["Adelie"], ["Adelie"]]}},
    }
    assert read_feedback(content, signature) == Feedback(reward=1.0, tags={"revision": "m-1"}, right=1, wrong=1)
    assert read_feedback({}, signature) == Feedback(reward=0.0)
    tensor = {"shape": [2, 1], "values": np.array([1.0, 2.0])}
    content = {"response": {"data": {"tensor": tensor}}, "truth": {"data": {"ndarray": [1, 3]}}}
    assert read_feedback(content, signature) == Feedback(reward=0.0, right=1, wrong=1)
    # probabilities are no classes
    content = {"response": {"data": {"tensor": {"shape": [2, 2], "values": [0, 1, 1, 0]}}}, "truth": content["truth"]}
    assert read_feedback(content, signature) == Feedback(reward=0.0)


def test_a_feedback_that_is_none(penguins):
    signature = penguins.card.signature
    for reward in (float("nan"), float("inf"), "1", True, None):
        with pytest.raises(RequestError, match="'reward' must be a finite number"):
            read_feedback({"reward": reward}, signature)
    data = {"data": {"ndarray": ["Adelie"]}}
    with pytest.raises(InputError, match="'truth' has 2 values, and 'response' has 1"):
        read_feedback({"response": data, "truth": {"data": {"ndarray": ["Adelie", "Gentoo"]}}}, signature)


class Counting:
    """Rewards as they are counted by a server of the predictor main."""

    def __init__(self):
        self.registry = CollectorRegistry()
        own = {"model": "m", "version": "3", "revision": "m-1", "predictor": "main", "predictor_version": "v7"}
        self.rewards = Rewards(self.registry, own)

    def __call__(self, reward, right=0, wrong=0, **tags):
        return self.rewards.count(Feedback(reward=reward, tags=tags, right=right, wrong=wrong))

    def value(self, name, **labels):
        return sum(
            sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@pytest.fixture
def counting():
    return Counting()


def test_rewards_are_there_before_the_first(counting):
    text = generate_latest(counting.registry).decode()
    labels = 'model="m",predictor_name="main",predictor_version="v7",revision="m-1",version="3"'
    assert f"longshore_feedback_total{{{labels}}} 0.0" in text
    assert f'longshore_feedback_rows_total{{correct="true",{labels}}} 0.0' in text


def test_rewards_are_counted_for_who_answered(counting):
    assert counting(1.0, right=2, wrong=1)
    assert counting(0.0, revision="m-1", predictor="main")
    assert counting(-0.5, version="3")
    assert counting(0.25, model="m", version="4", revision="m-2", predictor="canary", predictor_version="v8")
    own, other = {"predictor_version": "v7"}, {"predictor_version": "v8", "predictor_name": "canary", "version": "4"}
    assert counting.value("longshore_feedback_total", **own) == 3
    assert counting.value("longshore_feedback_reward_total", **own) == 1
    assert counting.value("longshore_feedback_penalty_total", **own) == 0.5
    assert counting.value("longshore_feedback_rows_total", correct="true", **own) == 2
    assert counting.value("longshore_feedback_rows_total", correct="false", **own) == 1
    assert counting.value("longshore_feedback_total", **other) == 1
    assert counting.value("longshore_feedback_reward_total", **other) == 0.25


def test_a_neighbour_in_the_graph_counts_its_own(counting):
    assert not counting(1.0, revision="m-2", predictor="main")
    assert counting.value("longshore_feedback_total") == 0


def test_what_clients_send_makes_no_series_without_end(counting):
    for number in range(200):
        counting(1.0, revision=f"r-{number}", predictor="canary")
    series = [sample for metric in counting.registry.collect() for sample in metric.samples]
    assert len({tuple(sample.labels.items()) for sample in series if sample.name == "longshore_feedback_total"}) <= 40
    assert counting.value("longshore_feedback_total") == 200
    assert counting.value("longshore_feedback_total", revision="other") > 100
