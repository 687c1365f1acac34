"""Serving platforms, each a module of pure functions; see :mod:`longshore.targets.base`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from longshore.errors import InvalidValue

if TYPE_CHECKING:
    from longshore.spec import Release
    from longshore.targets.base import Target

__all__ = ["PLATFORMS", "target_of"]

PLATFORMS: Final = ("local", "rest", "kserve")


def target_of(platform: str, *, kserve_version: tuple[int, int] | None = None) -> Target[Release]:
    """The target of a platform that is given by name.

    Args:
        platform: One of :data:`PLATFORMS`.
        kserve_version: Version of KServe in the cluster; None is the newest that longshore knows.

    Raises:
        InvalidValue: If there is no such platform.
    """
    if platform == "local":
        from longshore.targets.local import LocalTarget

        return LocalTarget()
    if platform == "rest":
        from longshore.targets.rest import RestTarget

        return RestTarget()
    if platform == "kserve":
        from longshore.targets.kserve import NEWEST_VERSION, KServeTarget

        return KServeTarget(kserve_version or NEWEST_VERSION)
    raise InvalidValue("platform", platform, f"use one of {', '.join(PLATFORMS)}")
