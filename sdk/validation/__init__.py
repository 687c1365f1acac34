"""Judge data and models: schemas, scores, reports and the gate.

Names load when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from longshore._lazy import load

if TYPE_CHECKING:
    from longshore.validation.evaluate import Evaluation
    from longshore.validation.gate import Verdict, judge
    from longshore.validation.learning import course_html
    from longshore.validation.packages import Checked, check_model, check_saved_model
    from longshore.validation.report import report_html
    from longshore.validation.schema import DataReport, validate_table
    from longshore.validation.stored import evaluate_stored, judge_stored
    from longshore.validation.torchserve import check_torchserve

_HOME: Final = {
    "Evaluation": "longshore.validation.evaluate",
    **dict.fromkeys(("Verdict", "judge"), "longshore.validation.gate"),
    "course_html": "longshore.validation.learning",
    **dict.fromkeys(("Checked", "check_model", "check_saved_model"), "longshore.validation.packages"),
    "report_html": "longshore.validation.report",
    **dict.fromkeys(("DataReport", "validate_table"), "longshore.validation.schema"),
    **dict.fromkeys(("evaluate_stored", "judge_stored"), "longshore.validation.stored"),
    "check_torchserve": "longshore.validation.torchserve",
}

__all__ = [
    "Checked",
    "DataReport",
    "Evaluation",
    "Verdict",
    "check_model",
    "check_saved_model",
    "check_torchserve",
    "course_html",
    "evaluate_stored",
    "judge",
    "judge_stored",
    "report_html",
    "validate_table",
]


def __getattr__(name: str) -> Any:
    return load(__name__, _HOME, name)


def __dir__() -> list[str]:
    return sorted(__all__)
