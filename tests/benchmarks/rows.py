"""What a benchmark gives: rows that compare a figure with a peer's, measured in the same run on the same work."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Row", "alone", "compare"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure.

    Args:
        name: What was measured.
        value: Median of the runs.
        unit: Its unit.
        peer: What it is compared with.
        peer_value: The peer's median in the same unit.
        ratio: ``value / peer_value``; None if the peer's is 0.
        goal: The goal in words, empty if there is none.
        met: Whether it is met, None without a goal.
        runs: How often each side was measured.
        spread: Largest minus smallest value of the runs, in the unit.
    """

    name: str
    value: float
    unit: str
    peer: str
    peer_value: float
    ratio: float | None
    goal: str
    met: bool | None
    runs: int
    spread: float


def compare(
    name: str,
    unit: str,
    ours: Sequence[float],
    peer: str,
    theirs: Sequence[float],
    *,
    at_most: float | None = None,
    ratio_at_most: float | None = None,
    ratio_at_least: float | None = None,
) -> Row:
    """A row from the values of several runs.

    Args:
        name: What was measured.
        unit: Its unit.
        ours: This library's values.
        peer: Name of the peer.
        theirs: The peer's values.
        at_most: Goal for the value.
        ratio_at_most: Goal for the ratio, where less is better.
        ratio_at_least: Goal for the ratio, where more is better.
    """
    value, peer_value = statistics.median(ours), statistics.median(theirs)
    ratio = value / peer_value if peer_value else None
    goal, met = "", None
    if at_most is not None:
        goal, met = f"<= {at_most:g} {unit}", value <= at_most
    elif ratio_at_most is not None:
        goal, met = f"ratio <= {ratio_at_most:g}", ratio is not None and ratio <= ratio_at_most
    elif ratio_at_least is not None:
        goal, met = f"ratio >= {ratio_at_least:g}", ratio is not None and ratio >= ratio_at_least
    return Row(
        name=name,
        value=value,
        unit=unit,
        peer=peer,
        peer_value=peer_value,
        ratio=ratio,
        goal=goal,
        met=met,
        runs=len(ours),
        spread=max(ours) - min(ours),
    )


def alone(name: str, unit: str, ours: Sequence[float], *, at_most: float | None = None) -> Row:
    """A row for what no peer does."""
    return compare(name, unit, ours, "-", [0.0], at_most=at_most)
