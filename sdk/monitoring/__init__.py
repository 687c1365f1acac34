"""What a running endpoint tells of itself: requests, errors, latency, and drift of its inputs.

Names load when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from longshore._lazy import load

if TYPE_CHECKING:
    from longshore.monitoring.drift import DriftReport, FeatureDrift, assess, psi
    from longshore.monitoring.experiment import Arm, ExperimentRules, ExperimentVerdict, judge_experiment
    from longshore.monitoring.prometheus import Series, by_label, instant
    from longshore.monitoring.scrape import ServingStats, bin_counts, read_metrics, summarise

_HOME: Final = {
    **dict.fromkeys(("DriftReport", "FeatureDrift", "assess", "psi"), "longshore.monitoring.drift"),
    **dict.fromkeys(
        ("Arm", "ExperimentRules", "ExperimentVerdict", "judge_experiment"), "longshore.monitoring.experiment"
    ),
    **dict.fromkeys(("Series", "by_label", "instant"), "longshore.monitoring.prometheus"),
    **dict.fromkeys(("ServingStats", "bin_counts", "read_metrics", "summarise"), "longshore.monitoring.scrape"),
}

__all__ = [
    "Arm",
    "DriftReport",
    "ExperimentRules",
    "ExperimentVerdict",
    "FeatureDrift",
    "Series",
    "ServingStats",
    "assess",
    "bin_counts",
    "by_label",
    "instant",
    "judge_experiment",
    "psi",
    "read_metrics",
    "summarise",
]


def __getattr__(name: str) -> Any:
    return load(__name__, _HOME, name)


def __dir__() -> list[str]:
    return sorted(__all__)
