"""What in a row makes a model answer as it does: Shapley values, by sampling.

A value that is left out is drawn anew from the training data's distribution of its column, as the model card has it,
and independently of the others. The model is only asked, so that any model can be explained.

Source: Štrumbelj and Kononenko, "Explaining prediction models and individual predictions with feature contributions",
Knowledge and Information Systems 41 (2014), algorithm 1; here each order of the columns is also gone through backwards,
and a whole order is kept, so that the contributions add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from longshore.errors import InputError
from longshore.packaging import FeatureBins
from longshore.serving.core import Ask, Prediction, Predictor

__all__ = ["ORDERS", "Explanation", "explain"]

ORDERS: Final = 32
"""How many orders of the columns are sampled, each of them in both directions."""

_FEW: Final = 8
"""Numbers with at most so many inner edges have but a few different values."""

_CELLS: Final = 200_000
"""At most so many values are made up for one request: about a second of a small model."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why a row is answered as it is.

    Args:
        base: What the model answers without knowing the row, on average: for a classification, the probability of the
            class that it predicts for the row.
        contributions: By how much each column of the row changes that. Base and contributions add up to the answer.
    """

    base: float
    contributions: Mapping[str, float]


def explain(predictor: Predictor, ask: Ask, prediction: Prediction, *, orders: int = ORDERS) -> list[Explanation]:
    """Explain the answers to a request. The same request is always explained alike.

    Args:
        predictor: The model.
        ask: The request.
        prediction: What it was answered; for a classification, with probabilities.
        orders: How many orders are sampled; the error falls with the root of it.

    Returns:
        An explanation for each row. Columns of which the card knows no distribution are taken as they are.

    Raises:
        InputError: If there are too many rows.
    """
    signature = predictor.card.signature
    spread = {bins.name: bins for bins in predictor.card.baseline if bins.name in signature.names and any(bins.counts)}
    width = len(spread)
    most = max(1, _CELLS // (2 * orders * (width + 1) * len(signature.names)))
    if len(ask) > most:
        raise InputError(f"{len(ask)} rows are too many to explain: ask for at most {most} at a time")
    table = {name: list(values) for name, values in ask.by_column(signature.names).items()}
    explanations = []
    for row in range(len(ask)):
        # a generator for each, so that no row's explanation depends on its neighbours
        random = np.random.default_rng(0)
        given = {name: values[row] for name, values in table.items()}
        asked, paths = _made_up(given, list(spread.values()), orders, random)
        answers = _scores(predictor, asked, prediction, row).reshape(len(paths), width + 1)
        steps = np.diff(answers, axis=1)
        sums = dict.fromkeys(spread, 0.0)
        for path, path_steps in zip(paths, steps, strict=True):
            for name, step in zip(path, path_steps, strict=True):
                sums[name] += float(step)
        explanations.append(
            Explanation(
                base=float(answers[:, 0].mean()),
                contributions={name: total / len(paths) for name, total in sums.items()},
            )
        )
    return explanations


def _made_up(
    given: Mapping[str, Any], spread: Sequence[FeatureBins], orders: int, random: np.random.Generator
) -> tuple[dict[str, list[Any]], list[list[str]]]:
    """Rows that go from values of the training data to those of the given row, one column after the other."""
    names = [bins.name for bins in spread]
    drawn = {bins.name: _draw(bins, orders, random) for bins in spread}
    asked: dict[str, list[Any]] = {name: [] for name in given}
    paths: list[list[str]] = []
    for sample in range(orders):
        order = [names[index] for index in random.permutation(len(names))]
        for path in (order, order[::-1]):
            paths.append(path)
            rank = {name: place for place, name in enumerate(path)}
            for name, value in given.items():
                # from this step on, the row's own value stands there
                own = rank.get(name, -1) + 1
                kept = [] if own == 0 else [drawn[name][sample]] * own
                asked[name] += kept + [value] * (len(names) + 1 - own)
    return asked, paths


def _scores(predictor: Predictor, asked: Mapping[str, list[Any]], prediction: Prediction, row: int) -> np.ndarray:
    """What is explained, for each made-up row: the answer, or the probability of the class that was predicted."""
    done = predictor.evaluate(Ask(table=asked, probabilities=predictor.gives_probabilities))
    classes = predictor.card.signature.classes
    if classes is None:
        return np.array(done.values, dtype=np.float64)
    if done.probabilities is None:
        # no probabilities: how often the class is the same
        return np.array([value == prediction.values[row] for value in done.values], dtype=np.float64)
    return np.array(done.probabilities)[:, list(classes).index(prediction.values[row])]


def _draw(bins: FeatureBins, size: int, random: np.random.Generator) -> list[Any]:
    """Values as they were in the training data, as a request has them."""
    counts = np.array(bins.counts, dtype=np.float64)
    return [_value(bins, int(index), random) for index in random.choice(len(counts), size, p=counts / counts.sum())]


def _value(bins: FeatureBins, index: int, random: np.random.Generator) -> Any:
    if index == bins.size - 1:
        return None
    if not bins.ordered:
        if index >= len(bins.categories):
            # one of many rare values, of which the card has no names
            return None
        text = bins.categories[index]
        return text == "True" if bins.kind == "boolean" else text
    if not bins.edges:
        # all were alike, and the card does not say what
        return None
    ends = _ends(bins.edges)
    # few different values have a bin each, which begins with it
    value = ends[index] if len(bins.edges) <= _FEW else random.uniform(ends[index], ends[index + 1])
    if bins.kind == "integer":
        return round(value)
    return datetime.fromtimestamp(value, UTC).isoformat() if bins.kind == "date" else value


def _ends(edges: Sequence[float]) -> list[float]:
    """Edges with one before the first and one after the last, which the card does not have."""
    first, last = (edges[1] - edges[0], edges[-1] - edges[-2]) if len(edges) > 1 else (1.0, 1.0)
    return [edges[0] - first, *edges, edges[-1] + last]
