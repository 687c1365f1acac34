"""Seldon Core 1's protocol: what a message means, and what is answered.

It knows nothing of Seldon's package: a message is what its JSON holds, with ``tftensor`` read already, and an answer
likewise.

Source: github.com/SeldonIO/seldon-core (v1.18.2, proto/prediction.proto).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from longshore.errors import InputError
from longshore.packaging import Signature
from longshore.serving import protocol
from longshore.serving.core import Ask, Prediction, Predictor, Tensor
from longshore.serving.explain import explain
from longshore.serving.protocol import Call
from longshore.serving.refusals import RequestError

__all__ = ["Feedback", "Wanted", "predict", "read_feedback", "read_wanted"]

_TENSORS: Final = ("tensor", "tftensor")
_ARRAYS: Final = ("ndarray", *_TENSORS)
_FIELDS: Final = ("data", "jsonData", "strData")

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for beside predictions.

    Args:
        probabilities: Whether the probability of each class is wanted in place of the class.
        explain: Whether it is wanted why the answer is as it is.
    """

    probabilities: bool = False
    explain: bool = False


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """What somebody says of an answer, afterwards.

    Args:
        reward: How good it was.
        tags: Tags of the answer: who gave it. Empty where it did not come along.
        right: Rows whose true class was predicted.
        wrong: Rows of another class.
    """

    reward: float
    tags: Mapping[str, str] = field(default_factory=dict)
    right: int = 0
    wrong: int = 0


def read_wanted(content: Message, *, probabilities: bool) -> Wanted:
    """What the tags of a request ask for.

    Args:
        content: The message.
        probabilities: Whether probabilities are given where the request does not say.

    Raises:
        RequestError: If a tag is neither true nor false.
    """
    tags = _meta(content).get("tags") or {}
    if not isinstance(tags, Mapping):
        raise RequestError(400, "'meta.tags' must be an object")
    wanted = {"probabilities": tags.get("probabilities", probabilities), "explain": tags.get("explain", False)}
    for name, value in wanted.items():
        if not isinstance(value, bool):
            raise RequestError(400, f"'meta.tags.{name}' must be true or false")
    return Wanted(**wanted)


def predict(predictor: Predictor, content: Any, *, probabilities: bool = False) -> dict[str, Any]:
    """Answer a prediction request.

    Args:
        predictor: The model.
        content: ``data`` with rows in an ``ndarray``, ``tensor`` or ``tftensor`` of shape ``[n, columns]``, in the
            order of ``names`` or else of the signature; or a request of V1 or V2 in ``jsonData``, or as its text in
            ``strData``. ``meta.tags`` may ask for ``probabilities`` and to ``explain``.
        probabilities: Whether ``data`` is answered with probabilities where the request does not say.

    Returns:
        The answer without its ``meta``, but for ``meta.tags.explanations`` if that was asked for. ``data`` comes back
        as it came: classes or numbers in one dimension, probabilities in two with the classes as ``names``.

    Raises:
        RequestError: If it is no such request.
        InputError: If rows do not fit the signature, or there is nothing to give that was asked for.
        ModelError: If the model fails, or what it answers is not finite.
    """
    if not isinstance(content, Mapping):
        raise RequestError(400, "a message must be an object with 'data', 'jsonData' or 'strData'")
    wanted = read_wanted(content, probabilities=probabilities)
    call = _read(predictor, content, wanted)
    if wanted.explain and predictor.gives_probabilities and not call.ask.probabilities:
        # what is explained is the probability of the class
        given = call
        call = Call(
            replace(given.ask, probabilities=True), lambda done: given.answer(replace(done, probabilities=None))
        )
    done = predictor.answer(call.ask)
    answer = call.answer(done)
    if wanted.explain:
        explanations = explain(predictor, call.ask, done)
        told = [{"base": one.base, "contributions": dict(one.contributions)} for one in explanations]
        answer["meta"] = {"tags": {"explanations": told}}
    return answer


