"""Train a scikit-learn style estimator."""

from typing import Any, Dict, List, NamedTuple, Optional

from kfp.dsl import Dataset, Input, Model, Output

from longshore.authoring import component


@component
def train_sklearn(
    train: Input[Dataset],
    model: Output[Model],
    target: str,
    estimator: Optional[str] = None,
    parameters: Optional[Dict[str, Any]] = None,
    task: str = "auto",
    seed: int = 0,
    exclude: Optional[List[str]] = None,
) -> NamedTuple("Outputs", [("task", str), ("estimator", str), ("rows", int), ("digest", str)]):
    """Train an estimator with its preprocessing inside, so that the model takes raw rows.

    The same data, parameters and seed give the same model, byte for byte, within one set of library versions.

    Args:
        train: Table to train on.
        model: Directory with the model and its card (signature, baseline for drift, digests, versions).
        target: Column to be predicted.
        estimator: Import path of a class with scikit-learn's interface, such as
            ``sklearn.ensemble.GradientBoostingClassifier``, ``xgboost.XGBRegressor`` or ``lightgbm.LGBMClassifier``;
            by default a random forest of the right kind.
        parameters: Arguments of that class.
        task: ``classification``, ``regression``, or ``auto`` to tell it from the target.
        seed: Seed of everything random.
        exclude: Columns not to learn from, such as row ids.

    Returns:
        task: What was trained.
        estimator: Import path of the class.
        rows: Rows trained on.
        digest: SHA-256 of the model directory.

    Raises:
        DataError: If the target is missing or nothing can be learned from the columns.
        TrainingError: If the estimator cannot be imported, does not take a parameter, or fails.
    """
    from pathlib import Path

    from longshore.artifacts import write_model
    from longshore.packaging import save_model
    from longshore.spec import ModelSource
    from longshore.training import read_dataset, train_sklearn

    trained = train_sklearn(
        read_dataset(train.path),
        target=target,
        estimator=estimator,
        parameters=parameters,
        task=task,
        seed=seed,
        exclude=exclude or (),
    )
    card = trained.card
    digest = save_model(Path(model.path), trained.model, card)
    source = ModelSource(uri=model.uri, format=card.format, name="model", digest=digest)
    write_model(model, source, task=card.task, estimator=card.estimator, rows=card.rows, data_digest=card.data_digest)
    return card.task, card.estimator, card.rows, digest
