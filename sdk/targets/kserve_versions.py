"""Versions of KServe: which ones longshore knows, and how they are written."""

from __future__ import annotations

import re
from typing import Final

from longshore.errors import InvalidValue

__all__ = ["NEWEST_VERSION", "OLDEST_VERSION", "dotted", "parse_version", "too_old"]

OLDEST_VERSION: Final = (0, 15)
NEWEST_VERSION: Final = (0, 20)


def parse_version(text: str) -> tuple[int, int]:
    """KServe's version as it is written, such as ``0.17`` or ``v0.17.1``.

    Raises:
        InvalidValue: If it is none.
    """
    found = re.fullmatch(r"v?(\d+)\.(\d+)(\..+)?", text)
    if found is None:
        raise InvalidValue("kserve_version", text, "write it as 0.17 or v0.17.1")
    return int(found[1]), int(found[2])


def dotted(version: tuple[int, int]) -> str:
    """A version as KServe writes it, such as ``0.17``."""
    return ".".join(map(str, version))


def too_old(version: tuple[int, int], since: tuple[int, int]) -> str:
    """Why a cluster's version cannot do what came with a later one."""
    return f"the cluster has KServe {dotted(version)}, and this came with {dotted(since)}"
