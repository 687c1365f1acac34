"""Training with Keras on TensorFlow, and serving what comes of it."""

import json

import numpy as np
import pandas as pd
import pytest

from longshore.errors import DigestMismatch, InputError, ModelError, TrainingError
from longshore.packaging import load_model, read_card, save_files
from longshore.packaging.images import decode_image
from longshore.serving.core import Predictor
from longshore.serving.protocol import infer, predict
from longshore.training import source_digest, train_tensorflow
from longshore.validation.evaluate import evaluate

DEFAULT = "serving_default"
FAST = {"optimizer_parameters": {"learning_rate": 0.01}, "parameters": {"width": 16}}


@pytest.fixture(scope="session")
def pictures(digits, tmp_path_factory):
    """A model of the digits, with its digest."""
    trained = train_tensorflow(digits[0], target="digit", epochs=8, **FAST)
    directory = tmp_path_factory.mktemp("models") / "tensorflow"
    return directory, trained.save(directory), trained


@pytest.fixture(scope="session")
def everything(reviews, digits, tmp_path_factory):
    """A model of texts, pictures and a table with names that TensorFlow does not take."""
    frame = reviews.assign(
        photo=[digits[0]["photo"][number % 100] for number in range(len(reviews))],
        **{"night's (n°)": reviews["nights"].where(reviews.index != 3), "Place": ["a", "b", "c"] * 80},
        place=[True, False] * 120,
    ).drop(columns="nights")
    trained = train_tensorflow(frame, target="kind", text_column="review", text_length=12, epochs=6, **FAST)
    directory = tmp_path_factory.mktemp("models") / "everything"
    return directory, trained.save(directory), frame


def signature_of(directory, name="serving_default"):
    import tensorflow as tf

    return tf.saved_model.load(str(directory)).signatures[name]


def test_pictures_are_learned_saved_and_judged(pictures, digits):
    directory, digest, trained = pictures
    loaded = load_model(directory, digest)
    assert loaded.card.format == "tensorflow"
    assert evaluate(loaded, digits[1], target="digit").metrics["accuracy"] > 0.75
    assert trained.course.metrics["validation_accuracy"] > 0.75


def test_the_same_data_arguments_and_seed_give_the_same_weights(pictures, digits, tmp_path):
    again = train_tensorflow(digits[0], target="digit", epochs=8, **FAST)
    assert again.course == pictures[2].course
    again.save(tmp_path / "again")
    one, other = (weights_of(directory) for directory in (pictures[0], tmp_path / "again"))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


def weights_of(directory):
    import tensorflow as tf

    stored = tf.train.load_checkpoint(str(directory / "variables" / "variables"))
    names = [name for name in stored.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name]
    return {name: stored.get_tensor(name) for name in names}


def test_tensorflow_itself_answers_as_the_server_does(pictures, digits):
    import tensorflow as tf

    directory, digest, _ = pictures
    loaded = load_model(directory, digest)
    pixels = np.stack([decode_image(file, (8, 8, 1)) for file in digits[1]["photo"][:5]])
    answer = signature_of(directory)(photo=tf.constant(pixels))
    assert answer["predict"].numpy().tolist() == loaded.predict(digits[1][:5]).tolist()
    np.testing.assert_allclose(answer["predict_proba"].numpy(), loaded.predict_proba(digits[1][:5]), atol=1e-6)
    files = signature_of(directory, "encoded")(photo=tf.constant(digits[1]["photo"][:5].tolist()))
    np.testing.assert_allclose(files["predict_proba"].numpy(), answer["predict_proba"].numpy(), atol=1e-6)


def test_it_lies_as_tensorflow_serving_wants_it(pictures, tmp_path):
    from longshore.packaging import package_model
    from longshore.spec import ModelSource

    directory, digest, _ = pictures
    source = ModelSource(uri=str(directory), format="tensorflow", name="digits", digest=digest)
    packaged = package_model(source, str(tmp_path), name="digits", version="3")
    assert (tmp_path / "digits" / "3" / "saved_model.pb").is_file()
    assert packaged.digest == digest
    assert load_model(tmp_path / "digits" / "3", digest).card == read_card(directory)


def test_it_is_served_and_bad_rows_are_told_by_their_field(everything):
    directory, digest, _ = everything
    predictor = Predictor.load(directory, name="all", digest=digest, version="1", revision="all-1")
    rows = [dict(row) for row in predictor.card.example]
    answers = predict(predictor, {"instances": rows, "parameters": {"probabilities": True}})
    assert answers["predictions"] == predictor.predict(rows).values
    assert set(answers["predictions"]) <= {"good", "bad"}
    json.dumps(answers)
    with pytest.raises(InputError, match="row 0, column 'place': expected true or false, got a string"):
        predict(predictor, {"instances": [{**rows[0], "place": "yes"}]})
    with pytest.raises(InputError, match="column 'Plaice' is unknown"):
        predict(predictor, {"instances": [{**rows[0], "Plaice": "a"}]})
    tensors = [
        {"name": column.name, "shape": [2, 1], "datatype": "BYTES", "data": [row[column.name] for row in rows]}
        for column in predictor.card.signature.inputs
    ]
    assert infer(predictor, {"inputs": tensors})["outputs"][0]["data"] == answers["predictions"]


