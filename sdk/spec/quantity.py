"""Kubernetes resource quantities as numbers."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Final

__all__ = ["quantity"]

_SUFFIXES: Final = {
    "m": Decimal("0.001"),
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", start=1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", start=1)},
}


def quantity(text: str) -> Decimal | None:
    """The value of a quantity such as ``500m`` or ``1Gi``; None if it is none."""
    number = text.rstrip("mkKMGTPEi")
    factor = _SUFFIXES.get(text[len(number) :], None) if number != text else Decimal(1)
    try:
        return None if factor is None else Decimal(number) * factor
    except InvalidOperation:
        return None
