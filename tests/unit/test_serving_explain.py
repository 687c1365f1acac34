"""Why a row is answered as it is."""

import math
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest

from longshore.errors import InputError
from longshore.packaging import save_model
from longshore.serving import Predictor
from longshore.serving.core import Ask
from longshore.serving.explain import explain
from longshore.training.fit import train_sklearn


def predictor_of(tmp_path_factory, table, **options):
    trained = train_sklearn(table, target="y", **options)
    directory = tmp_path_factory.mktemp("model") / "m"
    save_model(directory, trained.model, trained.card)
    return Predictor.load(directory, name="m", digest=None, version="3", revision="m-1")


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    random = np.random.default_rng(1)
    table = pd.DataFrame(
        {
            "a": random.uniform(0, 10, 400),
            "flag": random.integers(0, 2, 400),
            "kind": random.choice(["x", "z"], 400),
            "noise": random.uniform(0, 1, 400),
        }
    )
    table["y"] = 3 * table["a"] + 10 * table["flag"] + 20 * (table["kind"] == "z")
    return predictor_of(tmp_path_factory, table, estimator="sklearn.linear_model.LinearRegression", task="regression")


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    random = np.random.default_rng(2)
    table = pd.DataFrame({"a": random.uniform(-1, 1, 300), "b": random.uniform(-1, 1, 300)})
    table["when"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(random.integers(0, 300, 300), unit="D")
    table["y"] = np.where(table["a"] > 0, "up", "down")
    return predictor_of(tmp_path_factory, table, estimator="sklearn.tree.DecisionTreeClassifier")


ROWS = [
    {"a": 9.0, "flag": 1, "kind": "z", "noise": 0.5},
    {"a": 1.0, "flag": 0, "kind": "x", "noise": 0.9},
]


def explained(predictor, rows, **options):
    ask = Ask(rows=rows, probabilities=predictor.gives_probabilities)
    return explain(predictor, ask, predictor.answer(ask), **options)


def test_contributions_of_a_sum_are_those_of_its_terms(linear):
    first, second = explained(linear, ROWS, orders=256)
    # on average a is 5, flag and kind are half the time what they are
    assert first.base == pytest.approx(3 * 5 + 5 + 10, abs=2)
    assert first.contributions["a"] == pytest.approx(3 * 4, abs=1.5)
    assert first.contributions["flag"] == pytest.approx(5, abs=1)
    assert first.contributions["kind"] == pytest.approx(10, abs=2)
    assert first.contributions["noise"] == pytest.approx(0, abs=0.1)
    assert second.contributions["a"] == pytest.approx(-3 * 4, abs=1.5)
    assert second.contributions["kind"] == pytest.approx(-10, abs=2)


def test_base_and_contributions_add_up_to_the_answer(linear, classes):
    answers = linear.predict(ROWS).values
    for answer, one in zip(answers, explained(linear, ROWS, orders=4), strict=True):
        assert one.base + math.fsum(one.contributions.values()) == pytest.approx(answer)
    row = {"a": 0.7, "b": 0.1, "when": "2024-03-01"}
    (one,) = explained(classes, [row])
    assert one.base + math.fsum(one.contributions.values()) == pytest.approx(1)
    assert one.contributions["a"] == pytest.approx(0.5, abs=0.15)
    assert one.contributions["b"] == one.contributions["when"] == 0


def test_a_row_is_always_explained_alike(linear):
    together = explained(linear, ROWS)
    assert together == [*explained(linear, ROWS[:1]), *explained(linear, ROWS[1:])]


def test_nothing_is_counted_that_nobody_has_sent(linear):
    before = linear.metrics.render()
    ask = Ask(rows=ROWS)
    explain(linear, ask, linear.evaluate(ask))
    assert linear.metrics.render() == before


def test_gaps_and_rows_as_arrays_are_explained_too(classes):
    (one,) = explained(classes, [[None, 0.1, None]])
    assert set(one.contributions) == {"a", "b", "when"}


def test_a_model_without_probabilities_is_explained_by_how_often_it_says_the_same(tmp_path_factory):
    table = pd.DataFrame({"a": np.linspace(-1, 1, 100), "b": 0.5})
    table["y"] = np.where(table["a"] > 0, "up", "down")
    svm = predictor_of(tmp_path_factory, table, estimator="sklearn.svm.LinearSVC")
    (one,) = explained(svm, [{"a": 0.9, "b": 0.5}])
    assert one.base + sum(one.contributions.values()) == pytest.approx(1)
    assert one.contributions["a"] == pytest.approx(0.5, abs=0.2)


def test_too_many_rows_are_refused_before_the_model_is_asked(linear):
    ask = Ask(rows=ROWS * 100)
    with pytest.raises(InputError, match="200 rows are too many to explain: ask for at most 156 at a time"):
        explain(linear, ask, linear.answer(ask))


def test_an_explanation_is_plain(linear):
    (one, _) = explained(linear, ROWS)
    assert all(type(value) is float for value in [one.base, *one.contributions.values()])
    assert not isinstance(one.contributions, MappingProxyType)