def _read(predictor: Predictor, content: Message, wanted: Wanted) -> Call:
    if "data" in content:
        return _read_data(predictor, content["data"], wanted)
    if "jsonData" in content:
        return _inner(predictor, content["jsonData"], "jsonData", lambda answer: answer)
    if "strData" in content:
        text = content["strData"]
        if not isinstance(text, str):
            raise RequestError(400, "'strData' must be a text with the JSON of a request of V1 or V2")
        inner = protocol.parse(text.encode())
        return _inner(predictor, inner, "strData", lambda answer: protocol.encode(answer).decode())
    there = ", ".join(repr(name) for name in content if name != "meta") or "none of them"
    raise RequestError(400, f"a message needs one of {', '.join(_FIELDS)} (there is {there})")


def _inner(predictor: Predictor, content: Any, name: str, shown: Callable[[dict[str, Any]], Any]) -> Call:
    """A request of V1 or V2 within a message; its answer is in there likewise."""
    if isinstance(content, Mapping) and "inputs" in content:
        call = protocol.read_v2(predictor, content)
    elif isinstance(content, Mapping) and "instances" in content:
        call = protocol.read_v1(predictor, content)
    else:
        raise RequestError(400, f"'{name}' must hold a request of V1 or V2: an object with 'instances' or 'inputs'")
    return Call(call.ask, lambda done: {name: shown(call.answer(done))})


def _read_data(predictor: Predictor, data: Any, wanted: Wanted) -> Call:
    if not isinstance(data, Mapping):
        raise RequestError(400, "'data' must be an object such as {\"ndarray\": [[...], ...]}")
    kinds = [kind for kind in _ARRAYS if kind in data]
    if len(kinds) != 1:
        raise RequestError(400, f"'data' must hold one of {', '.join(_ARRAYS)}, and holds {len(kinds)} of them")
    kind, signature = kinds[0], predictor.card.signature
    names = _names(data.get("names"), signature)
    rows = _ndarray if kind == "ndarray" else _tensor
    ask = rows(f"data.{kind}", data[kind], names, signature, probabilities=wanted.probabilities)
    numbers = wanted.probabilities or _numeric(signature)

    def answer(done: Prediction) -> dict[str, Any]:
        values: Any = done.values if done.probabilities is None else done.probabilities
        labels = [] if done.probabilities is None else [str(label) for label in signature.classes or ()]
        if kind == "ndarray" or not numbers:
            return {"data": {"names": labels, "ndarray": values}}
        shape = [len(values), len(labels)] if labels else [len(values)]
        flat = [share for row in values for share in row] if labels else values
        return {"data": {"names": labels, kind: {"shape": shape, "values": flat}}}

    return Call(ask, answer)


def _names(names: Any, signature: Signature) -> Sequence[str] | None:
    """The columns of the rows; None is those of the signature."""
    if names is None or names == []:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RequestError(400, "'data.names' must be an array of the columns' names")
    if repeated := sorted({name for name in names if list(names).count(name) > 1}):
        raise RequestError(400, f"'data.names' names {', '.join(map(repr, repeated))} more than once")
    return None if tuple(names) == signature.names else names


def _ndarray(where: str, rows: Any, names: Sequence[str] | None, _: Signature, *, probabilities: bool) -> Ask:
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise RequestError(400, f"'{where}' must be an array of rows: [[...], ...]")
    if rows and not isinstance(rows[0], (list, Mapping)):
        raise RequestError(400, f"'{where}' must be an array of rows, and its first entry is {rows[0]!r}: [[...], ...]")
    return Ask(rows=rows, columns=names, probabilities=probabilities)


