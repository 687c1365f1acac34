"""Training with Keras on TensorFlow: a table with pictures and texts in, a SavedModel that takes raw columns out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from longshore.errors import ConfigError, MissingExtra, TrainingError
from longshore.packaging.card import Feed
from longshore.packaging.savedmodel import import_tensorflow
from longshore.packaging.tfserving import WARMUP_FILE, warmup_record
from longshore.training.examples import Examples, make_examples
from longshore.training.loop import run_epochs
from longshore.training.networks import Recipe, TrainedNetwork, build_network, network_card, quiet
from longshore.training.tensors import Batches, plan_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["train_tensorflow"]

_NETWORK: Final = "longshore.training.keras_networks.network"
_OPTIMIZER: Final = "keras.optimizers.AdamW"
_LOSSES: Final = {
    "classification": "keras.losses.SparseCategoricalCrossentropy",
    "regression": "keras.losses.MeanSquaredError",
}
_TOLERANCE: Final = 1e-4


def train_tensorflow(
    frame: pd.DataFrame,
    *,
    target: str,
    network: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    task: str = "auto",
    epochs: int = 20,
    batch_size: int = 64,
    patience: int | None = 5,
    optimizer: str | None = None,
    optimizer_parameters: Mapping[str, Any] | None = None,
    loss: str | None = None,
    seed: int = 0,
    exclude: Sequence[str] = (),
    text_column: str | None = None,
    text_length: int = 128,
    vocabulary_size: int = 20_000,
    image_size: Sequence[int] | None = None,
    validation: pd.DataFrame | None = None,
    validation_share: float = 0.1,
    checkpoints: str | None = None,
    source: Path | None = None,
    source_digest: str | None = None,
) -> TrainedNetwork:
    """Train a Keras network on columns, pictures and texts.

    The network gives scores: one for each class before any softmax, or one number. It is called with one tensor if the
    data are of one kind, else with a dictionary: ``features`` (``float32`` ``[rows, features]``, scaled and without
    gaps), ``image`` (``float32`` from 0 to 1, ``[rows, height, width, channels]``) and ``text`` (``int64`` token ids
    ``[rows, length]``, 0 for none).

    The SavedModel takes the columns as they are, each as a tensor of its own, and gives ``predict`` and
    ``predict_proba``; its signature is ``serving_default``, and with pictures also ``encoded``, which takes their
    files. On a processor, the same data, arguments, seed and number of threads give the same weights, whether training
    was resumed or not; TensorFlow writes an id of its own into each SavedModel, so digests differ.

    Args:
        frame: The table; rows without a target are left out.
        target: Column to be predicted.
        network: Import path of a class or function that gives a ``keras.Model``; by default a small one for any data.
            Of its arguments, ``outputs``, ``features``, ``image_shape`` (height, width, channels), ``vocabulary`` and
            ``length`` are given by what is known of the data.
        parameters: Its other arguments.
        task: ``classification``, ``regression``, or ``auto`` to tell it from the target.
        epochs: At most so many passes over the training rows.
        batch_size: Rows that the weights are changed after.
        patience: It stops after so many epochs without a lower loss on the validation rows; None never stops it.
        optimizer: Import path of the optimizer's class; AdamW by default.
        optimizer_parameters: Its arguments, such as ``{"learning_rate": 0.01}``.
        loss: Import path of the loss, a class of Keras's or a function of targets and scores; cross entropy or the
            mean squared error (of scaled targets) by default.
        seed: Seed of everything random.
        exclude: Columns not to learn from.
        text_column: Column of texts to be read word by word.
        text_length: So many words of each are read.
        vocabulary_size: So many of the most frequent words are known.
        image_size: Height and width that pictures are scaled to, and channels; by default as the pictures are.
        validation: Rows to stop by; by default a part of the table.
        validation_share: That part.
        checkpoints: Path or URI of a directory where the state after each epoch is kept, and from where the same
            training is resumed; None keeps none.
        source: The user's code, with the network in it: a Python file, or a folder or archive of them.
        source_digest: What it has to be.

    Raises:
        ConfigError: If an argument is not valid.
        DataError: If there is nothing to learn from, or a picture is none.
        DigestMismatch: If the source is not what it should be.
        MissingExtra: If TensorFlow is not installed.
        TrainingError: If the network cannot be imported, built, trained or exported.
    """
    tf = import_tensorflow("train_tensorflow")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        import keras
    except ModuleNotFoundError as error:
        raise MissingExtra("train_tensorflow", "keras", "tensorflow") from error
    if keras.backend.backend() != "tensorflow":
        raise ConfigError(
            f"Keras runs on {keras.backend.backend()}: set KERAS_BACKEND=tensorflow before it is imported"
        )
    from longshore.training.tf_learner import TensorFlowLearner
    from longshore.training.tf_modules import Served

    examples = make_examples(
        frame,
        target=target,
        task=task,
        seed=seed,
        exclude=exclude,
        text_column=text_column,
        image_size=image_size,
        validation=validation,
        validation_share=validation_share,
    )
    recipe = Recipe(
        network=network or _NETWORK,
        parameters=parameters or {},
        epochs=epochs,
        batch_size=batch_size,
        patience=patience,
        optimizer=optimizer or _OPTIMIZER,
        optimizer_parameters=optimizer_parameters or {},
        loss=loss or _LOSSES[examples.signature.task],
        seed=seed,
        vocabulary_size=vocabulary_size,
        text_length=text_length,
        source=source,
        source_digest=source_digest,
    )
    signature = examples.signature
    feeds = _feeds(examples)
    training = Batches(examples.training, feeds, signature)
    kept = recipe.checkpoints(checkpoints, examples, f"tensorflow {tf.__version__} keras {keras.__version__}")
    with recipe.builder() as builder:
        keras.utils.set_random_seed(seed)
        plan = plan_table(examples.table, _numbers(examples)) if examples.table else None
        vectorize = _vectorizer(examples, recipe)
        facts: dict[str, Any] = {
            "outputs": len(signature.classes or (0,)),
            "features": plan.width if plan else 0,
        }
        if examples.image is not None:
            facts["image_shape"] = examples.image.shape
        if vectorize is not None:
            facts |= {"vocabulary": vectorize.vocabulary_size(), "length": text_length}
        built = build_network(recipe.network, builder, recipe.parameters, facts)
        if not isinstance(built, keras.Model):
            raise TrainingError(f"{recipe.network} gives a {type(built).__name__}: a keras.Model is needed")
        targets = examples.training.targets
        scale = None if signature.classes is not None else (float(targets.mean()), float(targets.std()) or 1.0)
        served = Served(built, feeds, signature.inputs, plan, vectorize, classes=signature.classes, scale=scale)
        learner = TensorFlowLearner(served, training, Batches(examples.validation, feeds, signature), recipe)
        course = run_epochs(learner, epochs=epochs, patience=patience, seed=seed, checkpoints=kept)
        files = _export(served, feeds, training(slice(0, 2)))
    card = network_card(
        examples,
        recipe,
        course,
        file_format="tensorflow",
        feeds=feeds,
        libraries={"tensorflow": tf.__version__, "keras": keras.__version__},
    )
    return TrainedNetwork(
        card=card,
        course=course,
        write=lambda folder: _write(folder, files),
        checkpoints=kept,
        left_out=examples.left_out,
    )


def _feeds(examples: Examples) -> tuple[Feed, ...]:
    from longshore.training.tf_modules import safe_names

    columns = examples.signature.inputs
    types = {"image": "UINT8", "text": "BYTES", "category": "BYTES"}
    return tuple(
        Feed(name=name, columns=(column.name,), datatype=types.get(column.kind, "FP64"), shape=column.shape or ())
        for name, column in zip(safe_names([column.name for column in columns]), columns, strict=True)
    )


def _numbers(examples: Examples) -> np.ndarray:
    """The table's columns as numbers ``[rows, columns]``; of categories only whether there are any matters."""
    from longshore.packaging.feeds import FeedReader

    names = tuple(column.name for column in examples.table)
    feed = Feed(name="table", columns=names, datatype="FP64", shape=(len(names),))
    return FeedReader([feed], examples.signature)(examples.training.frame)["table"]


