"""The predictor behind every web framework: a loaded model, and what it has seen."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from longshore.errors import InputError, LongshoreError, ModelError
from longshore.packaging import (
    LoadedModel,
    MatrixReader,
    ModelCard,
    columns_to_frame,
    load_model,
    predict_directly,
    rows_to_frame,
    take_arrays,
)
from longshore.serving.capture import Capture
from longshore.serving.drift import BinCounter
from longshore.serving.metrics import Metrics
from longshore.serving.together import Together

__all__ = ["BATCH_ROWS", "Ask", "Prediction", "Predictor", "Row", "Tensor"]

BATCH_ROWS: Final = 1024
"""At most so many rows of several requests are predicted together, unless another number is given."""

_log = logging.getLogger("longshore.serving")

Row = Mapping[str, Any] | Sequence[Any]
Numbers = list[Any] | np.ndarray
Features = pd.DataFrame | np.ndarray


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Answers for the rows of one request, as plain values that JSON can hold.

    Args:
        values: A class or a finite number for each row.
        probabilities: For each row, a probability for each class in the order of the signature's classes; None if
            they were not asked for. Both are arrays, of numbers, only where :attr:`Ask.arrays` allows it.
    """

    values: Numbers
    probabilities: Numbers | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """What one request wants predicted: rows, or columns, or a tensor.

    Args:
        rows: Mappings from column to value, or sequences in the order of ``columns``.
        columns: Columns of rows that are sequences; None is those of the signature.
        table: Values by column, as many in each.
        tensor: Values of all columns, in the order of the signature: row by row in one list, or as an array of
            numbers ``[n, columns]``.
        probabilities: Whether to give the probability of each class as well.
        request_id: Id of the request, if it has one.
        arrays: Whether many numbers may be answered as an array of them.
    """

    rows: Sequence[Row] = ()
    columns: Sequence[str] | None = None
    table: Mapping[str, Sequence[Any] | np.ndarray] | None = None
    tensor: Tensor | None = None
    probabilities: bool = False
    request_id: str = ""
    arrays: bool = False

    def by_column(self, names: Sequence[str]) -> dict[str, Any]:
        """The values by column.

        Args:
            names: Columns of the signature.
        """
        if self.tensor is not None:
            return self.tensor.by_column(names)
        if self.table is not None:
            return {name: self.table[name] for name in names}
        rows = [
            row if isinstance(row, Mapping) else dict(zip(self.columns or names, row, strict=True)) for row in self.rows
        ]
        return {name: [row.get(name) for row in rows] for name in names}

    def __len__(self) -> int:
        if self.tensor is not None:
            return self.tensor.shape[0]
        if self.table is not None:
            return len(next(iter(self.table.values())))
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Tensor:
    """Values in rows and columns.

    Args:
        values: The values row by row in a flat list, or an array of numbers in any shape with as many.
        shape: Rows and columns.
    """

    values: list[Any] | np.ndarray
    shape: tuple[int, int]

    def by_column(self, names: Sequence[str]) -> dict[str, Any]:
        """The values by column, in their order."""
        rows, width = self.shape
        if isinstance(self.values, np.ndarray):
            return dict(zip(names, self.values.reshape(rows, width).T, strict=True))
        return {name: self.values[index::width] for index, name in enumerate(names)}


