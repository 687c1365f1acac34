"""This machine as a place where models are served: the runtime, and what it runs.

Names load when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from longshore._lazy import load

if TYPE_CHECKING:
    from longshore.local.runtime import LocalRuntime
    from longshore.local.servers import ServerStatus, before_run, deployed_by, list_servers, log_paths, stop

__all__ = ["LocalRuntime", "ServerStatus", "before_run", "deployed_by", "list_servers", "log_paths", "stop"]

_HOME: Final = {**dict.fromkeys(__all__, "longshore.local.servers"), "LocalRuntime": "longshore.local.runtime"}


def __getattr__(name: str) -> Any:
    return load(__name__, _HOME, name)


def __dir__() -> list[str]:
    return sorted(__all__)
