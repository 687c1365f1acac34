"""longshore: from data to a monitored model endpoint, as Kubeflow pipelines or plain Python.

Names load when first used, so that ``import longshore`` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from longshore._lazy import load
from longshore._version import __version__

if TYPE_CHECKING:
    from longshore.errors import LongshoreError
    from longshore.spec import (
        Endpoint,
        Health,
        HealthState,
        ModelSource,
        Release,
        Resources,
        Router,
        Scaling,
        Service,
        Tls,
        Traffic,
    )

_HOME: Final = {
    "LongshoreError": "longshore.errors",
    **dict.fromkeys(
        (
            "Endpoint",
            "Health",
            "HealthState",
            "ModelSource",
            "Release",
            "Resources",
            "Router",
            "Scaling",
            "Service",
            "Tls",
            "Traffic",
        ),
        "longshore.spec",
    ),
}

__all__ = [
    "Endpoint",
    "Health",
    "HealthState",
    "LongshoreError",
    "ModelSource",
    "Release",
    "Resources",
    "Router",
    "Scaling",
    "Service",
    "Tls",
    "Traffic",
    "__version__",
]


def __getattr__(name: str) -> Any:
    return load(__name__, _HOME, name)


def __dir__() -> list[str]:
    return sorted(__all__)
