"""From a conformed frame to the tensors of a network, and back to a model's answers."""

import numpy as np
import pandas as pd
import pytest

from longshore.errors import ModelError
from longshore.packaging import Column, Feed, ModelCard, Signature, rows_to_frame
from longshore.packaging.feeds import FeedReader
from longshore.packaging.images import image_text
from longshore.packaging.network import as_model
from longshore.training.examples import Part
from longshore.training.tensors import Batches, plan_table

PIXELS = np.arange(4, dtype=np.uint8).reshape(2, 2)
COLUMNS = (
    Column(name="age", kind="number", nullable=True),
    Column(name="island", kind="category", nullable=True, categories=("Biscoe", "Dream")),
    Column(name="alive", kind="boolean", nullable=True),
    Column(name="seen", kind="date", nullable=True),
    Column(name="photo", kind="image", nullable=False, shape=(2, 2, 1)),
    Column(name="words", kind="text", nullable=True),
)
SIGNATURE = Signature(inputs=COLUMNS, task="classification", target="kind", classes=("cat", "dog"))
ROWS = [
    {"age": 3, "island": "Dream", "alive": True, "seen": "1970-01-02", "photo": image_text(PIXELS), "words": "a b"},
    {"age": None, "island": "Torgersen", "alive": None, "seen": None, "photo": image_text(PIXELS), "words": None},
]
TABLE = ("age", "island", "alive", "seen")


def card(task="classification"):
    classes = ("cat", "dog") if task == "classification" else None
    return ModelCard(
        format="pytorch",
        task=task,
        estimator="a.b",
        parameters={},
        seed=0,
        signature=Signature(inputs=COLUMNS[:1], task=task, target="kind", classes=classes),
        baseline=(),
        example=({"age": 1.0},),
        data_digest="sha256:0",
        rows=2,
        libraries={},
        feeds=(Feed(name="features", columns=("age",), datatype="FP64", shape=(1,)),),
    )


def read(*feeds, tokenize=None):
    return FeedReader(feeds, SIGNATURE, tokenize)(rows_to_frame(SIGNATURE, ROWS))


def test_a_table_becomes_one_tensor():
    tensor = read(Feed(name="features", columns=TABLE, datatype="FP64", shape=(4,)))["features"]
    np.testing.assert_array_equal(tensor, [[3, 1, 1, 86400], [np.nan, -1, np.nan, np.nan]])
    assert tensor.dtype == np.float64


def test_each_column_can_be_a_tensor():
    feeds = [Feed(name=f"{name}_", columns=(name,), datatype="FP64") for name in TABLE]
    tensors = read(*feeds)
    assert list(tensors) == ["age_", "island_", "alive_", "seen_"]
    np.testing.assert_array_equal(tensors["island_"], [1, -1])


def test_strings_pictures_and_token_ids():
    tensors = read(
        Feed(name="island", columns=("island",), datatype="BYTES"),
        Feed(name="words", columns=("words",), datatype="BYTES"),
        Feed(name="photo", columns=("photo",), datatype="UINT8", shape=(2, 2, 1)),
        Feed(name="ids", columns=("words",), datatype="INT64", shape=(3,)),
        tokenize=lambda texts: np.array([[len(text)] * 3 for text in texts], dtype=np.int64),
    )
    assert tensors["island"].tolist() == ["Dream", "Torgersen"]
    assert tensors["words"].tolist() == ["a b", ""]
    assert (tensors["photo"].shape, tensors["photo"].dtype) == ((2, 2, 2, 1), np.uint8)
    assert tensors["ids"].tolist() == [[3, 3, 3], [0, 0, 0]]


def test_an_array_of_numbers_is_taken_as_it_is():
    numbers = Signature(
        inputs=(COLUMNS[0], Column(name="mass", kind="number", nullable=False)),
        task="regression",
        target="t",
        classes=None,
    )
    rows = np.array([[1.0, 2.0], [3.0, 4.0]])
    whole = FeedReader([Feed(name="features", columns=("age", "mass"), datatype="FP64", shape=(2,))], numbers)
    np.testing.assert_array_equal(whole(rows)["features"], rows)
    turned = FeedReader(
        [
            Feed(name="m", columns=("mass",), datatype="FP64"),
            Feed(name="both", columns=("mass", "age"), datatype="FP64", shape=(2,)),
        ],
        numbers,
    )
    np.testing.assert_array_equal(turned(rows)["m"], [2, 4])
    np.testing.assert_array_equal(turned(rows)["both"], rows[:, ::-1])


