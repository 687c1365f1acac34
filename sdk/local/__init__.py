"""This machine as a place to run: pipelines through ``kfp.local``, model servers as processes.

Names load when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from longshore.local.reports import Artifact, Event, RunFailed, RunReport, StepReport
    from longshore.local.runner import run_pipeline
    from longshore.local.runtime import LocalRuntime, ServerStatus, deployed_by, list_servers, log_path, stop

_HOME: Final = {
    **dict.fromkeys(("Artifact", "Event", "RunFailed", "RunReport", "StepReport"), "longshore.local.reports"),
    "run_pipeline": "longshore.local.runner",
    **dict.fromkeys(
        ("LocalRuntime", "ServerStatus", "deployed_by", "list_servers", "log_path", "stop"), "longshore.local.runtime"
    ),
}

__all__ = [
    "Artifact",
    "Event",
    "LocalRuntime",
    "RunFailed",
    "RunReport",
    "ServerStatus",
    "StepReport",
    "deployed_by",
    "list_servers",
    "log_path",
    "run_pipeline",
    "stop",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'longshore.local' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
