"""What a fitted scikit-learn model computes of an array, without what scikit-learn checks and converts at each step.

For a few rows that takes longer than the rest: 107 of the 111 µs of a logistic regression, and 5.1 of the 5.4 ms of a
forest of 100 trees behind the preprocessing that longshore trains with. The steps here do the same operations on arrays
of the same layout, so the answers are the same to the last bit. Whatever is not known here is left to scikit-learn, and
so is each call whose numbers it would refuse: its errors stay its own.

Sources: ``predict`` and ``transform`` of the classes in :data:`_STEPS` and :data:`_MODELS`, scikit-learn 1.4 to 1.9.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from longshore.packaging.loading import LoadedModel

__all__ = ["DirectClassifier", "DirectModel", "predict_directly"]

_PROBES: Final = 16

Step = Callable[[np.ndarray], np.ndarray]


class _UnknownStep(Exception):
    """A part of the model is not known here."""


class _NotFinite(Exception):
    """Numbers that a step would not take, or would take for missing values."""


class DirectModel:
    """A model's steps, and the model itself for what they do not do.

    Args:
        whole: The model.
        steps: What comes in front of its last step.
        predict: ``predict`` of the last one.
        proba: ``predict_proba`` of the last one; None if it has none.
    """

    def __init__(self, whole: Any, steps: Sequence[Step], predict: Step, proba: Step | None) -> None:
        self._whole, self._steps, self._predict, self._proba = whole, steps, predict, proba

    def predict(self, features: np.ndarray) -> np.ndarray:
        """What the whole model answers.

        Args:
            features: Numbers of shape ``[n, columns]``, NaN for missing ones.
        """
        try:
            return self._predict(self._prepared(features))
        except _NotFinite:
            answer: np.ndarray = self._whole.predict(features)
            return answer

    def _prepared(self, features: np.ndarray) -> np.ndarray:
        features = _finite(features)
        for step in self._steps:
            features = _finite(step(features))
        return features


class DirectClassifier(DirectModel):
    """A model that knows the probability of each class."""

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """What the whole model answers, likewise."""
        try:
            if self._proba is not None:
                return self._proba(self._prepared(features))
        except _NotFinite:
            pass
        answer: np.ndarray = self._whole.predict_proba(features)
        return answer


def predict_directly(loaded: LoadedModel) -> LoadedModel:
    """A model that takes arrays (see :func:`longshore.packaging.arrays.take_arrays`), without detours.

    Whether the answers are the same is tried with the card's example and with rows along the bins of its baseline.

    Returns:
        A model with a :class:`DirectModel` in it; the same one, if it has parts that are not known here.
    """
    model = loaded.model
    *before, last = [part for _, part in model.steps] if _name(model) == "Pipeline" else [model]
    with contextlib.suppress(_UnknownStep), warnings.catch_warnings():
        warnings.simplefilter("error")
        steps = [_step(part) for part in before if not _passes(part)]
        predict, proba = _last(last)
        kind = DirectClassifier if hasattr(model, "predict_proba") else DirectModel
        direct = replace(loaded, model=kind(model, steps, predict, proba))
        if (steps or predict != last.predict) and _agree(loaded, direct):
            return direct
    return loaded


def _agree(loaded: LoadedModel, direct: LoadedModel) -> bool:
    rows = _probes(loaded)
    for features in (rows, rows[:1], rows[-1:]):
        try:
            one, other = _answers(loaded, features), _answers(direct, features)
        except Exception:  # noqa: BLE001 - whatever it is, the model goes on as it was
            return False
        if any(a.dtype != b.dtype or not np.array_equal(a, b) for a, b in zip(one, other, strict=True)):
            return False
    return True


def _answers(loaded: LoadedModel, features: np.ndarray) -> list[np.ndarray]:
    found = (loaded.predict(features, conformed=True), loaded.predict_proba(features, conformed=True))
    return [np.asarray(one) for one in found if one is not None]


def _probes(loaded: LoadedModel) -> np.ndarray:
    card = loaded.card
    names, edges = card.signature.names, {bins.name: bins.edges or (0.0,) for bins in card.baseline}
    rows = [[float(row[name] or 0) for name in names] for row in card.example]
    for index in range(_PROBES):
        columns = [edges.get(name, (0.0,)) for name in names]
        rows.append([values[index % len(values)] for values in columns])
    return np.array(rows, dtype=np.float64)


def _name(part: Any) -> str:
    """Name of a class of scikit-learn's; empty for others, subclasses of its classes among them."""
    kind = type(part)
    return kind.__name__ if kind.__module__.startswith("sklearn.") else ""


def _passes(part: Any) -> bool:
    return part is None or part == "passthrough"


def _step(part: Any) -> Step:
    made = _STEPS.get(_name(part))
    # what is told to give tables does
    if made is None or hasattr(part, "_sklearn_output_config"):
        raise _UnknownStep
    return made(part)