def test_feeds_that_do_not_fit_are_refused():
    with pytest.raises(ModelError, match="'x' is made of columns that are no inputs"):
        FeedReader([Feed(name="x", columns=("nose",), datatype="FP64")], SIGNATURE)
    with pytest.raises(ModelError, match=r"'x' holds token ids, and the model has no tokenizer.json"):
        FeedReader([Feed(name="x", columns=("words",), datatype="INT64", shape=(3,))], SIGNATURE)


def test_a_card_keeps_its_feeds():
    assert ModelCard.from_json(card().to_json()) == card()


def model(answer, task="classification"):
    calls = []

    def run(tensors):
        calls.append(len(tensors["features"]))
        return answer(tensors["features"])

    described = card(task)
    return as_model(run, FeedReader(described.feeds, described.signature), described, "the model"), calls


def test_a_network_answers_with_labels_and_probabilities_and_runs_once_for_both():
    classifier, calls = model(lambda features: np.hstack([features, 1 - features]).astype(np.float32))
    frame = pd.DataFrame({"age": [0.25, 0.75]})
    assert classifier.predict(frame).tolist() == ["dog", "cat"]
    assert classifier.predict_proba(frame).tolist() == [[0.25, 0.75], [0.75, 0.25]]
    assert calls == [2]
    assert classifier.predict_proba(frame).shape == (2, 2)
    assert calls == [2, 2]


def test_many_rows_go_through_in_parts():
    regressor, calls = model(lambda features: features[:, 0] * 2, "regression")
    values = np.arange(600.0)
    np.testing.assert_array_equal(regressor.predict(values[:, None]), values * 2)
    assert calls == [256, 256, 88]


def test_an_answer_of_another_shape_is_told():
    regressor, _ = model(lambda features: features, "regression")
    with pytest.raises(ModelError, match=r"the model answers 2 rows with the shape \[2, 1\], and not \[2\]"):
        regressor.predict(np.zeros((2, 1)))


def test_the_plan_of_a_table():
    values = np.array([[1.0, 0, 1], [3.0, 1, np.nan], [5.0, -1, 1]])
    plan = plan_table(COLUMNS[:3], values)
    assert (plan.numbers, plan.flagged, plan.categories) == ((0, 2), (1,), ((1, 2),))
    assert plan.means == (3.0, 1.0)
    assert plan.scales == (pytest.approx(1.632993), 1.0)
    assert plan.width == 5


def test_a_column_without_any_value_in_the_training_part_does_no_harm():
    plan = plan_table(COLUMNS[:1], np.array([[np.nan], [np.nan]]))
    assert (plan.means, plan.scales, plan.flagged) == ((0.0,), (1.0,), (0,))


@pytest.mark.parametrize("limit", [2**29, 0], ids=["kept", "decoded anew"])
def test_batches_are_any_rows(limit, monkeypatch):
    monkeypatch.setattr("longshore.training.tensors._KEPT_BYTES", limit)
    files = [image_text(np.full((2, 2), number, np.uint8)) for number in range(4)]
    frame = pd.DataFrame({"age": [0.0, 1, 2, 3], "photo": files})
    feeds = (
        Feed(name="photo", columns=("photo",), datatype="UINT8", shape=(2, 2, 1)),
        Feed(name="features", columns=("age",), datatype="FP64", shape=(1,)),
    )
    batches = Batches(Part(frame=frame, targets=np.arange(4)), feeds, SIGNATURE)
    assert len(batches) == 4
    for rows, expected in (([3, 1], [3, 1]), (slice(1, 3), [1, 2]), ([], [])):
        tensors = batches(rows)
        assert list(tensors) == ["photo", "features"]
        assert tensors["photo"][:, 0, 0, 0].tolist() == expected
        assert tensors["features"][:, 0].tolist() == expected
