"""From an import path and parameters to an estimator."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from types import ModuleType
from typing import Any, Final

from longshore.errors import TrainingError
from longshore.packaging.card import Task
from longshore.training.imports import import_path

__all__ = ["DEFAULT_ESTIMATORS", "build_estimator", "estimator_task", "import_estimator"]

DEFAULT_ESTIMATORS: Final[Mapping[Task, str]] = {
    "classification": "sklearn.ensemble.RandomForestClassifier",
    "regression": "sklearn.ensemble.RandomForestRegressor",
}
"""What is trained where no estimator is named: good on small and middling tables without tuning."""

_TYPO: Final = 0.8


def import_estimator(path: str) -> type:
    """The class behind an import path.

    Args:
        path: Such as ``sklearn.ensemble.RandomForestClassifier``.

    Raises:
        TrainingError: If it cannot be imported or is not a class with ``fit`` and ``predict``.
    """
    found = import_path("estimator", path, example="sklearn.ensemble.RandomForestClassifier")
    if not (isinstance(found, type) and all(hasattr(found, part) for part in ("fit", "predict", "get_params"))):
        what = "a module" if isinstance(found, ModuleType) else f"a {type(found).__name__}"
        raise TrainingError(
            f"estimator = {path!r} is not a scikit-learn style estimator: a class with fit, predict and get_params is "
            f"needed, this is {'a class without them' if isinstance(found, type) else what}"
        )
    return found


def estimator_task(estimator: type) -> Task | None:
    """The task of an estimator's class; None where it does not say."""
    kind = getattr(estimator, "_estimator_type", None)
    bases = {base.__name__ for base in inspect.getmro(estimator)}
    if kind == "classifier" or "ClassifierMixin" in bases:
        return "classification"
    if kind == "regressor" or "RegressorMixin" in bases:
        return "regression"
    return None


def build_estimator(path: str, estimator: type, parameters: Mapping[str, Any], *, seed: int) -> Any:
    """An instance with parameters and seed.

    Args:
        path: The import path, for messages.
        estimator: The class.
        parameters: Its arguments; a ``random_state`` among them takes precedence over ``seed``.
        seed: Seed for each part of the estimator that takes one and was not given one.

    Raises:
        TrainingError: If the class does not take a parameter.
    """
    _check_parameters(path, estimator, parameters)
    quiet: dict[str, Any] = {}
    if estimator.__module__.partition(".")[0] == "lightgbm" and not {"verbose", "verbosity"} & set(parameters):
        # it writes progress to stdout otherwise
        quiet = {"verbosity": -1}
    try:
        instance = estimator(**{**parameters, **quiet})
        unset = {name: seed for name, value in instance.get_params().items() if _is_seed(name) and value is None}
        return instance.set_params(**unset)
    except Exception as error:
        raise TrainingError(f"{path} cannot be built with {dict(parameters)!r}: {error}") from error


def _is_seed(name: str) -> bool:
    return name == "random_state" or name.endswith("__random_state")


def _check_parameters(path: str, estimator: type, parameters: Mapping[str, Any]) -> None:
    arguments = inspect.signature(estimator).parameters.values()
    known = [a.name for a in arguments if a.kind in (a.POSITIONAL_OR_KEYWORD, a.KEYWORD_ONLY)]
    if open_ended := any(a.kind is a.VAR_KEYWORD for a in arguments):
        # XGBoost and LightGBM also take parameters of their cores, which only they can check
        for base in inspect.getmro(estimator)[1:-1]:
            known += [name for name in inspect.signature(base).parameters if name not in {*known, "self", "kwargs"}]
    for name in parameters:
        if name in known:
            continue
        close = get_close_matches(name, known, n=1, cutoff=_TYPO if open_ended else 0.6)
        if open_ended and not close:
            continue
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise TrainingError(f"{path} does not take the parameter {name!r}: {hint}It takes {', '.join(sorted(known))}")
