"""ONNX models: a file that anything has exported, with the interface of the models that are trained here.

A file is fed in one of two ways, which its inputs tell: one tensor for each column, of shape ``[n]`` or ``[n, 1]``,
named as the column is; or all columns as one tensor ``[n, columns]``, in the order of the signature.

What its outputs mean, the file does not say. The card does, in ``parameters``, by name of the output:

===================  =====================================================================================
``label``            the class, or its position among the classes where those are no whole numbers
``probabilities``    of each class, as a tensor ``[n, classes]`` or as skl2onnx's maps (ZipMap)
``scores``           of each class, whatever their range; the highest one wins
``value``            the number, of a regression
===================  =====================================================================================

A neural network that was trained here is fed otherwise: the card lists its tensors (``feeds``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from longshore.errors import InputError, MissingExtra, ModelError
from longshore.packaging.card import Kind, ModelCard, Signature
from longshore.packaging.network import PROBABILITIES, VALUE, NetworkRegressor, as_model

if TYPE_CHECKING:
    import pandas as pd

    from longshore.packaging.feeds import FeedReader

__all__ = ["MAPS", "OnnxClassifier", "OnnxFile", "OnnxModel", "OnnxRegressor", "Tensor", "load_onnx"]

MAPS: Final = "maps"
"""Type of an output that is a map from class to probability for each row."""

_TYPES: Final[Mapping[str, str]] = {
    "tensor(float16)": "f2",
    "tensor(float)": "f4",
    "tensor(double)": "f8",
    **{f"tensor(int{8 * size})": f"i{size}" for size in (1, 2, 4, 8)},
    **{f"tensor(uint{8 * size})": f"u{size}" for size in (1, 2, 4, 8)},
    "tensor(bool)": "?",
    "tensor(string)": "O",
    "seq(map(int64,tensor(float)))": MAPS,
    "seq(map(string,tensor(float)))": MAPS,
}
_KINDS: Final[Mapping[str, Kind]] = {"f": "number", "i": "integer", "u": "integer", "b": "boolean", "O": "text"}


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An input or output of a file.

    Args:
        name: Its name.
        type: numpy's code of its type, such as ``f4``, or :data:`MAPS`.
        shape: Its dimensions, None where any size fits.
    """

    name: str
    type: str
    shape: tuple[int | None, ...]

    @property
    def kind(self) -> Kind:
        """The kind of a column that is sent in it."""
        return _KINDS[np.dtype(self.type).kind]

    @property
    def single(self) -> bool:
        """Whether it holds one value for each row."""
        return len(self.shape) == 1 or (len(self.shape) == 2 and self.shape[1] == 1)


class OnnxFile:
    """An ONNX model that is open, with the tensors that it takes and gives.

    Args:
        content: The file's bytes.
        where: The file, for messages.

    Attributes:
        inputs: What it takes.
        outputs: What it gives.
        producer: What wrote it, such as ``skl2onnx``.

    Raises:
        MissingExtra: If onnxruntime is not installed.
        ModelError: If it cannot be read, or takes or gives what is no rows of columns.
    """

    def __init__(self, content: bytes, where: str) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise MissingExtra(f"the model {where}", "onnxruntime", "onnx") from error
        options = onnxruntime.SessionOptions()
        # its own default is a thread for each core of the node, each spinning, whatever part of them a pod may use
        threads = os.environ.get("OMP_NUM_THREADS", "")
        options.intra_op_num_threads = int(threads) if threads.isdecimal() else 1
        self._where = where
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the classes of its errors have no common base of their own
            raise ModelError(f"{where} cannot be loaded by onnxruntime: {_short(error)}") from error
        self.inputs = tuple(self._tensor(node) for node in self._session.get_inputs())
        self.outputs = tuple(self._tensor(node) for node in self._session.get_outputs())
        self.producer: str = self._session.get_modelmeta().producer_name or "onnx"
        for tensor in self.inputs:
            if tensor.shape[:1] != (None,):
                raise ModelError(
                    f"{where}: input {tensor.name!r} has the shape {list(tensor.shape)}, which does not take any "
                    "number of rows: export it with a dynamic first dimension"
                )

    def _tensor(self, node: Any) -> Tensor:
        if node.type not in _TYPES:
            raise ModelError(
                f"{self._where}: {node.name!r} is a {node.type}: rows of columns are tensors of plain values"
            )
        shape = tuple(size if isinstance(size, int) else None for size in node.shape)
        return Tensor(name=node.name, type=_TYPES[node.type], shape=shape)

    def columns(self, names: Sequence[str]) -> dict[str, Tensor]:
        """The tensor that each column is sent in.

        Args:
            names: The columns, in order, where the file does not name them itself.

        Raises:
            ModelError: If the columns do not fit the inputs.
        """
        (first, *others) = self.inputs
        if not others and len(first.shape) == 2 and not (first.single and first.name in names):
            if first.shape[1] not in (None, len(names)):
                raise ModelError(
                    f"{self._where}: input {first.name!r} takes {first.shape[1]} columns, and there are {len(names)}: "
                    f"{', '.join(names)}"
                )
            return dict.fromkeys(names, first)
        for tensor in self.inputs:
            if not tensor.single:
                raise ModelError(
                    f"{self._where}: input {tensor.name!r} has the shape {list(tensor.shape)}: export the model with "
                    "one input for each column, or with all columns in one"
                )
        if missing := [tensor.name for tensor in self.inputs if tensor.name not in names]:
            raise ModelError(
                f"{self._where} takes the column {', '.join(map(repr, missing))}; there are {', '.join(names)}"
            )
        return {tensor.name: tensor for tensor in self.inputs}

    def run(self, output: str, columns: Mapping[str, np.ndarray]) -> Any:
        """One output for rows.

        Args:
            output: Its name.
            columns: The columns of a conformed frame.

        Raises:
            InputError: If a value has no place in its tensor, such as a missing one among whole numbers.
            ModelError: If the model fails.
        """
        places = self.columns(list(columns))
        arrays = {name: _cast(name, columns[name], tensor) for name, tensor in places.items()}
        (first, *others) = self.inputs
        if not others and len(first.shape) == 2:
            feeds = {first.name: np.stack(list(arrays.values()), axis=1)}
        else:
            feeds = {
                name: array.reshape(-1, 1) if len(places[name].shape) == 2 else array for name, array in arrays.items()
            }
        return self.answer(output, feeds)

    def answer(self, output: str, feeds: Mapping[str, np.ndarray]) -> Any:
        """One output for tensors as the file takes them.

        Raises:
            ModelError: If the model fails.
        """
        try:
            (answer,) = self._session.run([output], dict(feeds))
        except Exception as error:
            rows = len(next(iter(feeds.values())))
            raise ModelError(f"{self._where} fails on {rows} rows: {_short(error)}") from error
        return answer