def _tensor(where: str, tensor: Any, names: Sequence[str] | None, signature: Signature, *, probabilities: bool) -> Ask:
    if not isinstance(tensor, Mapping) or not isinstance(tensor.get("values"), (list, np.ndarray)):
        raise RequestError(400, f"'{where}' must be an object with 'shape' and 'values'")
    values, shape, width = tensor["values"], tensor.get("shape"), len(names or signature.names)
    rows, last = divmod(len(values), width)
    if last or not isinstance(shape, (list, tuple)) or list(shape) != [rows, width]:
        raise RequestError(
            400,
            f"'{where}.shape' is {shape!r} and there are {len(values)} values: it must be [rows, {width}], "
            f"the columns being {', '.join(names or signature.names)}",
        )
    whole = Tensor(values, (rows, width))
    if names is None and all(column.kind in ("number", "integer") for column in signature.inputs):
        return Ask(tensor=whole, probabilities=probabilities)
    if names is None:
        names = signature.names
    if missing := [name for name in signature.names if name not in names]:
        raise RequestError(400, f"'data.names' lacks {', '.join(map(repr, missing))}")
    if unknown := [name for name in names if name not in {*signature.names, *signature.ignored, signature.target}]:
        raise RequestError(400, f"'data.names': the model has no column {', '.join(map(repr, unknown))}")
    return Ask(table=_columns(whole.by_column(names), signature), probabilities=probabilities)


def _columns(table: Mapping[str, Any], signature: Signature) -> dict[str, Any]:
    """Columns of a tensor, in which truth is a number and a gap is no number."""
    columns = dict(table)
    for column in signature.inputs:
        if column.kind not in ("number", "integer"):
            values = [_no_gap(value) for value in np.asarray(columns[column.name], dtype=object).tolist()]
            columns[column.name] = [_truth(v) for v in values] if column.kind == "boolean" else values
    return columns


def _no_gap(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _truth(value: Any) -> Any:
    return bool(value) if isinstance(value, (int, float)) and value in (0, 1) else value


def _numeric(signature: Signature) -> bool:
    return all(isinstance(label, (int, float)) and not isinstance(label, bool) for label in signature.classes or ())


def _meta(content: Message) -> Message:
    meta = content.get("meta") or {}
    if not isinstance(meta, Mapping):
        raise RequestError(400, "'meta' must be an object")
    return meta


def read_feedback(content: Message, signature: Signature) -> Feedback:
    """What a feedback says.

    Args:
        content: ``reward``; and as far as they came along ``response``, the answer, and ``truth``, a message with the
            true classes.
        signature: The model's signature.

    Raises:
        RequestError: If it is no feedback.
        InputError: If there are not as many true classes as there were predictions.
    """
    reward = content.get("reward", 0.0)
    if isinstance(reward, bool) or not isinstance(reward, (int, float)) or not math.isfinite(reward):
        raise RequestError(400, "'reward' must be a finite number")
    response = content.get("response") or {}
    tags = _meta(response).get("tags") or {}
    given, true = _labels(response), _labels(content.get("truth") or {})
    right = wrong = 0
    if signature.classes is not None and given is not None and true is not None:
        if len(given) != len(true):
            raise InputError(f"'truth' has {len(true)} values, and 'response' has {len(given)}: send one for each row")
        right = sum(bool(one == other) for one, other in zip(given, true, strict=True))
        wrong = len(given) - right
    return Feedback(
        reward=float(reward),
        tags={name: value for name, value in tags.items() if isinstance(value, str)},
        right=right,
        wrong=wrong,
    )


def _labels(message: Message) -> Sequence[Any] | None:
    """The one value of each row; None where there is none, or more."""
    data = message.get("data") or {}
    values = data.get("ndarray")
    for kind in _TENSORS:
        tensor = data.get(kind)
        if isinstance(tensor, Mapping) and len([size for size in tensor.get("shape") or () if size != 1]) <= 1:
            values = list(tensor["values"])
    if not isinstance(values, list) or not values:
        return None
    flat = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in values]
    return None if any(isinstance(value, list) for value in flat) else flat
