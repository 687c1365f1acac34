"""Training with PyTorch, and serving what comes of it."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from longshore.errors import DigestMismatch, InputError, ModelError, TrainingError
from longshore.packaging import load_model, read_card
from longshore.packaging.images import decode_image
from longshore.serving.core import Predictor
from longshore.serving.protocol import infer, model_v2, predict
from longshore.training import source_digest, train_torch
from longshore.validation.evaluate import evaluate

FAST = {"optimizer_parameters": {"lr": 0.01}, "parameters": {"width": 16}}
FILES = {"pt2": "model.pt2", "torchscript": "model.pt", "onnx": "model.onnx"}


@pytest.fixture(scope="session")
def pictures(digits, tmp_path_factory):
    """A model of the digits in each kind of file, with its digest."""
    made = {}

    def make(save_as):
        if save_as not in made:
            trained = train_torch(digits[0], target="digit", epochs=10, save_as=save_as, **FAST)
            directory = tmp_path_factory.mktemp("models") / save_as
            made[save_as] = directory, trained.save(directory), trained
        return made[save_as]

    return make


def served(directory, digest):
    return Predictor.load(directory, name="digits", digest=digest, version="1", revision="digits-1")


@pytest.mark.parametrize("save_as", FILES)
def test_pictures_are_learned_saved_and_judged(pictures, digits, save_as, monkeypatch):
    directory, digest, trained = pictures(save_as)
    loaded = load_model(directory, digest)
    assert list(loaded.card.files) == [FILES[save_as]]
    assert loaded.card.format == ("onnx" if save_as == "onnx" else "pytorch")
    assert evaluate(loaded, digits[1], target="digit").metrics["accuracy"] > 0.75
    assert trained.course.metrics["validation_accuracy"] > 0.75
    # a few at a time or all at once
    whole = evaluate(loaded, digits[1], target="digit")
    monkeypatch.setattr("longshore.validation.evaluate._PICTURES", 7)
    assert evaluate(loaded, digits[1], target="digit") == whole
    # whatever the file, it is the same network
    first = load_model(pictures("pt2")[0])
    np.testing.assert_allclose(loaded.predict_proba(digits[1]), first.predict_proba(digits[1]), atol=1e-5)


@pytest.mark.parametrize("save_as", FILES)
def test_a_file_says_nothing_of_the_machine(penguins, source, tmp_path, save_as):
    saved = []
    for _ in range(2):
        trained = train_torch(
            penguins,
            target="species",
            network="own.Own",
            source=source,
            source_digest=source_digest(source),
            epochs=1,
            save_as=save_as,
        )
        trained.save(tmp_path / "m")
        saved.append((tmp_path / "m" / FILES[save_as]).read_bytes())
    # TorchScript numbers the classes of a process
    assert saved[0] == saved[1] or save_as == "torchscript"
    assert b"/longshore-" not in saved[0]
    assert str(Path.home()).encode() not in saved[0]


def test_the_same_data_arguments_and_seed_give_the_same_bytes(pictures, digits, tmp_path):
    again = train_torch(digits[0], target="digit", epochs=10, **FAST)
    assert again.save(tmp_path / "again") == pictures("pt2")[1]
    other = train_torch(digits[0], target="digit", epochs=1, seed=1, **FAST)
    assert other.save(tmp_path / "other") != pictures("pt2")[1]


def test_pictures_are_served_in_every_form(pictures, digits):
    directory, digest, _ = pictures("pt2")
    predictor = served(directory, digest)
    (row, *_) = predictor.card.example
    answers = predict(predictor, {"instances": [row, [row["photo"]]], "parameters": {"probabilities": True}})
    assert answers["predictions"] == [answers["predictions"][0]] * 2
    assert len(answers["probabilities"][0]) == 10
    pixels = np.stack([decode_image(file, (8, 8, 1)) for file in digits[1]["photo"][:3]])
    tensor = {"name": "photo", "datatype": "UINT8", "shape": [3, 8, 8, 1], "data": pixels.reshape(-1)}
    answered = infer(predictor, {"inputs": [tensor], "outputs": [{"name": "predict"}]})["outputs"][0]
    assert answered["data"] == load_model(directory).predict(digits[1][:3]).tolist()
    assert model_v2(predictor)["platform"] == "pytorch"
    assert predictor.counts is not None


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"photo": "no base64!"}, "row 0, column 'photo': expected a picture in base64"),
        ({"photo": None}, "row 0, column 'photo': expected a picture"),
        ({"foto": "x"}, "column 'foto' is unknown: did you mean 'photo'"),
        ({"photo": [[1, 2], [3, 4]]}, r"expected pixels of the shape \[8, 8, 1\], got \[2, 2\]"),
    ],
)
def test_a_row_that_does_not_fit_is_told_by_its_field(pictures, row, says):
    directory, digest, _ = pictures("pt2")
    with pytest.raises(InputError, match=says):
        predict(served(directory, digest), {"instances": [row]})


def test_a_file_that_was_changed_is_not_loaded(pictures, tmp_path):
    import shutil

    directory, digest, _ = pictures("torchscript")
    shutil.copytree(directory, tmp_path / "copy")
    content = bytearray((tmp_path / "copy" / "model.pt").read_bytes())
    content[-1] ^= 1
    (tmp_path / "copy" / "model.pt").write_bytes(content)
    for expected in (digest, None):
        with pytest.raises(DigestMismatch):
            load_model(tmp_path / "copy", expected)


def test_a_file_that_is_no_network_says_so(pictures, tmp_path):
    from longshore.packaging import save_files

    card = read_card(pictures("pt2")[0])
    digest = save_files(tmp_path / "bad", lambda work: (work / "model.pt2").write_bytes(b"text"), card)
    with pytest.raises(ModelError, match=r"model.pt2 could not be loaded .*it was made with torch \d"):
        load_model(tmp_path / "bad", digest)


@pytest.mark.parametrize("save_as", FILES)
def test_a_table_with_gaps_and_categories_is_learned(penguins, tmp_path, save_as):
    trained = train_torch(penguins, target="species", epochs=15, save_as=save_as, **FAST)
    loaded = load_model(tmp_path / "m", trained.save(tmp_path / "m"))
    assert evaluate(loaded, penguins, target="species").metrics["accuracy"] > 0.95
    unseen = pd.DataFrame([{**penguins.iloc[0].to_dict(), "island": "Nowhere", "body_mass_g": None}])
    assert loaded.predict(unseen)[0] in ("Adelie", "Chinstrap", "Gentoo")


def test_a_table_of_numbers_is_served_from_arrays(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(300, 3)), columns=["a", "b", "c"])
    table["sum"] = 1000 + 10 * table["a"] - 5 * table["b"]
    trained = train_torch(table, target="sum", epochs=30, **FAST)
    assert trained.course.metrics["validation_rmse"] < 3
    digest = trained.save(tmp_path / "m")
    loaded = load_model(tmp_path / "m", digest)
    predictor = served(tmp_path / "m", digest)
    assert predictor._reader is not None
    rows = table[["a", "b", "c"]].head(4)
    answers = predict(predictor, {"instances": rows.to_numpy().tolist()})["predictions"]
    np.testing.assert_allclose(answers, loaded.predict(rows))
    np.testing.assert_allclose(answers, table["sum"].head(4), atol=6)


@pytest.mark.parametrize("save_as", FILES)
def test_texts_are_learned_with_a_table_beside_them(reviews, tmp_path, save_as):
    trained = train_torch(
        reviews, target="kind", text_column="review", text_length=12, epochs=8, save_as=save_as, **FAST
    )
    loaded = load_model(tmp_path / "m", trained.save(tmp_path / "m"))
    assert sorted(loaded.card.files) == sorted([FILES[save_as], "tokenizer.json"])
    assert [feed.name for feed in loaded.card.feeds] == ["features", "text"]
    assert evaluate(loaded, reviews[1:], target="kind").metrics["accuracy"] > 0.95
    asked = pd.DataFrame([{"review": "A superb, WARM room", "nights": 2}, {"review": "dull and broken!", "nights": 2}])
    assert loaded.predict(asked).tolist() == ["good", "bad"]
    assert len(loaded.predict(asked.assign(review=None))) == 2


OWN = """
import os, signal
from pathlib import Path
import torch

