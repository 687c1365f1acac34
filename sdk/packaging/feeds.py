"""From a conformed frame to the tensors that a neural network takes.

========================  ==================================================================================
``FP64`` of n columns     ``[rows, n]``: numbers as they are, booleans as 1 and 0, dates as Unix seconds, a category
                          as its position among the categories and -1 if it is none of them; NaN where missing
``FP64`` of shape ``()``  ``[rows]``: one such column
``UINT8``                 ``[rows, height, width, channels]``: pictures
``INT64``                 ``[rows, length]``: texts as the ids of their tokens, by the model's own tokenizer
``BYTES``                 ``[rows]``: strings, empty where missing
========================  ==================================================================================

What else is done to them, such as scaling, is in the network's own file, so that whoever loads it, and in whatever
server, has the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from longshore.errors import MissingExtra, ModelError
from longshore.packaging.bins import measures
from longshore.packaging.card import Column, Feed, Signature
from longshore.packaging.model import TOKENIZER_FILE

if TYPE_CHECKING:
    Tokenize = Callable[[Sequence[str]], np.ndarray]

__all__ = ["FeedReader", "load_tokenizer"]


def load_tokenizer(content: bytes, where: str) -> Tokenize:
    """The tokenizer of a model.

    Args:
        content: Its file, as Hugging Face's ``tokenizers`` write it, with padding and truncation to one length.
        where: The file, for messages.

    Returns:
        A function from texts to ``int64`` ids ``[texts, length]``.

    Raises:
        MissingExtra: If tokenizers is not installed.
        ModelError: If it is no such file.
    """
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise MissingExtra(f"the model {where}", "tokenizers", "torch") from error
    try:
        tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # it raises nothing more exact
        raise ModelError(f"{where} is no tokenizer: {error}") from error
    if tokenizer.padding is None or tokenizer.truncation is None:
        raise ModelError(f"{where} does not bring texts to one length: it needs padding and truncation")
    length = int(tokenizer.truncation["max_length"])

    def tokenize(texts: Sequence[str]) -> np.ndarray:
        ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]
        return np.array(ids, dtype=np.int64).reshape(len(ids), length)

    return tokenize


class FeedReader:
    """Makes a network's tensors.

    Args:
        feeds: What the network takes.
        signature: The model's signature.
        tokenize: For networks that take token ids.

    Raises:
        ModelError: If a feed is made of columns that are not there, or needs a tokenizer.
    """

    def __init__(self, feeds: Sequence[Feed], signature: Signature, tokenize: Tokenize | None = None) -> None:
        columns = {column.name: column for column in signature.inputs}
        self._names = signature.names
        self._tokenize = tokenize
        self._feeds = []
        for feed in feeds:
            if missing := [name for name in feed.columns if name not in columns]:
                raise ModelError(
                    f"the tensor {feed.name!r} is made of columns that are no inputs: {', '.join(missing)}"
                )
            if feed.datatype == "INT64" and tokenize is None:
                raise ModelError(f"the tensor {feed.name!r} holds token ids, and the model has no {TOKENIZER_FILE}")
            self._feeds.append((feed, [columns[name] for name in feed.columns]))

    def __call__(self, features: pd.DataFrame | np.ndarray) -> dict[str, np.ndarray]:
        """The tensors by name, in the network's order.

        Args:
            features: A conformed frame; or an array of its columns, all numbers.
        """
        if isinstance(features, np.ndarray):
            return {feed.name: self._of_array(features, feed) for feed, _ in self._feeds}
        return {feed.name: self._of_frame(features, feed, columns) for feed, columns in self._feeds}

    def _of_array(self, features: np.ndarray, feed: Feed) -> np.ndarray:
        if feed.columns == self._names and feed.shape:
            return np.ascontiguousarray(features)
        places = [self._names.index(name) for name in feed.columns]
        return np.ascontiguousarray(features[:, places] if feed.shape else features[:, places[0]])

    def _of_frame(self, frame: pd.DataFrame, feed: Feed, columns: Sequence[Column]) -> np.ndarray:
        first: pd.Series[Any] = frame[feed.columns[0]]
        if feed.datatype == "UINT8":
            return np.stack(list(first))
        if feed.datatype == "INT64":
            assert self._tokenize is not None  # noqa: S101 - the constructor has seen to it
            return self._tokenize([_text(value) for value in first])
        if feed.datatype == "BYTES":
            return np.array([_text(value) for value in first], dtype=object)
        numbers = [_numbers(column, frame[column.name]) for column in columns]
        return np.stack(numbers, axis=1) if feed.shape else numbers[0]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _numbers(column: Column, series: pd.Series[Any]) -> np.ndarray:
    if column.categories is None:
        return measures("date", series) if column.kind == "date" else series.to_numpy(dtype=np.float64)
    places: Mapping[Any, int] = {category: index for index, category in enumerate(column.categories)}
    return np.array([places.get(value, -1) for value in series.to_numpy()], dtype=np.float64)
