"""Models that take arrays of numbers: what is read for them, and when they are given them."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from longshore.packaging import Column, LoadedModel, MatrixReader, Signature, take_arrays
from longshore.training.fit import train_sklearn

NAMES = ("sepal_length", "sepal_width", "petal_length", "petal_width")


def signature(*kinds) -> Signature:
    inputs = tuple(Column(name=f"x{index}", kind=kind, nullable=False) for index, kind in enumerate(kinds))
    return Signature(inputs=inputs, task="regression", target="y", classes=None)


@pytest.fixture(scope="module")
def iris() -> pd.DataFrame:
    table = load_iris(as_frame=True)
    frame = table.data.set_axis(list(NAMES), axis="columns")
    frame["species"] = [str(table.target_names[index]) for index in table.target]
    return frame


@pytest.fixture(scope="module")
def card(iris):
    return train_sklearn(iris, target="species", estimator="sklearn.linear_model.LogisticRegression").card


def loaded(model, card) -> LoadedModel:
    return LoadedModel(model=model, card=card, directory=Path())


@pytest.mark.parametrize(
    ("kinds", "rows", "read"),
    [
        (["number", "integer"], [{"x0": 1.5, "x1": 2}], [[1.5, 2]]),
        (["number", "integer"], [{"x1": 2, "x0": 1}, {"x0": 0.5, "x1": 3.0}], [[1, 2], [0.5, 3]]),
        (["number", "integer"], [[1.5, 2], [2, 3]], [[1.5, 2], [2, 3]]),
        (["number"], [{"x0": 1.5}], [[1.5]]),
        (["number"], [[1.5], [2]], [[1.5], [2]]),
    ],
)
def test_rows_of_plain_numbers_are_read(kinds, rows, read):
    assert MatrixReader(signature(*kinds)).rows(rows).tolist() == read


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"x0": 1.5}],
        [{"x0": 1.5, "x2": 1}],
        [{"x0": 1.5, "x1": 1, "y": 2}],
        [{"x0": 1.5, "x1": None}],
        [{"x0": "1.5", "x1": 1}],
        [{"x0": True, "x1": 1}],
        [{"x0": 1.5, "x1": 1.5}],
        [{"x0": float("nan"), "x1": 1}],
        [{"x0": float("inf"), "x1": 1}],
        [{"x0": 10**400, "x1": 1}],
        [{"x0": [1.5], "x1": 1}],
        [[1.5]],
        [[1.5, 1], {"x0": 1.5, "x1": 1}],
        [{"x0": 1.5, "x1": 1}, [1.5, 1]],
        ["ab"],
        [None],
    ],
)
def test_a_closer_look_is_left_to_others(rows):
    assert MatrixReader(signature("number", "integer")).rows(rows) is None


def test_a_boolean_is_looked_at_closer():
    reader = MatrixReader(signature("number", "boolean"))
    assert reader.rows([{"x0": 1.0, "x1": 1}]) is None
    assert reader.tensor(np.ones((1, 2)), (1, 2)) is None


def test_a_tensor_is_read_row_by_row():
    reader = MatrixReader(signature("number", "integer"))
    assert reader.tensor([1.5, 2, 2.5, 3], (2, 2)).tolist() == [[1.5, 2], [2.5, 3]]
    assert reader.tensor(np.array([1, 2, 3, 4], "<i4"), (2, 2)).tolist() == [[1, 2], [3, 4]]
    assert reader.tensor(np.array([1, 2.5]), (1, 2)) is None
    assert reader.tensor([1, True], (1, 2)) is None
    assert reader.tensor([1, None], (1, 2)) is None
    assert reader.tensor([10**400, 1], (1, 2)) is None
    assert reader.tensor(np.array([np.nan, 1]), (1, 2)) is None
    assert reader.tensor(np.zeros((0, 2)), (0, 2)) is None


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(max_iter=10_000),
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=10_000)),
        make_pipeline(
            ColumnTransformer([("scale", StandardScaler(), list(NAMES[1:]))]), LogisticRegression(max_iter=10_000)
        ),
    ],
)
def test_a_model_that_was_trained_on_a_table_takes_arrays_and_answers_the_same(model, iris, card):
    table = iris[list(NAMES)]
    model.fit(table, iris["species"])
    expected = model.predict_proba(table)
    given = loaded(model, card)
    assert take_arrays(given) is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(given.predict_proba(table.to_numpy(), conformed=True), expected)


def by_name(table):
    return table[["petal_length"]]


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(FunctionTransformer(by_name), LogisticRegression(max_iter=10_000)),
        make_pipeline(StandardScaler(), FunctionTransformer(by_name), LogisticRegression(max_iter=10_000)).set_output(
            transform="pandas"
        ),
    ],
)
def test_a_model_that_needs_names_keeps_its_table(model, iris, card):
    table = iris[list(NAMES)]
    model.fit(table, iris["species"])
    expected = model.predict(table)
    given = loaded(model, card)
    assert take_arrays(given) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(given.predict(table, conformed=True), expected)


def test_a_column_of_strings_needs_a_table(iris, card):
    inputs = (
        *card.signature.inputs[:-1],
        Column(name="petal_width", kind="category", nullable=False, categories=("1",)),
    )
    model = LogisticRegression(max_iter=10_000).fit(iris[list(NAMES)], iris["species"])
    assert take_arrays(loaded(model, replace(card, signature=replace(card.signature, inputs=inputs)))) is None
