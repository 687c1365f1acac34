"""Evaluate and judge models where they are stored; the pure parts are :mod:`.evaluate` and :mod:`.gate`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from longshore.errors import ConfigError, DataError, DigestMismatch, MissingExtra, ModelError
from longshore.spec import ModelSource
from longshore.storage import fetch_directory
from longshore.validation.evaluate import Evaluation, evaluate
from longshore.validation.gate import Rule, Verdict, judge

if TYPE_CHECKING:
    import pandas as pd

    from longshore.packaging import Signature

__all__ = ["evaluate_stored", "judge_stored"]

_SLICED_VALUES: Final = 20


def evaluate_stored(model: ModelSource, frame: pd.DataFrame, *, slices: Sequence[str] | None = None) -> Evaluation:
    """Score a stored model; its digest is checked before it is loaded.

    Args:
        model: Where it is.
        frame: Test rows with the model's target column.
        slices: Columns to score separately by; None takes the categories and booleans with few values.

    Raises:
        DigestMismatch: If it is not the model that was recorded.
        DataError: If the rows do not fit it.
    """
    from longshore.packaging import load_model

    with tempfile.TemporaryDirectory(prefix="longshore-") as scratch:
        loaded = load_model(fetch_directory(model.uri, Path(scratch)), model.digest)
    signature = loaded.card.signature
    columns = _sliceable(signature) if slices is None else slices
    return evaluate(loaded, frame, target=signature.target, slices=columns)


def _sliceable(signature: Signature) -> tuple[str, ...]:
    return tuple(
        column.name
        for column in signature.inputs
        if column.kind == "boolean" or (column.categories is not None and len(column.categories) <= _SLICED_VALUES)
    )


def judge_stored(
    candidate: ModelSource,
    frame: pd.DataFrame,
    *,
    champion: ModelSource | None,
    thresholds: Mapping[str, float],
    metric: str | None = None,
    rule: str = "not_worse",
    min_gain: float = 0.0,
    seed: int = 0,
) -> Verdict:
    """Judge a stored candidate by thresholds and against a stored champion, on the same rows.

    Raises:
        ConfigError: If a setting does not fit the model, or the champion cannot be scored on these rows.
        DigestMismatch: If either is not the model that was recorded.
        DataError: If the rows do not fit the candidate.
    """
    scored = evaluate_stored(candidate, frame, slices=())
    against = None
    if champion is not None:
        try:
            against = evaluate_stored(champion, frame, slices=())
        except DigestMismatch:
            raise
        except (DataError, MissingExtra, ModelError) as error:
            raise ConfigError(
                f"version {champion.version} of {champion.name}, the champion, cannot be scored on these rows: "
                f"{error}. Set champion_rule=none to judge by the thresholds alone"
            ) from error
    return judge(scored, thresholds, against, metric=metric, rule=cast("Rule", rule), min_gain=min_gain, seed=seed)
