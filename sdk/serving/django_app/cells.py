"""Values as cells of a table that people open in a spreadsheet."""

from __future__ import annotations

import json
from typing import Any, Final

__all__ = ["as_cell"]

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def as_cell(value: Any) -> Any:
    """A value as a spreadsheet may have it: text that came from a client is no formula."""
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    text = value.isoformat() if hasattr(value, "isoformat") else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
