"""Score a model."""

from typing import Dict, List, NamedTuple, Optional

from kfp.dsl import HTML, ClassificationMetrics, Dataset, Input, Metrics, Model, Output

from longshore.authoring import component


@component
def evaluate_model(
    model: Input[Model],
    test: Input[Dataset],
    metrics: Output[Metrics],
    classification: Output[ClassificationMetrics],
    report: Output[HTML],
    slices: Optional[List[str]] = None,
) -> NamedTuple("Outputs", [("scores", Dict[str, float])]):
    """Score a model on data it has not seen.

    Args:
        model: Model to score.
        test: Table with the target column.
        metrics: All scores.
        classification: Confusion matrix and ROC curve; empty for a regression.
        report: The scores with pictures: by slice, calibration, residuals.
        slices: Columns by whose values to score separately; by default the categories with few values.

    Returns:
        scores: Name and value of each score.

    Raises:
        DataError: If columns are missing.
        DigestMismatch: If the model is not the one that was trained.
    """
    from pathlib import Path

    from longshore.artifacts import read_model, write_classification
    from longshore.training import read_dataset
    from longshore.validation import evaluate_stored, report_html

    result = evaluate_stored(read_model(model), read_dataset(test.path), slices=slices)
    for name, value in result.metrics.items():
        metrics.log_metric(name, value)
    write_classification(classification, result.confusion, result.roc)
    Path(report.path).write_text(report_html(result, title=f"Model evaluation: {result.target}"), encoding="utf-8")
    return (dict(result.metrics),)