def test_columns_keep_their_names_as_far_as_tensorflow_takes_them(everything):
    directory, _, frame = everything
    feeds = {feed.columns[0]: feed.name for feed in read_card(directory).feeds}
    assert feeds == {
        "review": "review",
        "photo": "photo",
        "night's (n°)": "night_s_n",
        "Place": "Place",
        "place": "place_2",
    }
    specs = signature_of(directory).structured_input_signature[1]
    assert {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in specs.items()} == {
        "review": ("string", [None]),
        "photo": ("uint8", [None, 8, 8, 1]),
        "night_s_n": ("float64", [None]),
        "Place": ("string", [None]),
        "place_2": ("float64", [None]),
    }
    loaded = load_model(directory)
    assert evaluate(loaded, frame[1:], target="kind").metrics["accuracy"] > 0.95


def test_a_table_with_gaps_and_categories_is_learned(penguins, tmp_path):
    trained = train_tensorflow(penguins, target="species", epochs=15, **FAST)
    loaded = load_model(tmp_path / "m", trained.save(tmp_path / "m"))
    assert evaluate(loaded, penguins, target="species").metrics["accuracy"] > 0.95
    unseen = pd.DataFrame([{**penguins.iloc[0].to_dict(), "island": "Nowhere", "body_mass_g": None}])
    assert loaded.predict(unseen)[0] in ("Adelie", "Chinstrap", "Gentoo")


def test_numbers_and_dates_are_predicted_from(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(300, 2)), columns=["a", "b"])
    table["day"] = pd.date_range("2024-01-01", periods=300)
    table["sum"] = 1000 + 10 * table["a"] - 5 * table["b"]
    trained = train_tensorflow(table, target="sum", epochs=40, **FAST)
    assert trained.course.metrics["validation_rmse"] < 4
    loaded = load_model(tmp_path / "m", trained.save(tmp_path / "m"))
    np.testing.assert_allclose(loaded.predict(table.head(4)), table["sum"].head(4), atol=10)
    assert set(signature_of(tmp_path / "m").structured_outputs) == {"predict"}


def test_whole_numbers_and_booleans_come_back_as_they_were(penguins, tmp_path):
    table = penguins.dropna().assign(heavy=lambda t: t["body_mass_g"] > 4200)
    trained = train_tensorflow(table, target="heavy", epochs=3, exclude=["body_mass_g"], **FAST)
    loaded = load_model(tmp_path / "m", trained.save(tmp_path / "m"))
    assert {type(label) for label in loaded.predict(table).tolist()} == {bool}


OWN = """
import keras

def own(outputs, features, width=8):
    rows = keras.Input((features,))
    hidden = keras.layers.Dropout(0.2)(keras.layers.Dense(width, activation="relu")(rows))
    return keras.Model(rows, keras.layers.Dense(outputs)(hidden))

def softmax(outputs, features):
    return keras.Sequential([keras.Input((features,)), keras.layers.Dense(outputs, activation="softmax")])

def narrow(outputs, features):
    return keras.Sequential([keras.Input((features,)), keras.layers.Dense(outputs - 1)])

def wrong(outputs, features):
    return keras.Sequential([keras.Input((features + 1,)), keras.layers.Dense(outputs)])

def nothing(features):
    return keras.Sequential([keras.Input((features,)), keras.layers.Flatten()])
"""


@pytest.fixture
def source(tmp_path):
    (tmp_path / "own").write_text(OWN)
    return tmp_path / "own"


def test_ones_own_network_is_trained_from_its_source(penguins, source, tmp_path):
    trained = train_tensorflow(
        penguins,
        target="species",
        network="own.own",
        parameters={"width": 12},
        source=source,
        source_digest=source_digest(source),
        optimizer="keras.optimizers.SGD",
        optimizer_parameters={"learning_rate": 0.3},
        epochs=20,
    )
    digest = trained.save(tmp_path / "m")
    source.unlink()
    assert evaluate(load_model(tmp_path / "m", digest), penguins, target="species").metrics["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"network": "own.softmax"}, "own.softmax gives probabilities: leave out the softmax"),
        ({"network": "own.narrow"}, r"gives \[2, 2\] for 2 rows: scores of the shape \[2, 3\]"),
        ({"network": "own.wrong"}, "own.wrong fails on a batch made of"),
        ({"network": "own.nothing"}, "scores of the shape"),
        ({"network": "builtins.dict"}, "gives a dict: a keras.Model is needed"),
        ({"network": "own.own", "optimizer": "keras.optimizers.Adamw"}, "no 'Adamw'; did you mean"),
    ],
)
def test_what_cannot_be_trained_is_told(penguins, source, options, says):
    given = {} if options["network"] == "builtins.dict" else {"source": source, "source_digest": source_digest(source)}
    with pytest.raises(TrainingError, match=says):
        train_tensorflow(penguins, target="species", **given, **options)


def test_a_changed_file_is_not_loaded(pictures, tmp_path):
    import shutil

    directory, digest, _ = pictures
    shutil.copytree(directory, tmp_path / "copy")
    (weights,) = (tmp_path / "copy" / "variables").glob("*.data*")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    for expected in (digest, None):
        with pytest.raises(DigestMismatch):
            load_model(tmp_path / "copy", expected)


def test_a_saved_model_without_the_signature_says_so(pictures, tmp_path):
    import tensorflow as tf

    module = tf.Module()
    module.f = tf.function(lambda x: {"y": x}, input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    card = read_card(pictures[0])
    for name, says in (("other", r"no signature 'serving_default' \(it has: other\)"), (DEFAULT, "gives y, and not")):
        signatures = {name: module.f}
        save_files(tmp_path / "m", lambda to, s=signatures: tf.saved_model.save(module, str(to), signatures=s), card)
        with pytest.raises(ModelError, match=says):
            load_model(tmp_path / "m")