class Own(torch.nn.Module):
    def __init__(self, outputs, features, width=8, marker=None):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(features, width), torch.nn.Dropout(0.2), torch.nn.ReLU(), torch.nn.Linear(width, outputs)
        )
    def forward(self, x):
        return self.layers(x)

def flat(outputs, features):
    return torch.nn.Sequential(torch.nn.Linear(features, outputs), torch.nn.Flatten(0))

def loss(scores, targets):
    return torch.nn.functional.cross_entropy(scores, targets) * float("nan")

def nothing():
    return torch.nn.Identity()

class Branches(Own):
    def forward(self, x):
        return self.layers(x) if float(x.sum()) > 0 else self.layers(-x)
"""


@pytest.fixture
def source(tmp_path):
    (tmp_path / "own").write_text(OWN)
    return tmp_path / "own"


def test_ones_own_network_is_trained_from_its_source(penguins, source, tmp_path):
    trained = train_torch(
        penguins,
        target="species",
        network="own.Own",
        parameters={"width": 12},
        source=source,
        source_digest=source_digest(source),
        optimizer="torch.optim.SGD",
        optimizer_parameters={"lr": 0.3},
        epochs=20,
    )
    digest = trained.save(tmp_path / "m")
    # the code is not there any more, and the model does not need it
    source.unlink()
    loaded = load_model(tmp_path / "m", digest)
    assert evaluate(loaded, penguins, target="species").metrics["accuracy"] > 0.9
    assert loaded.card.estimator == "own.Own"
    assert loaded.card.parameters["source"].startswith("sha256:")
    assert loaded.card.parameters["parameters"] == {"width": 12}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"network": "own.flat"}, r"own.flat gives \[192\] for 64 rows: scores of the shape \[64, 3\]"),
        ({"network": "own.nothing"}, "own.nothing has no weights to train"),
        ({"network": "own.Own", "parameters": {"depth": 1}}, "does not take the parameter 'depth'"),
        ({"network": "own.Own", "loss": "own.loss"}, "epoch 1: train_loss is nan"),
        ({"network": "own.Own", "optimizer": "torch.optim.Adamw"}, "no .Adamw.; did you mean"),
        ({"network": "own.Own", "optimizer_parameters": {"rate": 1}}, "unexpected keyword argument 'rate'"),
        ({"network": "own.Branches", "epochs": 1}, "cannot be saved as pt2"),
    ],
)
def test_what_cannot_be_trained_is_told(penguins, source, options, says):
    with pytest.raises(TrainingError, match=says):
        train_torch(penguins, target="species", source=source, source_digest=source_digest(source), **options)


def test_a_network_that_is_no_module_is_told(penguins):
    with pytest.raises(TrainingError, match=r"a torch.nn.Module is needed"):
        train_torch(penguins, target="species", network="builtins.dict")


def test_several_processes_may_prepare_batches(digits):
    one, two = (
        train_torch(digits[0][:200], target="digit", epochs=2, loader_workers=workers, **FAST) for workers in (0, 1)
    )
    assert one.course == two.course


def test_training_stops_early_and_keeps_the_best(penguins):
    trained = train_torch(penguins, target="species", epochs=60, patience=2, optimizer_parameters={"lr": 0.05})
    course = trained.course
    assert course.stopped
    assert len(course.epochs) == course.best + 2 < 60
    assert trained.card.parameters["best_epoch"] == course.best


def test_the_card_says_how_it_was_trained(pictures):
    card = read_card(pictures("pt2")[0])
    assert card.estimator == "longshore.training.torch_modules.Network"
    assert {"epochs": 10, "batch_size": 64, "optimizer": "torch.optim.AdamW"}.items() <= dict(card.parameters).items()
    assert re.match(r"\d+\.\d+", card.libraries["torch"])
    assert card.baseline[0].kind == "image"
