"""Training: a table and the name of an estimator in, a model with its card out."""

from __future__ import annotations

import logging
import platform
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from longshore._version import __version__
from longshore.errors import TrainingError
from longshore.packaging.card import Column, ModelCard, Signature, Task
from longshore.packaging.frame import conform
from longshore.training.columns import infer_columns, infer_task, make_bins, settle_types
from longshore.training.common import (
    as_labels,
    check_target,
    check_task_and_seed,
    classes_of,
    example_rows,
    plain_parameters,
    with_target,
)
from longshore.training.data import table_digest
from longshore.training.estimators import DEFAULT_ESTIMATORS, build_estimator, estimator_task, import_estimator
from longshore.training.preprocess import LabelEncodedClassifier, make_preprocessor

__all__ = ["TrainedModel", "train_sklearn"]

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
    check_task_and_seed(task, seed)
    table = settle_types(frame)
    labelled = with_target(table, target)
    inferred = infer_columns(labelled, target, exclude=exclude)
    chosen, settled_task = _choose(estimator, task, labelled[target])
    built = build_estimator(chosen[0], chosen[1], parameters or {}, seed=seed)
    labels = as_labels(labelled[target], settled_task)
    signature = Signature(
        inputs=inferred.columns,
        task=settled_task,
        target=target,
        classes=classes_of(labels, target) if settled_task == "classification" else None,
        ignored=tuple(inferred.left_out),
    )
    features = _intern(conform(signature, labelled), inferred.columns)
    model, told = _fit(chosen[0], built, inferred.columns, features, labels)
    card = ModelCard(
        format="sklearn",
        task=settled_task,
        estimator=chosen[0],
        parameters=plain_parameters(parameters or {}),
        seed=seed,
        signature=signature,
        baseline=tuple(make_bins(column, features[column.name]) for column in inferred.columns),
        example=example_rows(signature, features),
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
    check_target(target, settled, where, use={"classification": "a classifier", "regression": "a regressor"})
    return (path, found), settled


def _intern(features: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    # a pickle tells equal strings that are one object from those that are two: where the table came from, a CSV file or
    # Parquet, would show in the model's bytes
    for column in columns:
        if column.kind in ("category", "text"):
            features[column.name] = features[column.name].map(sys.intern, na_action="ignore").astype(object)
    return features


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
