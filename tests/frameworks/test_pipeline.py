"""Pipelines with the steps of deep learning: a training step that dies is resumed, and what comes of it is served."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import requests
from kfp import dsl

from longshore.components import (
    deploy_model,
    evaluate_model,
    load_images,
    package_model,
    register_model,
    split_data,
    train_tensorflow,
    train_torch,
)
from longshore.packaging import load_model, read_card
from longshore.packaging.model import SAVED_MODEL_FILE
from longshore.runner.run import run_pipeline
from longshore.training import read_dataset
from longshore.training import train_tensorflow as plainly_tensorflow
from longshore.training import train_torch as plainly_torch

# in its third epoch it takes its process with it, but for the second time
DIES = """
import os, signal
from pathlib import Path

def count(marker):
    # the file survives what is about to happen
    path = Path(marker)
    path.write_text(path.read_text() + "." if path.exists() else ".")
    if len(path.read_text()) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
"""
TORCH = (
    DIES
    + """
import torch

class Own(torch.nn.Module):
    def __init__(self, outputs, image_shape, marker):
        super().__init__()
        self.marker = marker
        hidden = [torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Dropout(0.2)]
        self.layers = torch.nn.Sequential(*hidden, torch.nn.Linear(16, outputs))

    def train(self, mode=True):
        # once at the beginning of each epoch
        if mode and self.marker:
            count(self.marker)
        return super().train(mode)

    def forward(self, image):
        return self.layers(image)
"""
)
TENSORFLOW = (
    DIES
    + """
import keras

class Counting(keras.layers.Layer):
    def __init__(self, marker):
        super().__init__()
        self.marker = marker
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, inputs, training=None):
        if training and self.marker:
            import tensorflow as tf
            tf.py_function(lambda: count(self.marker), [], [])
        return keras.random.dropout(inputs, 0.2, seed=self.seed_generator) if training else inputs

def own(outputs, image_shape, marker):
    pixels = keras.Input(image_shape)
    hidden = keras.layers.Dense(16, activation="relu")(keras.layers.Flatten()(pixels))
    return keras.Model(pixels, keras.layers.Dense(outputs)(Counting(marker)(hidden)))
