"""Serving platforms, each a module of pure functions; see :mod:`longshore.targets.base`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from longshore.errors import InvalidValue

if TYPE_CHECKING:
    from longshore.spec import Release
    from longshore.targets.base import Target
    from longshore.targets.routed import LaneTarget

__all__ = ["PLATFORMS", "ROUTABLE", "target_of"]

PLATFORMS: Final = ("local", "rest", "kserve", "seldon", "seldon-v2", "torchserve", "tensorflow-serving")
ROUTABLE: Final = ("rest", "kserve", "torchserve", "tensorflow-serving")
"""Those whose services have other objects with a router than without."""


def target_of(platform: str, *, routed: bool = False, kserve_version: tuple[int, int] | None = None) -> Target[Release]:
    """The target of a platform that is given by name.

    Args:
        platform: One of :data:`PLATFORMS`.
        routed: Whether a router shares requests out to revisions that run beside each other.
        kserve_version: Version of KServe in the cluster; None is the newest that longshore knows.

    Raises:
        InvalidValue: If there is no such platform, or it has no use for a router.
    """
    if platform == "local":
        from longshore.targets.local import LocalTarget

        return LocalTarget()
    if platform == "rest":
        from longshore.targets.rest import RestTarget

        return _routed(RestTarget()) if routed else RestTarget()
    if platform == "kserve":
        from longshore.targets.kserve import KServeTarget
        from longshore.targets.kserve_versions import NEWEST_VERSION

        target = KServeTarget(kserve_version or NEWEST_VERSION)
        return _routed(target) if routed else target
    if platform in ("seldon", "seldon-v2") and routed:
        raise InvalidValue("Service.router", "given", "Seldon shares requests out by itself: leave it out")
    if platform == "seldon":
        from longshore.targets.seldon import SeldonTarget

        return SeldonTarget()
    if platform == "seldon-v2":
        from longshore.targets.seldon_v2 import SeldonV2Target

        return SeldonV2Target()
    if platform == "torchserve":
        from longshore.targets.torchserve import TorchServeTarget

        return _routed(TorchServeTarget()) if routed else TorchServeTarget()
    if platform == "tensorflow-serving":
        from longshore.targets.tfserving import TensorFlowServingTarget

        return _routed(TensorFlowServingTarget()) if routed else TensorFlowServingTarget()
    raise InvalidValue("platform", platform, f"use one of {', '.join(PLATFORMS)}")


def _routed(inner: LaneTarget) -> Target[Release]:
    from longshore.targets.routed import RoutedTarget

    return RoutedTarget(inner)
