"""A Keras network in training: batches, steps of an optimizer, and all of its state as bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from longshore.errors import TrainingError
from longshore.training.imports import import_path
from longshore.training.networks import Recipe, build_part
from longshore.training.tensors import Batches
from longshore.training.tf_modules import Served

__all__ = ["TensorFlowLearner"]


class TensorFlowLearner:
    """See :class:`longshore.training.loop.Learner`.

    Args:
        served: The network, with what is before and after it.
        training: Rows to learn from.
        validation: Rows to measure on; there may be none.
        recipe: How.

    Raises:
        TrainingError: If the network does not fit the data, or optimizer or loss cannot be built.
    """

    def __init__(self, served: Served, training: Batches, validation: Batches, recipe: Recipe) -> None:
        self._served, self._recipe = served, recipe
        self._classes = served.scale is None
        self._training, self._validation = training, validation
        optimizer = import_path("optimizer", recipe.optimizer, example="keras.optimizers.AdamW")
        self._optimizer = build_part(recipe.optimizer, optimizer, recipe.optimizer_parameters)
        loss = import_path("loss", recipe.loss, example="keras.losses.SparseCategoricalCrossentropy")
        if isinstance(loss, type):
            # Keras's losses take for granted that there is a softmax, and have to be told that there is none
            loss = build_part(recipe.loss, loss, {"from_logits": True} if self._classes else {})
        self._loss = loss
        self._check()
        self._weights = self._served.network.trainable_variables
        if not self._weights:
            raise TrainingError(f"{recipe.network} has no weights to train")
        self._optimizer.build(self._weights)
        specs = served.specs()
        targets = tf.TensorSpec([None], tf.int64) if self._classes else tf.TensorSpec([None, 1], tf.float32)
        # made once, for batches of any size
        self._step = tf.function(self._one_step, input_signature=[specs, targets])
        self._ask = tf.function(lambda tensors: self._scores(tensors, training=False), input_signature=[specs])

    def _check(self) -> None:
        tensors = _tensors(self._training(slice(0, 2)))
        rows = len(next(iter(tensors.values())))
        try:
            scores = self._scores(tensors, training=False)
        except Exception as error:
            shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
            raise TrainingError(
                f"{self._recipe.network} fails on a batch made of {shapes}: {type(error).__name__}: {error}"
            ) from error
        wanted = [(rows, self._served.outputs)] if self._classes else [(rows,), (rows, 1)]
        if tuple(scores.shape) not in wanted:
            raise TrainingError(
                f"{self._recipe.network} gives {list(scores.shape)} for {rows} rows: scores of the shape "
                f"{list(wanted[-1])} are needed"
            )
        if self._classes and np.allclose(scores.numpy().sum(axis=1), 1, atol=1e-5) and (scores.numpy() >= 0).all():
            raise TrainingError(f"{self._recipe.network} gives probabilities: leave out the softmax of its last layer")

    def _scores(self, tensors: Mapping[str, tf.Tensor], *, training: bool) -> tf.Tensor:
        return self._served.network(self._served.prepare(tensors), training=training)

    def _one_step(self, tensors: Mapping[str, tf.Tensor], targets: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            scores = self._scores(tensors, training=True)
            loss = self._measure(scores, targets)
            # what layers ask for, such as to keep weights small
            total = tf.add_n([loss, *self._served.network.losses])
        gradients = tape.gradient(total, self._weights)
        self._optimizer.apply(gradients, self._weights)
        return loss

    def _measure(self, scores: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(self._loss(targets, scores if self._classes else tf.reshape(scores, [-1, 1])))

    def _targets(self, part: Batches, rows: Sequence[int] | slice) -> tf.Tensor:
        if self._served.scale is None:
            return tf.constant(part.targets[rows])
        mean, deviation = self._served.scale
        return tf.constant(((part.targets[rows] - mean) / deviation).astype(np.float32)[:, None])

    def train(self, seed: int) -> Mapping[str, float]:
        keras.utils.set_random_seed(seed)
        for generator in _generators(self._served.network):
            generator.state.assign(np.random.SeedSequence(seed).generate_state(2))
        order = np.random.default_rng(seed).permutation(len(self._training)).tolist()
        total = 0.0
        for start in range(0, len(order), self._recipe.batch_size):
            rows = order[start : start + self._recipe.batch_size]
            total += float(self._step(_tensors(self._training(rows)), self._targets(self._training, rows))) * len(rows)
        return {"train_loss": total / len(order)}

    def validate(self) -> Mapping[str, float]:
        count = len(self._validation)
        if not count:
            return {}
        total, measured = 0.0, 0.0
        for start in range(0, count, self._recipe.batch_size):
            rows = slice(start, start + self._recipe.batch_size)
            targets = self._targets(self._validation, rows)
            scores = self._ask(_tensors(self._validation(rows)))
            total += float(self._measure(scores, targets)) * len(targets)
            if self._classes:
                measured += float((scores.numpy().argmax(axis=1) == targets.numpy()).sum())
            else:
                measured += float(((scores.numpy().reshape(-1, 1) - targets.numpy()) ** 2).sum())
        if self._classes:
            return {"validation_loss": total / count, "validation_accuracy": measured / count}
        deviation = self._served.scale[1] if self._served.scale else 1.0
        return {"validation_loss": total / count, "validation_rmse": deviation * (measured / count) ** 0.5}

    def _variables(self) -> list[Any]:
        return [*self._served.network.variables, *self._optimizer.variables]

    def state(self) -> bytes:
        stream = io.BytesIO()
        arrays = {f"{index:06}": np.asarray(variable) for index, variable in enumerate(self._variables())}
        np.savez(stream, allow_pickle=False, **arrays)
        return stream.getvalue()

    def restore(self, state: bytes) -> None:
        with np.load(io.BytesIO(state), allow_pickle=False) as stored:
            variables = self._variables()
            if len(stored.files) != len(variables):
                raise ValueError(f"{len(stored.files)} arrays for {len(variables)} variables")
            for name, variable in zip(sorted(stored.files), variables, strict=True):
                variable.assign(stored[name])


def _tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return {name: tf.constant(array) for name, array in arrays.items()}


def _generators(network: Any) -> list[Any]:
    """What layers such as Dropout draw their numbers from."""
    layers = [network, *network._flatten_layers(include_self=False)]  # noqa: SLF001 - Keras has no other way
    found = [getattr(layer, "seed_generator", None) for layer in layers]
    return [generator for generator in found if generator is not None]
