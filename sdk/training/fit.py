"""Training: a table and the name of an estimator in, a model with its card out."""

from __future__ import annotations

import logging
import platform
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast, get_args

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from longshore._version import __version__
from longshore.errors import ConfigError, DataError, TrainingError
from longshore.packaging.card import Column, Label, ModelCard, Signature, Task, as_text
from longshore.packaging.frame import conform, frame_to_rows
from longshore.training.columns import infer_columns, infer_task, make_bins, require_column, settle_types
from longshore.training.data import table_digest
from longshore.training.estimators import DEFAULT_ESTIMATORS, build_estimator, estimator_task, import_estimator
from longshore.training.preprocess import LabelEncodedClassifier, make_preprocessor

__all__ = ["TrainedModel", "train_sklearn"]

_TASKS: Final = ("auto", *get_args(Task))
_EXAMPLE_ROWS: Final = 2
_MAX_SHOWN_CLASSES: Final = 10

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """What training gives; :func:`longshore.packaging.save_model` writes it.

    Args:
        model: The fitted pipeline: preprocessing and estimator.
        card: Its card.
        report: What happened, for people: ``rows``, ``rows_without_target``, ``left_out`` (reason by column), and
            ``warnings`` of the fit.
    """

    model: Pipeline
    card: ModelCard
    report: dict[str, Any]


