"""Judges an experiment between two revisions by what was observed of them. Pure.

Rewards are compared by their averages. Only counts and sums of them are known, so the spread is the largest that
rewards between their bounds can have with the observed average (Bhatia and Davis, "A better bound on the variance",
2000), which makes the interval wider than it need be, never narrower. The interval itself is that of Agresti and Caffo
("Simple and effective confidence intervals for proportions and differences of proportions", 2000), which keeps its word
with few rewards as well. For rewards that are 0 or 1 both are exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

from longshore.errors import InvalidValue, MonitorError
from longshore.spec.checks import check_range

__all__ = ["Arm", "ExperimentRules", "ExperimentVerdict", "failing", "judge_experiment"]

_WHO: Final = ("a", "b")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What was observed of one revision.

    Args:
        revision: Its name.
        requests: Requests that it answered.
        errors: Of them that failed by no fault of the client.
        rewards: Answers that a reward came for.
        reward_sum: Sum of these rewards.
    """

    revision: str
    requests: int
    errors: int
    rewards: int
    reward_sum: float

    @property
    def error_percent(self) -> float:
        """Percent of the requests that failed; 0 without requests."""
        return 100 * self.errors / self.requests if self.requests else 0.0

    @property
    def reward(self) -> float | None:
        """Average reward, None without any."""
        return self.reward_sum / self.rewards if self.rewards else None


