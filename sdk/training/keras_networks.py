"""The Keras network that is trained where none is named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

__all__ = ["network"]


def network(
    outputs: int,
    features: int = 0,
    image_shape: Sequence[int] | None = None,
    vocabulary: int = 0,
    length: int = 0,
    width: int = 64,
    dropout: float = 0.1,
) -> Any:
    """A small network for tables, pictures and texts, together or alone.

    Tables go through two dense layers, pictures through two convolutions and the mean over the whole picture, texts
    through the mean of their words' vectors; a dense layer over all of it gives the scores.

    Args:
        outputs: Number of scores.
        features: Values of a row of the table; 0 without one.
        image_shape: Height, width and channels of the pictures; None without any.
        vocabulary: Number of words; 0 without texts.
        length: Words of a text.
        width: Size of its layers.
        dropout: Share of the values that are left out before the last layer in training.
    """
    inputs, seen = {}, []
    if features:
        inputs["features"] = rows = keras.Input((features,), name="features")
        seen.append(layers.Dense(width, activation="relu")(layers.Dense(width, activation="relu")(rows)))
    if image_shape is not None:
        inputs["image"] = pixels = keras.Input(tuple(image_shape), name="image")
        fine = layers.Conv2D(width // 2, 3, padding="same", activation="relu")(pixels)
        coarse = layers.Conv2D(width, 3, padding="same", strides=2, activation="relu")(fine)
        pooled = layers.Flatten()(layers.MaxPooling2D(2, padding="same")(coarse))
        seen.append(layers.Dense(width, activation="relu")(pooled))
    if vocabulary:
        inputs["text"] = words = keras.Input((length,), dtype="int64", name="text")
        present = keras.ops.cast(keras.ops.not_equal(words, 0), "float32")[:, :, None]
        total = keras.ops.sum(layers.Embedding(vocabulary, width)(words) * present, axis=1)
        # a text may be empty
        seen.append(total / keras.ops.maximum(keras.ops.sum(present, axis=1), 1.0))
    together = layers.Concatenate()(seen) if len(seen) > 1 else seen[0]
    scores = layers.Dense(outputs)(layers.Dropout(dropout)(together))
    return keras.Model(next(iter(inputs.values())) if len(inputs) == 1 else inputs, scores)