def train_sklearn(
    frame: pd.DataFrame,
    *,
    target: str,
    estimator: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    task: str = "auto",
    seed: int = 0,
    exclude: Sequence[str] = (),
) -> TrainedModel:
    """Train an estimator with its preprocessing in front of it.

    The same table, parameters and seed give the same model directory, byte for byte, in any process with the same
    library versions, if the estimator is deterministic given ``random_state``, as those of scikit-learn, XGBoost and
    LightGBM are. scikit-learn's HistGradientBoosting keeps the number of threads in the model, so its bytes (and not
    its predictions) differ between machines with different numbers of cores.

    Args:
        frame: The table; rows without a target are left out.
        target: Column to be predicted.
        estimator: Import path of a class with scikit-learn's interface; by default a random forest.
        parameters: Arguments of the class.
        task: ``classification``, ``regression``, or ``auto``: what the estimator is made for where it is named and the
            target allows it, else told from the target.
        seed: Becomes ``random_state`` wherever the estimator has one.
        exclude: Columns not to learn from.

    Raises:
        ConfigError: If ``task`` or ``seed`` is not valid.
        DataError: If the table has no rows, no such target, a target without values or with one class only, or no
            column to learn from.
        TrainingError: If the estimator cannot be imported, built or fitted, or is made for another task.
    """
    if task not in _TASKS:
        raise ConfigError(f"task = {task!r} is not known: use one of {', '.join(_TASKS)}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ConfigError(f"seed = {seed!r} is not valid: use a whole number from 0 to 4294967295")
    table = settle_types(frame)
    labelled = _with_target(table, target)
    inferred = infer_columns(labelled, target, exclude=exclude)
    chosen, settled_task = _choose(estimator, task, labelled[target])
    built = build_estimator(chosen[0], chosen[1], parameters or {}, seed=seed)
    labels = _labels(labelled[target], settled_task)
    signature = Signature(
        inputs=inferred.columns,
        task=settled_task,
        target=target,
        classes=_classes(labels, target) if settled_task == "classification" else None,
        ignored=tuple(inferred.left_out),
    )
    features = _intern(conform(signature, labelled), inferred.columns)
    model, told = _fit(chosen[0], built, inferred.columns, features, labels)
    card = ModelCard(
        format="sklearn",
        task=settled_task,
        estimator=chosen[0],
        parameters=_plain(parameters or {}),
        seed=seed,
        signature=signature,
        baseline=tuple(make_bins(column, features[column.name]) for column in inferred.columns),
        example=_example(signature, features),
        data_digest=table_digest(table),
        rows=len(labelled),
        libraries=_libraries(chosen[1]),
    )
    report = {
        "rows": len(labelled),
        "rows_without_target": len(table) - len(labelled),
        "left_out": inferred.left_out,
        "warnings": told,
    }
    return TrainedModel(model=model, card=card, report=report)


def _with_target(table: pd.DataFrame, target: str) -> pd.DataFrame:
    if table.empty:
        raise DataError("the table has no rows: there is nothing to learn from")
    require_column(table, target, "target")
    labelled = table[table[target].notna()].reset_index(drop=True)
    if labelled.empty:
        raise DataError(f"the target column {target!r} has no value in any of the {len(table)} rows")
    if missing := len(table) - len(labelled):
        _log.warning("%d of %d rows have no value in the target %r and are left out.", missing, len(table), target)
    return labelled


def _choose(estimator: str | None, task: str, target: pd.Series[Any]) -> tuple[tuple[str, type], Task]:
    told = infer_task(target)
    wanted = None if task == "auto" else cast("Task", task)
    path = estimator or DEFAULT_ESTIMATORS[wanted or told]
    found = import_estimator(path)
    made_for = estimator_task(found)
    if made_for and wanted and made_for != wanted:
        raise TrainingError(f"{path} is made for {made_for}, but task is {wanted!r}: change one of them")
    settled = wanted or made_for or told
    where = f"task is {settled!r}" if wanted else f"{path} is made for {settled}"
    numeric = target.dtype.kind in "if"
    if settled == "regression" and not numeric:
        raise TrainingError(
            f"{where}, but the target {target.name!r} holds classes such as {target.iloc[0]!r}: use a classifier"
        )
    if settled == "classification" and numeric and _is_continuous(target):
        raise TrainingError(
            f"{where}, but the target {target.name!r} holds {target.nunique()} different numbers such as "
            f"{target.iloc[0]!r}: use a regressor"
        )
    return (path, found), settled


def _is_continuous(target: pd.Series[Any]) -> bool:
    values = target.to_numpy(dtype=np.float64)
    return bool((values != np.floor(values)).any()) or 2 * target.nunique() > len(target)


def _labels(target: pd.Series[Any], task: Task) -> np.ndarray:
    if task == "regression":
        numbers = target.to_numpy(dtype=np.float64)
        if not np.isfinite(numbers).all():
            raise DataError(f"the target column {target.name!r} holds infinite numbers: drop those rows first")
        return numbers
    if pd.api.types.is_bool_dtype(target.dtype):
        return target.to_numpy(dtype=bool)
    if target.dtype.kind == "f":
        return target.to_numpy(dtype=np.int64)
    return target.map(sys.intern).to_numpy(dtype=object) if target.dtype == object else target.to_numpy()


def _intern(features: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    # a pickle tells equal strings that are one object from those that are two: where the table came from, a CSV file or
    # Parquet, would show in the model's bytes
    for column in columns:
        if column.kind in ("category", "text"):
            features[column.name] = features[column.name].map(sys.intern, na_action="ignore").astype(object)
    return features


def _classes(labels: np.ndarray, target: str) -> tuple[Label, ...]:
    classes = tuple(np.unique(labels).tolist())
    if len(classes) < 2:
        raise DataError(
            f"the target column {target!r} has one class only ({classes[0]!r}): at least two are needed to tell apart"
        )
    return classes


def _fit(
    path: str, estimator: Any, columns: Sequence[Column], features: pd.DataFrame, labels: np.ndarray
) -> tuple[Pipeline, list[str]]:
    is_xgboost = type(estimator).__module__.partition(".")[0] == "xgboost"
    if is_xgboost and estimator_task(type(estimator)) == "classification":
        estimator = LabelEncodedClassifier(estimator)
    model = Pipeline([("prepare", make_preprocessor(columns)), ("estimator", estimator)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model.fit(features, labels)
        except Exception as error:
            raise TrainingError(
                f"{path} could not be fitted to {len(features)} rows and {len(columns)} columns: "
                f"{type(error).__name__}: {error}"
            ) from error
    told = sorted({str(warning.message).strip() for warning in caught})
    if ignored := [text for text in told if "are not used" in text]:
        raise TrainingError(f"{path} does not know all parameters: {ignored[0]}")
    for text in told:
        _log.warning("%s: %s", path, text)
    return model, told


def _example(signature: Signature, features: pd.DataFrame) -> tuple[Mapping[str, Any], ...]:
    complete = features[features.notna().all(axis=1)]
    return tuple(frame_to_rows(signature, (complete if len(complete) else features).head(_EXAMPLE_ROWS)))


def _plain(value: Any) -> Any:
    """A parameter as JSON; what JSON cannot hold is told by its type, since a repr may hold an address."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return as_text(value) if np.isnan(value) else ("inf" if value > 0 else "-inf")
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _libraries(estimator: type) -> dict[str, str]:
    import joblib
    import sklearn

    versions = {
        "python": platform.python_version(),
        "longshore": __version__,
        "joblib": joblib.__version__,
        "numpy": np.__version__,
        "pandas": pd.__version__,
        "scikit-learn": sklearn.__version__,
    }
    root = estimator.__module__.partition(".")[0]
    if root not in ("sklearn", "longshore"):
        versions[root] = str(getattr(sys.modules[root], "__version__", "unknown"))
    return versions
