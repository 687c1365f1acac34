"""Packages for TorchServe on KServe: in its TorchServe runtime, as the model format ``pytorch``.

KServe's image for that runtime has a Python that is too old for longshore's handler, and a wrapper that hands
TorchServe's management API to whoever reaches the pod. What longshore has packaged runs in longshore's image in its
place: TorchServe answers V1 and V2 itself, at KServe's port, and is managed on loopback. Archives of others are left to
KServe's image.

Sources: github.com/kserve (config/runtimes/kserve-torchserve.yaml), github.com/pytorch/serve (kubernetes/kserve).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from longshore.spec import Release
from longshore.spec.image import image_name
from longshore.targets.torchserve import server_arguments

__all__ = [
    "FORMAT",
    "TORCHSERVE_FORMAT",
    "is_archive",
    "is_packaged_archive",
    "torchserve_arguments",
    "torchserve_container",
]

FORMAT: Final = "torchserve"
"""Format of a package."""

TORCHSERVE_FORMAT: Final = "pytorch"
"""What KServe calls it."""

_RUNTIME: Final = "kserve-torchserve"
_PORT: Final = 8080
_READY: Final = "/tmp/ready"  # noqa: S108 - the pod's own

_SETTINGS: Final[Mapping[str, object]] = {
    "inference_address": f"http://0.0.0.0:{_PORT}",
    "metrics_address": "http://0.0.0.0:8082",
    "model_store": "/mnt/models/model-store",
    # the handler takes V1 and V2 as they come, and several requests together
    "service_envelope": "",
}


def is_archive(release: Release) -> bool:
    """Whether the model is a package for TorchServe."""
    return release.model.format == FORMAT


def is_packaged_archive(release: Release) -> bool:
    """Whether it is one that longshore has made, and KServe's runtime is to serve it."""
    kserve = release.service.kserve
    runtime = None if kserve is None else kserve.runtime
    return is_archive(release) and release.model.digest is not None and runtime in (None, _RUNTIME)


def torchserve_arguments(release: Release) -> Sequence[str]:
    """What longshore's image is told beyond what KServe's runtime tells TorchServe."""
    if not is_packaged_archive(release):
        return ()
    return [
        f"--digest={release.model.digest}",
        *server_arguments(ready=_READY, words="/dev/termination-log", settings=_SETTINGS),
    ]


def torchserve_container(release: Release) -> dict[str, Any]:
    """Fields of the model's container that count in place of the runtime's; none for archives of others."""
    if not is_packaged_archive(release):
        return {}
    return {
        "image": release.service.image or image_name("torch"),
        "command": ["python", "-m", "longshore.serving.torchserve_server"],
        "readinessProbe": {"exec": {"command": ["test", "-e", _READY]}, "periodSeconds": 1},
    }
