"""Describing an ONNX model that was trained elsewhere, so that it is served and judged like those trained here."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from longshore._version import __version__
from longshore.errors import ConfigError, DataError, LongshoreError, ModelError
from longshore.packaging.card import Column, Label, ModelCard, Signature, Task
from longshore.packaging.frame import conform, frame_to_rows
from longshore.packaging.onnx import MAPS, OnnxFile, Tensor, load_onnx
from longshore.training.columns import column_kind, make_bins, require_column, settle_types
from longshore.training.data import table_digest

__all__ = ["describe_onnx", "read_onnx"]

_TRIED_ROWS: Final = 1000
_EXAMPLE_ROWS: Final = 2
_SUM_TOLERANCE: Final = 1e-3


def read_onnx(path: Path) -> bytes:
    """An ONNX file, or the only one in a directory.

    Raises:
        ModelError: If there is none, or more than one.
    """
    found = sorted(path.rglob("*.onnx")) if path.is_dir() else [path]
    if len(found) != 1:
        raise ModelError(f"{path} holds {len(found)} files that end in .onnx: exactly one is needed")
    try:
        return found[0].read_bytes()
    except OSError as error:
        raise ModelError(f"{found[0]} cannot be read: {error.strerror or error}") from error


def describe_onnx(
    content: bytes,
    frame: pd.DataFrame,
    *,
    target: str,
    columns: Sequence[str] | None = None,
    classes: Sequence[Label] | None = None,
    where: str = "the ONNX model",
) -> ModelCard:
    """The card of an ONNX model, from the file and a table of rows that it takes.

    What it takes is told by its inputs, what it gives by its outputs for the table's rows. The table is also what the
    endpoint's inputs are compared with for drift, so the training data serve best.

    Args:
        content: The file's bytes.
        frame: The table, with the columns as the model takes them: what was done to them before it is not in the file.
        target: What is predicted. If the table has that column, the classes are read off it.
        columns: The columns of a model that takes them all in one tensor, in its order; by default all of the table's
            but the target.
        classes: Labels in the order of the model's scores, where neither the file nor the target column tells them.
        where: The file, for messages.

    Raises:
        ConfigError: If the classes are needed and not given, or do not fit what the model gives.
        DataError: If the table has no rows, or not the columns or values that the model takes.
        MissingExtra: If onnxruntime is not installed.
        ModelError: If the file cannot be loaded, or takes or gives what is no rows of columns.
    """
    if frame.empty:
        raise DataError("the table has no rows: the model is described by what it answers for some")
    for name in columns or ():
        require_column(frame, name, "input")
    file = OnnxFile(content, where)
    places = file.columns(list(columns or (name for name in map(str, frame.columns) if name != target)))
    table = settle_types(frame)
    signature = Signature(
        inputs=tuple(_column(name, tensor, table[name]) for name, tensor in places.items()),
        task="regression",
        target=target,
        classes=None,
        ignored=tuple(name for name in map(str, frame.columns) if name not in places and name != target),
    )
    features = conform(signature, table)
    tried = features.head(_TRIED_ROWS)
    try:
        arrays = {str(name): tried[name].to_numpy() for name in tried.columns}
        answers = {tensor.name: file.run(tensor.name, arrays) for tensor in file.outputs}
    except LongshoreError as error:
        raise DataError(f"the table's rows are not what the model takes: {error}") from error
    task, outputs = _meaning(file.outputs, answers, where)
    if task == "classification":
        labels = table[target].dropna() if target in table else None
        known = _classes(outputs, answers, classes, labels, where)
        signature = Signature(
            inputs=signature.inputs, task=task, target=target, classes=known, ignored=signature.ignored
        )
    card = ModelCard(
        format="onnx",
        task=task,
        estimator=file.producer,
        parameters=outputs,
        seed=0,
        signature=signature,
        baseline=tuple(make_bins(column, features[column.name]) for column in signature.inputs),
        example=tuple(frame_to_rows(signature, tried.head(_EXAMPLE_ROWS))),
        data_digest=table_digest(table),
        rows=len(table),
        libraries={
            "python": platform.python_version(),
            "longshore": __version__,
            "numpy": np.__version__,
            "onnxruntime": version("onnxruntime"),
        },
    )
    _check_labels(load_onnx(content, card, where).predict(tried), signature, where)
    return card


def _column(name: str, tensor: Tensor, series: pd.Series[Any]) -> Column:
    kind = tensor.kind
    if kind == "text" and column_kind(series) == "category":
        kind = "category"
    categories = tuple(sorted(map(str, series.dropna().unique()))) if kind == "category" else None
    return Column(name=name, kind=kind, nullable=bool(series.isna().any()), categories=categories)


def _meaning(tensors: Sequence[Tensor], answers: Mapping[str, Any], where: str) -> tuple[Task, dict[str, str]]:
    """The task, and the outputs by what they mean."""
    maps = [t.name for t in tensors if t.type == MAPS]
    kinds = {t.name: np.dtype(t.type).kind for t in tensors if t.type != MAPS}
    labels = [name for name, kind in kinds.items() if kind in "iuO" and _is_single(answers[name])]
    floats = [name for name, kind in kinds.items() if kind == "f"]
    wide = [name for name in floats if np.ndim(answers[name]) == 2 and not _is_single(answers[name])]
    if labels:
        shares = [*maps, *(name for name in wide if _are_probabilities(answers[name]))]
        return "classification", {"label": labels[0], **({"probabilities": shares[0]} if shares else {})}
    if wide:
        role = "probabilities" if _are_probabilities(answers[wide[0]]) else "scores"
        return "classification", {role: wide[0]}
    values = [name for name in floats if _is_single(answers[name])]
    if len(values) == 1:
        return "regression", {"value": values[0]}
    given = ", ".join(f"{t.name!r} ({t.type}, {list(t.shape)})" for t in tensors)
    raise ModelError(
        f"{where} gives {given}: that is neither a label or a score for each class, nor one number for each row"
    )


def _is_single(answer: Any) -> bool:
    return np.ndim(answer) == 1 or (np.ndim(answer) == 2 and np.shape(answer)[1] == 1)


def _are_probabilities(answer: Any) -> bool:
    array = np.asarray(answer, dtype=np.float64)
    # of a row with a missing value there may be none
    array = array[np.isfinite(array).all(axis=1)]
    return bool((array >= 0).all() and np.allclose(array.sum(axis=1), 1, atol=_SUM_TOLERANCE))


def _classes(
    outputs: Mapping[str, str],
    answers: Mapping[str, Any],
    given: Sequence[Label] | None,
    target: pd.Series[Any] | None,
    where: str,
) -> tuple[Label, ...]:
    shares = answers.get(outputs.get("probabilities") or outputs.get("scores") or "")
    if isinstance(shares, list):
        named = tuple(shares[0])
        if given is not None and {*given} != {*named}:
            raise ConfigError(f"{where} names its classes itself: {', '.join(map(repr, named[:10]))}. Give none")
        return named
    if given is not None:
        known = tuple(given)
    elif target is not None:
        labels = target.to_numpy()
        # whole numbers with a missing one among them are read as floats
        known = tuple(np.unique(labels.astype(np.int64) if labels.dtype.kind == "f" else labels).tolist())
    else:
        raise ConfigError(f"{where} does not name its classes: give them, in the order of its scores")
    if shares is not None and np.shape(shares)[1] != len(known):
        raise ConfigError(
            f"{where} scores {np.shape(shares)[1]} classes, and there are {len(known)}: "
            f"{', '.join(map(repr, known[:10]))}. Give all of them, in the order of its scores"
        )
    return known


def _check_labels(predicted: np.ndarray, signature: Signature, where: str) -> None:
    classes = signature.classes
    if classes is not None and (unknown := sorted({*predicted.tolist()} - {*classes}, key=str)):
        raise ConfigError(
            f"{where} answers {unknown[0]!r}, which is none of the classes {', '.join(map(repr, classes[:10]))}: give "
            "the labels that it was trained with"
        )
