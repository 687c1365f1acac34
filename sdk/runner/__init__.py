"""Run Kubeflow pipelines on this machine, through ``kfp.local``.

Names load when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from longshore._lazy import load

if TYPE_CHECKING:
    from longshore.runner.reports import Artifact, Event, RunFailed, RunReport, StepReport
    from longshore.runner.run import run_pipeline

_HOME: Final = {
    **dict.fromkeys(("Artifact", "Event", "RunFailed", "RunReport", "StepReport"), "longshore.runner.reports"),
    "run_pipeline": "longshore.runner.run",
}

__all__ = ["Artifact", "Event", "RunFailed", "RunReport", "StepReport", "run_pipeline"]


def __getattr__(name: str) -> Any:
    return load(__name__, _HOME, name)


def __dir__() -> list[str]:
    return sorted(__all__)