"""
)


@pytest.fixture
def pictures(digits, tmp_path):
    """A folder of pictures, sorted by what is on them."""
    for number, (content, digit) in enumerate(digits[0].itertuples(index=False)):
        path = tmp_path / "pictures" / f"digit-{digit}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "pictures"


@dsl.pipeline(name="torch-pictures")
def torch_pictures(data: str, code: str, code_digest: str, marker: str, checkpoints: str):
    source = dsl.importer(artifact_uri=code, artifact_class=dsl.Artifact)
    loaded = load_images(data=data)
    parts = split_data(dataset=loaded.outputs["dataset"], target="label")
    trained = train_torch(
        train=parts.outputs["train"],
        target="label",
        exclude=["file"],
        network="own.Own",
        parameters={"marker": marker},
        source=source.output,
        source_digest=code_digest,
        epochs=5,
        optimizer_parameters={"lr": 0.01},
        checkpoints=checkpoints,
    ).set_retry(num_retries=1, backoff_duration="0s")
    scored = evaluate_model(model=trained.outputs["model"], test=parts.outputs["test"])
    registered = register_model(model=trained.outputs["model"], metrics=scored.outputs["metrics"], name="digits")
    packaged = package_model(model=registered.outputs["registered"])
    deploy_model(model=packaged.outputs["packaged"], name="digits")


def test_a_step_that_was_killed_resumes_and_its_model_is_served(home, pictures, tmp_path):
    code = tmp_path / "code"
    code.write_text(TORCH)
    report = run_pipeline(
        torch_pictures,
        {
            "data": str(pictures),
            "code": str(code),
            "code_digest": "sha256:" + hashlib.sha256(code.read_bytes()).hexdigest(),
            "marker": str(tmp_path / "marker"),
            "checkpoints": str(tmp_path / "kept"),
        },
    )
    step = report.step("train-torch")
    assert step.attempts == 2
    assert step.outputs["resumed_epoch"] == 2
    # three epochs that began before it died, and the three that were left
    assert (tmp_path / "marker").read_text() == "......"
    assert list((tmp_path / "kept").iterdir()) == []

    place = report.step("package-model").outputs["uri"]
    card = read_card(Path(place))
    assert card.format == "pytorch"
    url = report.step("deploy-model").outputs["url"]
    asked = {"instances": [dict(card.example[0])], "parameters": {"probabilities": True}}
    answer = requests.post(f"{url}/v1/models/digits:predict", json=asked, timeout=30).json()
    assert answer["predictions"][0] in card.signature.classes
    refused = requests.post(f"{url}/v1/models/digits:predict", json={"instances": [{"image": "x"}]}, timeout=30)
    assert refused.status_code == 400
    assert "column 'image': expected a picture in base64" in refused.json()["error"]
    metrics = requests.get(f"{url}/metrics", timeout=30).text
    assert re.search(r'longshore_feature_bin_total\{.*feature="image"', metrics)
    # a model of the same that was never interrupted is the same, byte for byte
    (train,) = home.rglob("split-data/train")
    whole = plainly_torch(
        read_dataset(train),
        target="label",
        exclude=["file"],
        network="own.Own",
        parameters={"marker": ""},
        source=code,
        source_digest=card.parameters["source"],
        epochs=5,
        optimizer_parameters={"lr": 0.01},
    )
    whole.save(tmp_path / "whole")
    assert read_card(tmp_path / "whole").files == card.files


@dsl.pipeline(name="tensorflow-pictures")
def tensorflow_pictures(data: str, code: str, code_digest: str, marker: str):
    source = dsl.importer(artifact_uri=code, artifact_class=dsl.Artifact)
    loaded = load_images(data=data)
    parts = split_data(dataset=loaded.outputs["dataset"], target="label")
    trained = train_tensorflow(
        train=parts.outputs["train"],
        validation=parts.outputs["test"],
        target="label",
        exclude=["file"],
        network="own.own",
        parameters={"marker": marker},
        source=source.output,
        source_digest=code_digest,
        epochs=4,
        batch_size=1000,
        optimizer_parameters={"learning_rate": 0.01},
    ).set_retry(num_retries=1, backoff_duration="0s")
    deploy_model(model=trained.outputs["model"], name="digits")


def test_a_saved_model_is_resumed_and_served(home, pictures, tmp_path):
    code = tmp_path / "code"
    code.write_text(TENSORFLOW)
    digest = "sha256:" + hashlib.sha256(code.read_bytes()).hexdigest()
    given = {"data": str(pictures), "code": str(code), "code_digest": digest, "marker": str(tmp_path / "marker")}
    report = run_pipeline(tensorflow_pictures, given)
    step = report.step("train-tensorflow")
    # a batch is an epoch here: the third died, and came again with the fourth
    assert (step.attempts, step.outputs["resumed_epoch"]) == (2, 2)
    assert (tmp_path / "marker").read_text() == "....."
    (place,) = (path.parent for path in home.rglob(f"train-tensorflow/model/{SAVED_MODEL_FILE}"))
    card = read_card(place)
    url = report.step("deploy-model").outputs["url"]
    answer = requests.post(f"{url}/v1/models/model:predict", json={"instances": [dict(card.example[0])]}, timeout=30)
    assert answer.json()["predictions"][0] in card.signature.classes
    (train,), (test,) = home.rglob("split-data/train"), home.rglob("split-data/test")
    whole = plainly_tensorflow(
        read_dataset(train),
        validation=read_dataset(test),
        target="label",
        exclude=["file"],
        network="own.own",
        parameters={"marker": ""},
        source=code,
        source_digest=digest,
        epochs=4,
        batch_size=1000,
        optimizer_parameters={"learning_rate": 0.01},
    )
    whole.save(tmp_path / "whole")
    rows = read_dataset(test)
    answers = [load_model(where).predict_proba(rows) for where in (place, tmp_path / "whole")]
    np.testing.assert_array_equal(*answers)