def _last(part: Any) -> tuple[Step, Step | None]:
    made = _MODELS.get(_name(part))
    if made is not None:
        with contextlib.suppress(_UnknownStep):
            return made(part)
    return part.predict, getattr(part, "predict_proba", None)


def _finite(features: np.ndarray) -> np.ndarray:
    if not np.isfinite(features).all():
        raise _NotFinite
    return features


def _pipeline(part: Any) -> Step:
    steps = [_step(step) for _, step in part.steps if not _passes(step)]

    def transform(features: np.ndarray) -> np.ndarray:
        for step in steps:
            features = _finite(step(features))
        return features

    return transform


def _columns(part: Any) -> Step:
    if part.sparse_output_ or part.transformer_weights:
        raise _UnknownStep
    chosen = list[tuple[Step, list[int]]]()
    for _, step, columns in part.transformers_:
        places = np.asarray(columns)
        if not places.size or (isinstance(step, str) and step == "drop"):
            continue
        if places.ndim != 1 or places.dtype.kind != "i":
            raise _UnknownStep
        chosen.append((_same if _passes(step) else _step(step), places.tolist()))
    if not chosen:
        raise _UnknownStep
    return lambda features: np.hstack([step(features[:, places]) for step, places in chosen])


def _same(features: np.ndarray) -> np.ndarray:
    return features


def _impute(part: Any) -> Step:
    # of finite numbers none is missing
    missing, statistics = part.missing_values, part.statistics_
    if not (isinstance(missing, float) and np.isnan(missing)) or statistics.dtype.kind != "f":
        raise _UnknownStep
    if np.isnan(statistics).any():
        raise _UnknownStep
    if part.indicator_ is None:
        return _same
    places = part.indicator_.features_
    return lambda features: np.hstack((features, np.zeros(features.shape, dtype=bool)[:, places]))


def _scale(part: Any) -> Step:
    mean, scale = part.mean_ if part.with_mean else None, part.scale_ if part.with_std else None

    def transform(features: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            if mean is not None:
                features = features - mean
            return features if scale is None else features / scale

    return transform


def _function(part: Any) -> Step:
    # others may change what they are given
    options = dict(part.kw_args or {})
    if not part.validate and part.func is np.asarray and options == {"dtype": np.float64}:
        return _same
    if part.validate or part.func is not np.clip:
        raise _UnknownStep
    return lambda features: np.clip(features, **options)


def _logistic(part: Any) -> tuple[Step, Step | None]:
    from scipy.special import expit
    from sklearn.utils.extmath import softmax

    weights, bias, classes = part.coef_.T, part.intercept_, part.classes_
    if len(classes) > 2:
        return (
            lambda features: classes.take((features @ weights + bias).argmax(axis=1)),
            lambda features: softmax(features @ weights + bias, copy=False),
        )

    def proba(features: np.ndarray) -> np.ndarray:
        scores = (features @ weights + bias).reshape(-1)
        shares = expit(scores, out=scores)
        return np.stack([1 - shares, shares], axis=1)

    return lambda features: classes.take(((features @ weights + bias).reshape(-1) > 0).astype(np.intp)), proba


def _linear(part: Any) -> tuple[Step, Step | None]:
    weights, bias = part.coef_.T, part.intercept_
    return lambda features: features @ weights + bias, None


def _tree(part: Any) -> tuple[Step, Step | None]:
    return _of_trees(part, [part])


def _forest(part: Any) -> tuple[Step, Step | None]:
    # several threads are worth what they cost for many rows
    if part.n_jobs not in (None, 1):
        raise _UnknownStep
    return _of_trees(part, part.estimators_)


def _of_trees(part: Any, parts: Sequence[Any]) -> tuple[Step, Step | None]:
    """One tree, or the mean of several; they compute with 32 bits."""
    if part.n_outputs_ != 1:
        raise _UnknownStep
    trees, classifies = [one.tree_.predict for one in parts], hasattr(part, "classes_")

    def mean(features: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            features = _finite(features.astype(np.float32))
        if part is parts[0]:
            return np.asarray(trees[0](features))
        total = np.zeros((len(features), part.n_classes_ if classifies else 1))
        for tree in trees:
            total += tree(features)
        total /= len(trees)
        return total

    if not classifies:
        return lambda features: mean(features)[:, 0], None
    classes = part.classes_
    return lambda features: classes.take(mean(features).argmax(axis=1)), mean


_STEPS: Final[Mapping[str, Callable[[Any], Step]]] = {
    "ColumnTransformer": _columns,
    "FunctionTransformer": _function,
    "Pipeline": _pipeline,
    "SimpleImputer": _impute,
    "StandardScaler": _scale,
}

_MODELS: Final[Mapping[str, Callable[[Any], tuple[Step, Step | None]]]] = {
    **dict.fromkeys(("LogisticRegression", "LogisticRegressionCV"), _logistic),
    **dict.fromkeys(
        ("LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV"), _linear
    ),
    **dict.fromkeys(("DecisionTreeClassifier", "DecisionTreeRegressor"), _tree),
    **dict.fromkeys(
        ("RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor"), _forest
    ),
}
