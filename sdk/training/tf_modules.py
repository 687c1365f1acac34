"""What is around a Keras network when it serves: from raw columns to an answer, all of it in the SavedModel."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import tensorflow as tf

from longshore.packaging.card import Column, Feed, Label
from longshore.packaging.network import PROBABILITIES, VALUE
from longshore.training.tensors import TablePlan

__all__ = ["ENCODED", "Served", "safe_names"]

ENCODED: Final = "encoded"
"""Signature that takes pictures as the bytes of their files."""

_BOUND: Final = 1e6
_TYPES: Final = {"FP64": tf.float64, "UINT8": tf.uint8, "BYTES": tf.string}
_RESERVED: Final = frozenset({"self"})


def safe_names(names: Sequence[str]) -> list[str]:
    """Names that TensorFlow takes for a signature's inputs, as like the given ones as can be.

    It wants letters of ASCII, digits and underscores, a letter first, and no two that differ in case only.
    """
    taken, safe = set(_RESERVED), []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_") or "column"
        plain = plain if plain[0].isalpha() else f"c_{plain}"
        found, number = plain, 1
        while found.lower() in taken:
            number += 1
            found = f"{plain}_{number}"
        taken.add(found.lower())
        safe.append(found)
    return safe


class Served(tf.Module):
    """A network with what is done before and after it.

    Args:
        network: The network.
        feeds: The tensors that it takes, one for each column.
        columns: The columns, in their order.
        plan: For the columns of a table.
        vectorize: Layer that makes token ids of texts.
        classes: The labels; None for a regression.
        scale: Mean and standard deviation of the numbers that a regression learned.
    """

    def __init__(
        self,
        network: Any,
        feeds: Sequence[Feed],
        columns: Sequence[Column],
        plan: TablePlan | None,
        vectorize: Any,
        *,
        classes: Sequence[Label] | None,
        scale: tuple[float, float] | None,
    ) -> None:
        super().__init__()
        self.network, self.vectorize = network, vectorize
        self._feeds, self._columns = feeds, columns
        self._plan = plan
        self._labels = None if classes is None else tf.constant(list(classes))
        self.scale, self.outputs = scale, len(classes or (0,))

    def _parts(self) -> Iterator[tuple[Feed, Column]]:
        return zip(self._feeds, self._columns, strict=True)

    def prepare(self, tensors: Mapping[str, tf.Tensor]) -> Any:
        """What the network takes: one tensor, or one for each kind of data by name."""
        parts: dict[str, tf.Tensor] = {}
        table = []
        for feed, column in self._parts():
            tensor = tensors[feed.name]
            if feed.datatype == "UINT8":
                parts["image"] = tf.cast(tensor, tf.float32) / 255.0
            elif column.kind == "text":
                parts["text"] = self.vectorize(tensor)
            else:
                table.append((column, tensor))
        if self._plan is not None:
            parts = {"features": _spread(table, self._plan), **parts}
        return next(iter(parts.values())) if len(parts) == 1 else parts

    def answer(self, tensors: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """``predict``, and ``predict_proba`` of a classification."""
        scores = self.network(self.prepare(tensors), training=False)
        if self.scale is not None:
            mean, deviation = self.scale
            return {VALUE: tf.cast(tf.reshape(scores, [-1]), tf.float64) * deviation + mean}
        shares = tf.nn.softmax(scores)
        return {VALUE: tf.gather(self._labels, tf.argmax(shares, axis=1)), PROBABILITIES: shares}

    def specs(self) -> dict[str, Any]:
        """Type and shape of each tensor, for any number of rows."""
        return {
            feed.name: tf.TensorSpec([None, *feed.shape], _TYPES[feed.datatype], name=feed.name)
            for feed, _ in self._parts()
        }

    def signatures(self) -> dict[str, Any]:
        """The functions that servers find in the SavedModel, by name."""
        specs = self.specs()
        found = {"serving_default": tf.function(lambda **tensors: self.answer(tensors)).get_concrete_function(**specs)}
        pictures = [feed for feed, _ in self._parts() if feed.datatype == "UINT8"]
        if pictures:
            (feed,) = pictures
            files = {**specs, feed.name: tf.TensorSpec([None], tf.string, name=feed.name)}

            def decoded(**tensors: tf.Tensor) -> dict[str, tf.Tensor]:
                return self.answer({**tensors, feed.name: _decode(tensors[feed.name], feed.shape)})

            found[ENCODED] = tf.function(decoded).get_concrete_function(**files)
        return found


def _spread(table: Sequence[tuple[Column, tf.Tensor]], plan: TablePlan) -> tf.Tensor:
    """The columns as :class:`TablePlan` says."""
    seen, missing = [], []
    for place, mean, scale in zip(plan.numbers, plan.means, plan.scales, strict=True):
        values = (table[place][1] - mean) / scale
        absent = tf.math.is_nan(values)
        seen.append(tf.clip_by_value(tf.where(absent, tf.zeros_like(values), values), -_BOUND, _BOUND)[:, None])
        missing.append(tf.cast(absent, tf.float64)[:, None])
    seen += [missing[index] for index in plan.flagged]
    for place, _ in plan.categories:
        column, values = table[place]
        seen.append(tf.cast(values[:, None] == tf.constant(list(column.categories or ())), tf.float64))
    return tf.cast(tf.concat(seen, axis=1), tf.float32)


def _decode(files: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Pictures from their files. Where their size is another, it is scaled; TensorFlow's way differs a little."""
    height, width, channels = shape

    def one(content: tf.Tensor) -> tf.Tensor:
        pixels = tf.io.decode_image(content, channels=channels, expand_animations=False)
        pixels.set_shape([None, None, channels])
        scaled = tf.image.resize(pixels, [height, width], antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(scaled), 0.0, 255.0), tf.uint8)

    return tf.map_fn(one, files, fn_output_signature=tf.TensorSpec(list(shape), tf.uint8))
