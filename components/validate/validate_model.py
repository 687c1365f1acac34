"""Decide whether a model may replace the champion."""

from typing import Dict, NamedTuple, Optional

from kfp.dsl import Dataset, Input, Markdown, Model, Output

from longshore.authoring import component


@component(cached=False)
def validate_model(
    model: Input[Model],
    test: Input[Dataset],
    verdict: Output[Markdown],
    name: str,
    thresholds: Optional[Dict[str, float]] = None,
    metric: Optional[str] = None,
    champion_rule: str = "not_worse",
    min_gain: float = 0.0,
    registry: Optional[str] = None,
    seed: int = 0,
) -> NamedTuple("Outputs", [("approved", bool), ("summary", str)]):
    """Judge a model against absolute thresholds and against the champion of its name, on the same rows.

    A rejection is an outcome, not an error: the step succeeds with ``approved`` false and the reasons.

    Args:
        model: The candidate.
        test: Table with the target column, seen by neither model in training.
        verdict: The decision with its reasons and the comparison.
        name: Name in the registry under which the champion is looked up.
        thresholds: Bounds by score: at least for ``accuracy`` and its like, at most for errors such as ``rmse``.
        metric: Score for the comparison; by default ``f1_macro`` or ``rmse``.
        champion_rule: ``not_worse`` (refused if clearly worse), ``better`` (accepted only if clearly better),
            ``none``.
        min_gain: Margin for the rule, in units of the metric.
        registry: MLflow tracking URI; by default a SQLite file on this machine.
        seed: Seed of the bootstrap.

    Returns:
        approved: Whether the model may go on.
        summary: The verdict and its reasons in one line.

    Raises:
        ConfigError: If a threshold names no score of this task.
    """
    from pathlib import Path

    from longshore.artifacts import read_model
    from longshore.registry import Registry
    from longshore.training import read_dataset
    from longshore.validation import judge_stored

    result = judge_stored(
        read_model(model),
        read_dataset(test.path),
        champion=None if champion_rule == "none" else Registry(registry).champion(name),
        thresholds=thresholds or {},
        metric=metric,
        rule=champion_rule,
        min_gain=min_gain,
        seed=seed,
    )
    Path(verdict.path).write_text(result.to_markdown(), encoding="utf-8")
    return result.approved, result.summary