def _short(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _name(tensor: Tensor) -> str:
    return "strings" if tensor.type == "O" else f"{np.dtype(tensor.type).name} values"


def _cast(name: str, values: np.ndarray, tensor: Tensor) -> np.ndarray:
    """A conformed column as its tensor holds it: values that would silently become others are refused."""
    kind = np.dtype(tensor.type).kind
    if kind == "O":
        bad = np.array([not isinstance(value, str) for value in values])
        why = "the value is missing"
    elif kind == "f":
        with np.errstate(over="ignore"):
            cast = values.astype(tensor.type)
        bad, why = np.isinf(cast), "the number is too large"
    elif kind == "b":
        bad, why = np.isnan(values), "the value is missing"
    else:
        limits = np.iinfo(tensor.type)
        # a float that is as large as the largest 64-bit integer is larger: the two cannot be told apart
        bad = ~((values >= limits.min) & (values < float(limits.max) + (limits.bits < 64)))
        why = "the value is missing or too large"
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(f"row {row}, column {name!r}: {why}, and this model takes {_name(tensor)} only")
    return cast if kind == "f" else values.astype(tensor.type)


class OnnxModel:
    """A classifier without probabilities.

    Args:
        file: The file.
        outputs: Names of outputs by what they mean.
        signature: The model's signature.
    """

    def __init__(self, file: OnnxFile, outputs: Mapping[str, str], signature: Signature) -> None:
        self._file, self._outputs = file, outputs
        self._names, self._classes = signature.names, np.array(signature.classes or ())

    def predict(self, frame: pd.DataFrame | np.ndarray) -> np.ndarray:
        """A label for each row of a conformed frame, or of an array with its columns."""
        if "label" in self._outputs:
            labels = np.asarray(self._file.run(self._outputs["label"], self._columns(frame))).reshape(-1)
            if labels.dtype.kind == "O" or self._classes.dtype.kind == "i":
                return labels
            if ((labels < 0) | (labels >= len(self._classes))).any():
                raise ModelError(f"the model answers class {labels.tolist()[0]}, and has {len(self._classes)} of them")
            named: np.ndarray = self._classes[labels]
            return named
        scores = self._file.run(self._outputs.get("scores") or self._outputs["probabilities"], self._columns(frame))
        best: np.ndarray = self._classes[np.argmax(scores, axis=1)]
        return best

    def _columns(self, frame: pd.DataFrame | np.ndarray) -> dict[str, np.ndarray]:
        if isinstance(frame, np.ndarray):
            return dict(zip(self._names, frame.T, strict=True))
        return {str(name): frame[name].to_numpy() for name in frame.columns}


class OnnxClassifier(OnnxModel):
    """A classifier with probabilities; see :class:`OnnxModel`."""

    def predict_proba(self, frame: pd.DataFrame | np.ndarray) -> np.ndarray:
        """A probability for each class and row of a conformed frame."""
        answer = self._file.run(self._outputs["probabilities"], self._columns(frame))
        if isinstance(answer, list):
            answer = [[shares[label] for label in self._classes.tolist()] for shares in answer]
        return np.asarray(answer, dtype=np.float64)


class OnnxRegressor(OnnxModel):
    """A regression; see :class:`OnnxModel`."""

    def predict(self, frame: pd.DataFrame | np.ndarray) -> np.ndarray:
        """A number for each row of a conformed frame."""
        return np.asarray(self._file.run(self._outputs["value"], self._columns(frame)), dtype=np.float64).reshape(-1)


def load_onnx(
    content: bytes, card: ModelCard, where: str, reader: FeedReader | None = None
) -> OnnxModel | NetworkRegressor:
    """The model of a packaged file.

    Args:
        content: The file's bytes, checked against the card.
        card: The card.
        where: The file, for messages.
        reader: Makes the tensors of a neural network that was trained here.

    Raises:
        MissingExtra: If onnxruntime is not installed.
        ModelError: If the file cannot be loaded or does not fit its card.
    """
    file, outputs = OnnxFile(content, where), dict(card.parameters)
    if reader is not None:
        output = VALUE if card.task == "regression" else PROBABILITIES
        if output not in {tensor.name for tensor in file.outputs}:
            raise ModelError(f"{where} has no output {output!r}")
        return as_model(partial(file.answer, output), reader, card, where)
    file.columns(card.signature.names)
    if missing := sorted(set(outputs.values()) - {tensor.name for tensor in file.outputs}):
        raise ModelError(f"{where} has no output {', '.join(map(repr, missing))}, which its card names")
    if card.task == "regression":
        return OnnxRegressor(file, outputs, card.signature)
    return (OnnxClassifier if "probabilities" in outputs else OnnxModel)(file, outputs, card.signature)