@dataclass(frozen=True, kw_only=True)
class ExperimentRules:
    """What decides an experiment.

    Args:
        min_requests: So many requests each revision must have answered.
        min_rewards: So many rewards each must have.
        max_error_percent: A revision with more errors loses, whatever its rewards.
        reward_low: The least that a reward can be.
        reward_high: The most that it can be.
        confidence: How sure it has to be that the difference of the average rewards is none of chance, from 0 up to
            but not including 1; with 0 the larger average wins.
    """

    min_requests: int = 100
    min_rewards: int = 30
    max_error_percent: float = 5.0
    reward_low: float = 0.0
    reward_high: float = 1.0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        check_range("ExperimentRules.min_requests", self.min_requests, 0)
        check_range("ExperimentRules.min_rewards", self.min_rewards, 1)
        if not 0 <= self.max_error_percent <= 100:
            raise InvalidValue(
                "ExperimentRules.max_error_percent", self.max_error_percent, "use a number from 0 to 100"
            )
        if not (math.isfinite(self.reward_low) and self.reward_low < self.reward_high < math.inf):
            raise InvalidValue(
                "ExperimentRules.reward_high", self.reward_high, f"use a number above reward_low={self.reward_low:g}"
            )
        if not 0 <= self.confidence < 1:
            raise InvalidValue("ExperimentRules.confidence", self.confidence, "use a number from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class ExperimentVerdict:
    """What an experiment has shown.

    Args:
        a: The revision that was there first.
        b: The one that was put beside it.
        winner: ``a`` or ``b``. What is not decided stays with ``a``.
        decided: Whether the data, or whoever named a winner, decided it.
        reason: Why, in one sentence.
        gain: By how much the average reward of ``b`` is higher, None without rewards on both sides.
        low: Lower end of that difference's interval.
        high: Its upper end.
    """

    a: Arm
    b: Arm
    winner: str
    decided: bool
    reason: str
    gain: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def revision(self) -> str:
        """The winner's name."""
        return (self.a if self.winner == "a" else self.b).revision

    def numbers(self) -> dict[str, float]:
        """What was observed, by name: ``requests_a``, ``error_percent_b``, ``reward_a`` and the like."""
        found: dict[str, float] = {}
        for name, arm in zip(_WHO, (self.a, self.b), strict=True):
            found |= {f"requests_{name}": arm.requests, f"error_percent_{name}": arm.error_percent}
            found[f"rewards_{name}"] = arm.rewards
            if arm.reward is not None:
                found[f"reward_{name}"] = arm.reward
        return found if self.gain is None else {**found, "gain": self.gain}

    def to_markdown(self) -> str:
        """The verdict as Markdown."""
        lines = [f"## {self.winner} wins" if self.decided else "## Not decided: a stays", "", self.reason, ""]
        lines += ["| | revision | requests | errors | rewards | average reward |", "|---|---|---:|---:|---:|---:|"]
        for name, arm in zip(_WHO, (self.a, self.b), strict=True):
            reward = "" if arm.reward is None else f"{arm.reward:.4g}"
            lines.append(
                f"| {name} | `{arm.revision}` | {arm.requests} | {arm.error_percent:.3g} % | {arm.rewards} | {reward} |"
            )
        if self.gain is not None:
            lines += ["", f"b earns {self.gain:+.4g} more for an answer ({self.low:+.4g} to {self.high:+.4g})."]
        return "\n".join(lines) + "\n"


def judge_experiment(
    a: Arm, b: Arm, rules: ExperimentRules | None = None, *, winner: str | None = None
) -> ExperimentVerdict:
    """Decide between two revisions.

    Too few requests or rewards, and a difference within chance, decide nothing: then the one that was there first
    stays.

    Args:
        a: The revision that was there first.
        b: The one that was put beside it.
        rules: What decides.
        winner: ``a`` or ``b`` if a person has chosen; what was observed is told all the same.

    Raises:
        InvalidValue: If the winner is neither.
        MonitorError: If rewards are beyond the bounds that the rules give.
    """
    rules = rules or ExperimentRules()
    if winner is not None and winner not in _WHO:
        raise InvalidValue("winner", winner, "use a or b")
    found = _gain(a, b, rules)

    def told(who: str, reason: str, *, decided: bool = True) -> ExperimentVerdict:
        gain, low, high = found or (None, None, None)
        return ExperimentVerdict(a=a, b=b, winner=who, decided=decided, reason=reason, gain=gain, low=low, high=high)

    if winner is not None:
        return told(winner, f"{winner} was named")
    for name, arm in zip(_WHO, (a, b), strict=True):
        if arm.requests < rules.min_requests:
            few = f"{name} answered {arm.requests} requests, {rules.min_requests} are needed"
            return told("a", few, decided=False)
    bound = f"at most {rules.max_error_percent:g} % may"
    ill = failing(a, b, rules)
    if len(ill) == 1:
        arm, better = (a, "b") if ill == ("a",) else (b, "a")
        return told(better, f"{ill[0]} failed {arm.error_percent:.3g} % of its requests, {bound}")
    if ill:
        return told("a", f"both failed too many of their requests, {bound}", decided=False)
    for name, arm in zip(_WHO, (a, b), strict=True):
        if arm.rewards < rules.min_rewards:
            few = f"{name} has {arm.rewards} rewards, {rules.min_rewards} are needed"
            return told("a", few, decided=False)
    assert found is not None  # noqa: S101 - for the type checker: there are rewards on both sides
    gain, low, high = found
    if rules.confidence and low <= 0 <= high:
        reason = f"the difference of the average rewards, {gain:+.4g}, is within chance ({low:+.4g} to {high:+.4g})"
        return told("a", reason, decided=False)
    if gain == 0:
        return told("a", "both earn the same", decided=False)
    better = "b" if gain > 0 else "a"
    return told(better, f"{better} earns {abs(gain):.4g} more for an answer ({low:+.4g} to {high:+.4g})")


def failing(a: Arm, b: Arm, rules: ExperimentRules) -> tuple[str, ...]:
    """Which of the two, ``a`` or ``b``, fail more of their requests than they may."""
    return tuple(
        name
        for name, arm in zip(_WHO, (a, b), strict=True)
        if arm.requests >= rules.min_requests and arm.error_percent > rules.max_error_percent
    )


def _gain(a: Arm, b: Arm, rules: ExperimentRules) -> tuple[float, float, float] | None:
    """The difference of the average rewards with its interval."""
    if a.reward is None or b.reward is None:
        return None
    width = rules.reward_high - rules.reward_low
    spread, middle = 0.0, 0.0
    for sign, arm in ((-1, a), (1, b)):
        assert arm.reward is not None  # noqa: S101 - for the type checker
        share = (arm.reward - rules.reward_low) / width
        if not -1e-9 <= share <= 1 + 1e-9:
            raise MonitorError(
                f"the average reward of {arm.revision} is {arm.reward:g}, which is not from {rules.reward_low:g} to "
                f"{rules.reward_high:g}: say what rewards can be (reward_low, reward_high)"
            )
        # one more of the best and one of the worst on each side
        adjusted = (share * arm.rewards + 1) / (arm.rewards + 2)
        spread += adjusted * (1 - adjusted) / (arm.rewards + 2)
        middle += sign * adjusted
    reach = NormalDist().inv_cdf(0.5 + rules.confidence / 2) * math.sqrt(spread) if rules.confidence else 0.0
    return b.reward - a.reward, width * (middle - reach), width * (middle + reach)
