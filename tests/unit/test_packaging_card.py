"""The model card as a value."""

import json
import math
from dataclasses import replace

import pytest

from longshore.errors import InvalidValue, ModelError
from longshore.packaging.card import Column, FeatureBins, ModelCard, Signature, as_text, bin_index, unix_seconds

MASS = Column(name="Körper masse (g)", kind="number", nullable=True)
ISLAND = Column(name="island", kind="category", nullable=False, categories=("Biscoe", "Dream"))
SIGNATURE = Signature(
    inputs=(MASS, ISLAND), task="classification", target="species", classes=("Adelie", "Gentoo"), ignored=("id",)
)
NUMBER = FeatureBins(name="mass", kind="number", edges=(1.0, 2.5), categories=(), counts=(1, 2, 3, 4))
CATEGORY = FeatureBins(name="island", kind="category", edges=(), categories=("1", "Dream"), counts=(1, 2, 3, 4))
BOOLEAN = FeatureBins(name="flag", kind="boolean", edges=(), categories=("False", "True"), counts=(1, 2, 3, 4))
DATE = FeatureBins(name="day", kind="date", edges=(86400.0,), categories=(), counts=(1, 2, 3))


def card(**changes):
    content = {
        "format": "sklearn",
        "task": "classification",
        "estimator": "sklearn.linear_model.LogisticRegression",
        "parameters": {"C": 0.5, "class_weight": None},
        "seed": 7,
        "signature": SIGNATURE,
        "baseline": (NUMBER, CATEGORY, BOOLEAN, DATE),
        "example": ({"Körper masse (g)": 3750.0, "island": "Dream"},),
        "data_digest": "sha256:" + "0" * 64,
        "rows": 344,
        "libraries": {"scikit-learn": "1.9.1"},
    }
    return ModelCard(**{**content, **changes})


def test_json_gives_the_same_card_back():
    original = card(files={"model.joblib": "sha256:" + "1" * 64})
    again = ModelCard.from_json(original.to_json())
    assert again == original
    assert again.to_json() == original.to_json()


@pytest.mark.parametrize("classes", [(False, True), (0, 1, 2), (0.5, 1.5), ("a", "ß")])
def test_classes_keep_their_type(classes):
    original = card(signature=replace(SIGNATURE, classes=classes))
    again = ModelCard.from_json(original.to_json()).signature.classes
    assert again == classes
    assert list(map(type, again)) == list(map(type, classes))


def test_the_order_of_parameters_does_not_show():
    assert card(parameters={"a": 1, "b": 2}).to_json() == card(parameters={"b": 2, "a": 1}).to_json()


def test_a_newer_card_asks_for_an_upgrade():
    content = {**json.loads(card().to_json()), "schema_version": 2, "something_new": 1}
    with pytest.raises(ModelError, match="schema_version 2, this longshore reads up to 1: upgrade longshore"):
        ModelCard.from_json(json.dumps(content))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("[1, 2]", "not a longshore model card"),
        ('{"schema_version": "1"}', "not a longshore model card"),
        ('{"schema_version": 1}', "KeyError: 'signature'"),
        (json.dumps({**json.loads(card().to_json()), "surprise": 1}), "surprise"),
        (json.dumps({**json.loads(card().to_json()), "example": [3]}), "not a valid model card"),
        (json.dumps({**json.loads(card().to_json()), "baseline": [{"name": "x"}]}), "not a valid model card"),
    ],
)
def test_a_damaged_card_is_refused(text, says):
    with pytest.raises(ModelError, match=says) as caught:
        ModelCard.from_json(text, where="m/model.json")
    assert "m/model.json" in str(caught.value)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Column(name="", kind="number", nullable=False),
        lambda: Column(name="x", kind="colour", nullable=False),
        lambda: Column(name="x", kind="category", nullable=False),
        lambda: Column(name="x", kind="number", nullable=False, categories=("a",)),
        lambda: Column(name="x", kind="category", nullable=False, categories=tuple(map(str, range(201)))),
        lambda: replace(SIGNATURE, task="clustering"),
        lambda: replace(SIGNATURE, inputs=()),
        lambda: replace(SIGNATURE, inputs=(MASS, MASS)),
        lambda: replace(SIGNATURE, target="island"),
        lambda: replace(SIGNATURE, classes=None),
        lambda: replace(SIGNATURE, task="regression"),
        lambda: replace(NUMBER, edges=(2.0, 1.0)),
        lambda: replace(NUMBER, counts=(1,)),
    ],
)
def test_a_value_that_breaks_a_rule_is_refused(build):
    with pytest.raises(InvalidValue):
        build()


@pytest.mark.parametrize(
    ("bins", "value", "index"),
    [
        (NUMBER, -math.inf, 0),
        (NUMBER, 0.999, 0),
        (NUMBER, 1.0, 1),
        (NUMBER, 2, 1),
        (NUMBER, 2.5, 2),
        (NUMBER, 1e300, 2),
        (NUMBER, None, 3),
        (NUMBER, math.nan, 3),
        (CATEGORY, "Dream", 1),
        (CATEGORY, 1, 0),
        (CATEGORY, 1.0, 0),
        (CATEGORY, "Biscoe", 2),
        (CATEGORY, None, 3),
        (BOOLEAN, False, 0),
        (BOOLEAN, 1.0, 1),
        (BOOLEAN, None, 3),
        (DATE, "1970-01-01", 0),
        (DATE, "1970-01-02", 1),
        (DATE, "1970-01-02T01:00:00+02:00", 0),
        (DATE, None, 2),
    ],
)
def test_each_value_has_its_bin(bins, value, index):
    assert bin_index(bins, value) == index


@pytest.mark.parametrize(
    ("bins", "labels"),
    [
        (NUMBER, ("< 1", "1 to 2.5", ">= 2.5", "missing")),
        (replace(NUMBER, edges=(), counts=(5, 0)), ("any", "missing")),
        (CATEGORY, ("1", "Dream", "other", "missing")),
        (DATE, ("< 1970-01-02 00:00:00", ">= 1970-01-02 00:00:00", "missing")),
    ],
)
def test_bins_are_named_for_people(bins, labels):
    assert bins.labels == labels
    assert len(labels) == bins.size


@pytest.mark.parametrize(("value", "text"), [(1, "1"), (1.0, "1"), (1.5, "1.5"), ("1", "1"), (True, "True")])
def test_a_value_reads_the_same_however_it_was_stored(value, text):
    assert as_text(value) == text


def test_a_moment_without_a_zone_is_utc():
    assert unix_seconds("2024-05-17T08:30:00") == unix_seconds("2024-05-17T10:30:00+02:00")
