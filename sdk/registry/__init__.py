"""The model registry: MLflow, reached through its public client.

Names load when first used; MLflow itself is imported by the first call that needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from longshore._lazy import load

if TYPE_CHECKING:
    from longshore.registry.recorder import RegistryRecorder
    from longshore.registry.store import Registry
    from longshore.registry.versions import DeploymentState, RegisteredVersion

_HOME: Final = {
    "DeploymentState": "longshore.registry.versions",
    "RegisteredVersion": "longshore.registry.versions",
    "Registry": "longshore.registry.store",
    "RegistryRecorder": "longshore.registry.recorder",
}

__all__ = ["DeploymentState", "RegisteredVersion", "Registry", "RegistryRecorder"]


def __getattr__(name: str) -> Any:
    return load(__name__, _HOME, name)


def __dir__() -> list[str]:
    return sorted(__all__)
