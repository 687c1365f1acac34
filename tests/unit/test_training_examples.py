"""What a network learns from, before any framework is asked."""

import numpy as np
import pandas as pd
import pytest

from longshore.errors import ConfigError, DataError, TrainingError
from longshore.packaging.images import encode_image
from longshore.training.examples import make_examples
from longshore.training.networks import Recipe, build_network

ROWS = 40
PICTURES = [encode_image(np.full((4, 6), number * 6, np.uint8)) for number in range(ROWS)]
SQUARE = encode_image(np.zeros((3, 3), np.uint8))
RISING = np.linspace(0, 1, ROWS)
TEXTS = [f"the text of row {number}" for number in range(ROWS)]
KINDS = ["cat", "dog"] * (ROWS // 2)


def table(**columns):
    return pd.DataFrame({"photo": PICTURES, "words": TEXTS, "age": range(ROWS), "kind": KINDS, **columns})


def make(frame=None, **options):
    return make_examples(table() if frame is None else frame, **{"target": "kind", "text_column": "words", **options})


def test_columns_pictures_and_texts_are_told_apart():
    examples = make()
    assert (examples.image.name, examples.image.shape) == ("photo", (4, 6, 1))
    assert examples.text.name == "words"
    assert [column.name for column in examples.table] == ["age"]
    assert examples.signature.classes == ("cat", "dog")
    assert (len(examples.training), len(examples.validation)) == (36, 4)
    assert sorted(np.bincount(examples.validation.targets)) == [2, 2]
    assert [bins.name for bins in examples.baseline] == ["photo", "words", "age"]
    assert examples.example[0]["words"].startswith("the text")


def test_the_same_seed_divides_the_same_way():
    one, same, other = make(seed=1), make(seed=1), make(seed=2)
    pd.testing.assert_frame_equal(one.validation.frame, same.validation.frame)
    assert not one.validation.frame.equals(other.validation.frame)


def test_validation_rows_can_be_ones_own_or_none():
    own = table().head(7)
    assert len(make(validation=own).validation) == 7
    assert len(make(validation=own).training) == ROWS
    assert len(make(validation_share=0).validation) == 0


def test_rows_without_a_target_are_left_out():
    examples = make(table(kind=[None, *KINDS[1:]]))
    assert (examples.rows, examples.rows_without_target) == (ROWS - 1, 1)


def test_a_number_is_a_regression():
    examples = make(target="age")
    assert examples.signature.classes is None
    assert examples.training.targets.dtype == np.float64


@pytest.mark.parametrize(
    ("size", "shape"), [([2, 3], (2, 3, 1)), ([2, 3, 3], (2, 3, 3)), (None, (4, 6, 1)), ([4, 6, 1], (4, 6, 1))]
)
def test_pictures_are_brought_to_one_size(size, shape):
    assert make(image_size=size).image.shape == shape


def test_of_many_pictures_some_are_counted(monkeypatch):
    monkeypatch.setattr("longshore.training.examples._BASELINE_PICTURES", 10)
    assert sum(make().baseline[0].counts) == 10


@pytest.mark.parametrize(
    ("frame", "options", "error", "says"),
    [
        (
            table(photo=[*PICTURES[1:], encode_image(np.zeros((3, 3), np.uint8))]),
            {},
            DataError,
            "3 x 3 in row 39: set image",
        ),
        (table(photo=[*PICTURES[1:], None]), {}, DataError, "a picture in row 39: there is none"),
        (table(photo=[*PICTURES[1:], b"text"]), {}, DataError, "in row 39: expected a picture"),
        (table(other=PICTURES), {}, DataError, r"several columns of pictures \(photo, other\)"),
        (table().drop(columns="photo"), {"image_size": [2, 2]}, ConfigError, "no column holds pictures"),
        (None, {"image_size": [2, 2, 2]}, ConfigError, "height, width and channels"),
        (None, {"text_column": "nose"}, DataError, "text column 'nose' is not in the table"),
        (None, {"text_column": "age"}, ConfigError, "text_column = 'age' is not valid"),
        (None, {"text_column": "kind"}, ConfigError, "text_column = 'kind' is not valid"),
        (None, {"text_column": "words", "exclude": ["words"]}, ConfigError, "is not valid"),
        (table()[["words", "kind"]], {"text_column": None}, DataError, "name it as text_column"),
        (None, {"task": "regression"}, TrainingError, "use task='classification'"),
        (
            table(age=np.linspace(0, 1, ROWS)),
            {"target": "age", "task": "classification"},
            TrainingError,
            "task='regress",
        ),
        (None, {"validation_share": 1.0}, ConfigError, "validation_share"),
        (None, {"seed": -1}, ConfigError, "seed"),
        (None, {"validation": table(kind=["bird"] * ROWS)}, DataError, "classes that no training row has: bird"),
    ],
)
def test_what_cannot_be_learned_from_is_told(frame, options, error, says):
    with pytest.raises(error, match=says):
        make(frame, **options)


def test_words_that_are_no_category_are_left_out_and_named():
    words = [f"word{number % 250}" for number in range(600)]
    frame = pd.DataFrame({"words": words, "age": range(600), "kind": ["a", "b"] * 300})
    examples = make_examples(frame, target="kind")
    assert [column.name for column in examples.signature.inputs] == ["age"]
    assert examples.left_out["words"] == "it has too many different values for a category"
    with pytest.raises(DataError, match="words hold more than 200 different strings"):
        make_examples(frame[["words", "kind"]], target="kind")


def builder(outputs, width=8, *, features=0):
    return outputs, width, features


def test_a_network_is_given_what_it_asks_for():
    facts = {"outputs": 3, "features": 5, "image_shape": (1, 2, 2)}
    assert build_network("a.builder", builder, {"width": 2}, facts) == (3, 2, 5)
    assert build_network("a.builder", builder, {"outputs": 7}, facts) == (7, 8, 5)


@pytest.mark.parametrize(
    ("made", "parameters", "says"),
    [
        (builder, {"widht": 2}, "does not take the parameter 'widht': did you mean 'width'"),
        (lambda: 1 / 0, {}, "failed with ZeroDivisionError"),
        ("text", {}, "is a str: name a class or a function"),
    ],
)
def test_a_network_that_cannot_be_built_is_told(made, parameters, says):
    with pytest.raises(TrainingError, match=says):
        build_network("a.builder", made, parameters, {"outputs": 1})


def recipe(**options):
    return Recipe(**{"network": "a.b", "optimizer": "c.d", "loss": "e.f", **options})


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"text_length": 0}, {"vocabulary_size": 1.5}])
def test_a_recipe_that_cannot_be_followed_is_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        recipe(**options)


def test_a_digest_without_a_source_is_refused():
    with pytest.raises(ConfigError, match="no source"):
        recipe(source_digest="sha256:" + "0" * 64)


def test_only_the_same_training_shares_a_checkpoint(tmp_path):
    examples = make()

    def uri(recipe, examples=examples, library="torch 1"):
        return recipe.checkpoints(str(tmp_path), examples, library).uri

    assert uri(recipe()) == uri(recipe())
    others = {
        uri(recipe(network="a.c")),
        uri(recipe(parameters={"width": 1})),
        uri(recipe(epochs=3)),
        uri(recipe(seed=1)),
        uri(recipe(source_digest="sha256:" + "0" * 64, source=tmp_path)),
        uri(recipe(), library="torch 2"),
        uri(recipe(), make(seed=3)),
        uri(recipe(), make(exclude=["age"])),
        uri(recipe(), make(table(age=range(1, ROWS + 1)))),
        uri(recipe(), make(validation=table().head(6))),
        uri(recipe(), make(validation=table(words="other").head(6))),
        uri(recipe(), make(validation_share=0.2)),
    }
    assert len(others) == 12
    assert uri(recipe()) not in others
    assert recipe().checkpoints(None, examples, "torch 1") is None
