"""What a running endpoint tells of itself: requests, errors, latency, and drift of its inputs.

Names load when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

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
    if name not in _HOME:
        raise AttributeError(f"module 'longshore.monitoring' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
