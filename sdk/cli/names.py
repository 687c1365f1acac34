"""Names that a directory gives its model, where a user gives none."""

from __future__ import annotations

import re
from pathlib import PurePath

__all__ = ["model_name", "version_of"]


def model_name(place: str) -> str:
    """A model's name in request paths: that of its directory, or of the one above where that is a version's.

    Args:
        place: An absolute path, or a URI.
    """
    named = [part for part in PurePath(place).parts if not part.isdecimal()] or ["model"]
    return re.sub(r"[^a-z0-9]+", "-", named[-1].lower()).strip("-")[:63].strip("-") or "model"


def version_of(place: str) -> str | None:
    """The version that a directory is named by, None if it is not."""
    last = PurePath(place).name
    return last if last.isdecimal() else None