class Predictor:
    """One model under one name.

    It can be used from several threads at once. The model itself answers one call after the other: scikit-learn (as of
    1.9) replaces the process's warning filters during a prediction, in forests and in every ColumnTransformer, and two
    at once leave them empty: each tree of each later prediction then warns. What comes in meanwhile waits, and is
    predicted together in the next call: most of what a call costs does not depend on the number of rows.

    Args:
        model: The loaded model.
        name: Its name in request paths.
        digest: Digest of its directory, None if it was never recorded.
        version: Its version in the registry, None outside of one.
        revision: The revision that serves it.
        batch_rows: At most so many rows of several requests are predicted together; 1 predicts each by itself.
        metrics: Where the server counts; by default one of the predictor's own.
        capture: Writes a share of the requests down; None writes none.

    Attributes:
        metrics: Where the server counts.
        counts: What is counted of this predictor.
        capture: Writes a share of the requests down.
        gives_probabilities: Whether the model knows the probability of each class.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        name: str,
        digest: str | None,
        version: str | None,
        revision: str,
        batch_rows: int = BATCH_ROWS,
        metrics: Metrics | None = None,
        capture: Capture | None = None,
    ) -> None:
        self._model = model
        self._turn = threading.Lock()
        self.batch_rows = batch_rows
        self._together = Together[Ask, Prediction](self._answer, self._turn, batch_rows)
        self.name, self.digest, self.version, self.revision = name, digest, version, revision
        self._reader: MatrixReader | None = None
        self.capture = capture
        self.gives_probabilities = model.card.task == "classification" and hasattr(model.model, "predict_proba")
        self.metrics = metrics or Metrics(model=name, revision=revision)
        self.counts = self.metrics.of_version(version, digest, {bins.name: bins.size for bins in model.card.baseline})
        self._bins = BinCounter(model.card.baseline, model.card.signature.names, self.counts)
        self.metrics.before_collect(self._bins.flush)

    @classmethod
    def load(
        cls,
        model_dir: Path,
        *,
        name: str,
        digest: str | None,
        version: str | None,
        revision: str,
        batch_rows: int = BATCH_ROWS,
        metrics: Metrics | None = None,
        capture: Capture | None = None,
    ) -> Predictor:
        """Load a model directory; the digest is checked before anything in it is executed.

        The card's example is predicted once: the first prediction is slow, and a model that cannot predict at all
        should be found out before it has traffic. It is not counted for drift.

        Raises:
            DigestMismatch: If the directory does not have the digest.
            MissingExtra: If a library that the model needs is not installed.
            ModelError: If the directory is no model, or the model cannot predict its own example.
        """
        loaded = load_model(model_dir, digest)
        predictor = cls(
            loaded,
            name=name,
            digest=digest,
            version=version,
            revision=revision,
            batch_rows=batch_rows,
            metrics=metrics,
            capture=capture,
        )
        try:
            frame = rows_to_frame(predictor.card.signature, predictor.card.example)
            predictor._answers(frame, probabilities=predictor.gives_probabilities)
            predictor._reader = take_arrays(loaded)
            if predictor._reader is not None:
                predictor._model = predict_directly(loaded)
        except LongshoreError as error:
            raise ModelError(f"the model {model_dir} cannot predict its own example: {error}") from error
        except Exception as error:
            raise ModelError(
                f"the model {model_dir} cannot predict its own example ({type(error).__name__}: {error}): "
                "the versions of its libraries in model.json and those installed here may be too far apart"
            ) from error
        return predictor

    @property
    def content(self) -> str | None:
        """Digest that the directory had when it was loaded."""
        return self._model.digest

    def retire(self, others: Sequence[Predictor]) -> None:
        """It is asked no more, but for what has begun.

        Args:
            others: What is served from now on.
        """
        self._bins.retire()
        self.metrics.forget(self._bins.flush)
        if (self.version, self.digest) not in {(other.version, other.digest) for other in others}:
            self.metrics.hide(self.version, self.digest)

    @property
    def card(self) -> ModelCard:
        """The model's card."""
        return self._model.card

    def predict(
        self, rows: Sequence[Row], columns: Sequence[str] | None = None, *, probabilities: bool = False
    ) -> Prediction:
        """Predict raw rows, and count them for drift.

        Args:
            rows: Mappings from column to value, or sequences in the order of ``columns``.
            columns: Columns of rows that are sequences; by default those of the signature.
            probabilities: Whether to give the probability of each class as well.

        Raises:
            InputError: If rows do not fit the signature, or the model gives no probabilities and they were asked for.
            ModelError: If the model fails, with its own error as the cause, or what it answers is not finite.
        """
        return self.answer(Ask(rows=rows, columns=columns, probabilities=probabilities))

    def answer(self, ask: Ask, *, seconds: float = -1) -> Prediction:
        """What :meth:`predict` does.

        Args:
            ask: What to predict.
            seconds: How long to wait for other calls of the model to end; by default as long as they take.

        Raises:
            TimeoutError: If they have taken longer.
        """
        return self._together.ask(ask, seconds)

    def answer_all(self, asks: Sequence[Ask]) -> list[Prediction | Exception]:
        """Predict the rows of several requests together: a prediction or the error of each, in their order."""
        with self._turn:
            return self._answer(asks)

    def evaluate(self, ask: Ask) -> Prediction:
        """Predict rows that nobody has sent: nothing is counted or written down.

        Raises:
            InputError: If rows do not fit the signature.
            ModelError: If what the model answers is not finite.
        """
        with self._turn:
            return self._answers(self._features(ask), probabilities=ask.probabilities)

    @property
    def busy(self) -> bool:
        """Whether the model is being asked right now."""
        return self._turn.locked()

    @property
    def slow(self) -> bool:
        """Whether a call of the model has lasted so long lately that several requests are better predicted together."""
        return self._together.slow

    def _answer(self, asks: Sequence[Ask]) -> list[Prediction | Exception]:
        """A prediction or an error for each; what is wrong with one is no other's business."""
        outcomes = self._outcomes(asks)
        if self.capture is not None:
            for ask, outcome in zip(asks, outcomes, strict=True):
                if isinstance(outcome, Prediction):
                    self.capture.offer(self, ask, outcome)
        return outcomes

    def _outcomes(self, asks: Sequence[Ask]) -> list[Prediction | Exception]:
        if len(asks) > 1:
            try:
                return self._joint(asks)
            except Exception:  # noqa: BLE001 - the one whose fault it is will be told below
                _log.debug("%d requests cannot be predicted together", len(asks), exc_info=True)
        return [self._alone(ask) for ask in asks]

    def _joint(self, asks: Sequence[Ask]) -> list[Prediction | Exception]:
        probabilities = any(ask.probabilities for ask in asks)
        if probabilities and not self.gives_probabilities:
            raise InputError("one of them cannot be answered")
        if all(ask.rows and ask.columns is None for ask in asks):
            features = self._features(Ask(rows=[row for ask in asks for row in ask.rows]))
        else:
            features = _joined([self._features(ask) for ask in asks])
        done = self._predict(features, probabilities=probabilities)
        answers: list[Prediction | Exception] = []
        start = 0
        for ask in asks:
            end = start + len(ask)
            shares = done.probabilities[start:end] if done.probabilities is not None and ask.probabilities else None
            answers.append(Prediction(values=done.values[start:end], probabilities=shares))
            start = end
        return answers

    def _alone(self, ask: Ask) -> Prediction | Exception:
        try:
            if ask.probabilities and not self.gives_probabilities:
                raise InputError(f"the model {self.name!r} gives no probabilities: ask for its predictions only")
            return self._predict(self._features(ask), probabilities=ask.probabilities, arrays=ask.arrays)
        except Exception as error:  # noqa: BLE001 - whoever asked is told
            return error

    def _features(self, ask: Ask) -> Features:
        """What the model takes: an array where it can be one, else a conformed frame."""
        reader = self._reader
        if reader is None:
            return self._frame(ask)
        matrix = None
        if ask.tensor is not None:
            matrix = reader.tensor(ask.tensor.values, ask.tensor.shape)
        elif ask.table is not None:
            matrix = reader.table(ask.table)
        elif ask.columns is None:
            matrix = reader.rows(ask.rows)
        return self._frame(ask).to_numpy(dtype=np.float64) if matrix is None else matrix

    def _frame(self, ask: Ask) -> pd.DataFrame:
        signature = self.card.signature
        if ask.tensor is not None:
            return columns_to_frame(signature, ask.tensor.by_column(signature.names))
        if ask.table is not None:
            return columns_to_frame(signature, ask.table)
        return rows_to_frame(signature, ask.rows, columns=ask.columns)

    def _predict(self, features: Features, *, probabilities: bool, arrays: bool = False) -> Prediction:
        try:
            done = self._answers(features, probabilities=probabilities, arrays=arrays)
        except LongshoreError:
            raise
        except Exception as error:
            raise ModelError(f"the model failed ({type(error).__name__}): the server's log says where") from error
        self.counts.observe_batch(len(features))
        self._bins.add(features)
        return done

    def _answers(self, features: Features, *, probabilities: bool, arrays: bool = False) -> Prediction:
        values = self._model.predict(features, conformed=True)
        shares = self._model.predict_proba(features, conformed=True) if probabilities else None
        plain = functools.partial(_plain, arrays=arrays)
        return Prediction(values=plain(values), probabilities=None if shares is None else plain(shares))


def _joined(parts: Sequence[Features]) -> Features:
    frames = [part for part in parts if isinstance(part, pd.DataFrame)]
    # a model takes one or the other
    return pd.concat(frames, ignore_index=True) if frames else np.concatenate(parts)


def _plain(array: np.ndarray, *, arrays: bool) -> Numbers:
    array = np.asarray(array)
    # JSON has neither NaN nor infinity, and null would pass for an answer
    if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
        row = int(np.argwhere(~finite)[0][0])
        raise ModelError(f"row {row}: the model answers {array[row].tolist()}, which is not finite")
    if arrays and array.dtype in (np.int64, np.float64):
        # a list of them takes longer to make than the JSON
        return np.ascontiguousarray(array)
    values: list[Any] = array.tolist()
    if array.dtype.kind == "O":
        return [value.item() if isinstance(value, np.generic) else value for value in values]
    return values
