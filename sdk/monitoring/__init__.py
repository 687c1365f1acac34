"""What a running endpoint tells of itself: requests, errors, latency, and drift of its inputs.

Names load when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from longshore._lazy import load

if TYPE_CHECKING:
    from longshore.monitoring.drift import DriftReport, FeatureDrift, assess, psi
    from longshore.monitoring.scrape import ServingStats, bin_counts, read_metrics, summarise

_HOME: Final = {
    **dict.fromkeys(("DriftReport", "FeatureDrift", "assess", "psi"), "longshore.monitoring.drift"),
    **dict.fromkeys(("ServingStats", "bin_counts", "read_metrics", "summarise"), "longshore.monitoring.scrape"),
}

__all__ = [
    "DriftReport",
    "FeatureDrift",
    "ServingStats",
    "assess",
    "bin_counts",
    "psi",
    "read_metrics",
    "summarise",
]


def __getattr__(name: str) -> Any:
    return load(__name__, _HOME, name)


def __dir__() -> list[str]:
    return sorted(__all__)