def _vectorizer(examples: Examples, recipe: Recipe) -> Any:
    """Words of the training rows, in lower case and without punctuation; None where there are no texts."""
    if examples.text is None:
        return None
    import keras

    layer = keras.layers.TextVectorization(
        max_tokens=recipe.vocabulary_size, output_sequence_length=recipe.text_length, output_mode="int"
    )
    texts = [value for value in examples.training.frame[examples.text.name] if isinstance(value, str)]
    layer.adapt(texts or [""])
    return layer


def _export(served: Any, feeds: Sequence[Feed], example: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """The files of a SavedModel that answers as the network does, with a request for servers to warm up with."""
    import tempfile

    import tensorflow as tf

    expected = {name: tensor.numpy() for name, tensor in served.answer(_constants(example)).items()}
    with tempfile.TemporaryDirectory(prefix="longshore-") as scratch:
        folder = Path(scratch)
        with quiet("tensorflow", "absl"):
            tf.saved_model.save(served, scratch, signatures=served.signatures())
        loaded = tf.saved_model.load(scratch)
        answers = loaded.signatures["serving_default"](**_constants(example))
        (folder / WARMUP_FILE).parent.mkdir(exist_ok=True)
        with tf.io.TFRecordWriter(str(folder / WARMUP_FILE)) as writer:
            writer.write(warmup_record("model", example, {feed.name: feed.datatype for feed in feeds}))
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name, values in expected.items():
        given = answers[name].numpy()
        same = np.allclose(given, values, rtol=_TOLERANCE, atol=_TOLERANCE) if values.dtype.kind == "f" else True
        if not same:
            raise TrainingError(f"saved, the network answers {given.tolist()} where it should answer {values.tolist()}")
    return files


def _constants(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    import tensorflow as tf

    return {name: tf.constant(array) for name, array in arrays.items()}


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
