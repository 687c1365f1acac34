"""The decision whether a candidate may replace the champion, with its reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

from longshore.errors import ConfigError, InvalidValue
from longshore.validation.bootstrap import interval, paired_gains
from longshore.validation.evaluate import Evaluation
from longshore.validation.metrics import DEFAULT_METRIC, metric_info
from longshore.validation.predictions import align, shown

__all__ = ["Check", "Comparison", "Rule", "Verdict", "judge"]

Rule = Literal["not_worse", "better", "none"]
_RULES: Final[tuple[str, ...]] = get_args(Rule)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One threshold.

    Args:
        metric: The metric.
        bound: The threshold: a lower bound where higher is better, else an upper bound.
        higher_is_better: Which of the two it is.
        value: What the candidate has, or None where the metric is undefined.
        passed: Whether it is met.
        why: The outcome as a sentence.
    """

    metric: str
    bound: float
    higher_is_better: bool
    value: float | None
    passed: bool
    why: str

    @property
    def value_text(self) -> str:
        """The value, with as many digits as show on which side of the bound it lies."""
        return "\N{EN DASH}" if self.value is None else _beside(self.value, self.bound)

    @property
    def bound_text(self) -> str:
        """What is required, such as ``at least 0.9``."""
        return f"at {'least' if self.higher_is_better else 'most'} {_exact(self.bound)}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Candidate and champion on the same rows.

    Args:
        metric: What they are compared by.
        candidate: The candidate's score.
        champion: The champion's score.
        gain: How much better the candidate is, in units of the metric; positive is better for errors too.
        low: Lower end of the gain's bootstrap interval.
        high: Upper end.
        confidence: Level of the interval.
        noise: Whether the interval contains 0: other test rows could turn the order round.
    """

    metric: str
    candidate: float
    champion: float
    gain: float
    low: float
    high: float
    confidence: float
    noise: bool

    def __str__(self) -> str:
        return (
            f"{self.metric}: {_number(self.candidate)} against the champion's {_number(self.champion)}, "
            f"a gain of {self.gain:+.4g} ({self.confidence:.0%} interval {self.low:+.4g} to {self.high:+.4g}"
            f"{', within noise' if self.noise else ''})"
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was decided, and why.

    Args:
        approved: Whether the candidate may go on.
        reasons: Sentences: why it was refused, or what it was approved on.
        checks: The thresholds.
        comparison: How it stands against the champion; None where there is none or it could not be compared.
    """

    approved: bool
    reasons: tuple[str, ...]
    checks: tuple[Check, ...] = ()
    comparison: Comparison | None = None

    @property
    def summary(self) -> str:
        """The verdict in one line."""
        return f"{'approved' if self.approved else 'rejected'}: {'; '.join(self.reasons)}"

    def to_markdown(self) -> str:
        """The verdict for a Markdown artifact."""
        from longshore.validation.verdict_page import verdict_markdown

        return verdict_markdown(self)

    def to_html(self, *, title: str = "Model validation") -> str:
        """The verdict as a page of its own."""
        from longshore.validation.verdict_page import verdict_html

        return verdict_html(self, title=title)


def judge(
    candidate: Evaluation,
    thresholds: Mapping[str, float],
    champion: Evaluation | None = None,
    *,
    metric: str | None = None,
    rule: Rule = "not_worse",
    min_gain: float = 0.0,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Verdict:
    """Decide whether a candidate is good enough, by itself and against the model that serves now.

    The difference to the champion is judged by its paired bootstrap interval
    (:func:`longshore.validation.bootstrap.paired_gains`), so that luck with the test rows decides nothing.

    Args:
        candidate: Evaluation of the new model.
        thresholds: Bound per metric: ``{"accuracy": 0.9}`` means at least, errors such as ``{"rmse": 3}`` mean at most.
        champion: Evaluation of the serving model on the same rows, or None if there is none: then thresholds decide.
        metric: What the two are compared by; None takes ``f1_macro`` or ``rmse``.
        rule: ``not_worse`` refuses a candidate whose whole interval lies below ``-min_gain`` (surely worse by more than
            is tolerated); ``better`` asks for the whole interval above ``min_gain`` (surely better by more than that);
            ``none`` compares without deciding by it.
        min_gain: In units of the metric, see ``rule``.
        confidence: Level of the interval.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples; the same seed gives the same verdict.

    Raises:
        ConfigError: If a metric is unknown or does not score such a model, a threshold is not a finite number, or the
            two evaluations are not of the same rows.
        InvalidValue: If a setting is out of its range.
    """
    _check_settings(rule, min_gain, confidence, resamples)
    checks = tuple(_check(candidate, name, bound) for name, bound in thresholds.items())
    metric = metric_info(metric or DEFAULT_METRIC[candidate.task], candidate.task).name
    comparison, against = None, _unscored(metric, candidate, champion)
    if champion is not None:
        _check_same_rows(candidate, champion)
        if against is None:
            comparison = _compare(metric, candidate, champion, confidence, resamples, seed)
            against = _objection(comparison, rule, min_gain) if comparison else _too_few(metric)
    if rule == "none" and candidate.metrics:
        against = None
    refusals = (*(check.why for check in checks if not check.passed), *((against,) if against else ()))
    if refusals:
        return Verdict(approved=False, reasons=refusals, checks=checks, comparison=comparison)
    reasons = (*(check.why for check in checks), _standing(champion, comparison, metric, rule, min_gain))
    return Verdict(approved=True, reasons=reasons, checks=checks, comparison=comparison)


def _check_settings(rule: str, min_gain: float, confidence: float, resamples: int) -> None:
    if rule not in _RULES:
        raise InvalidValue("rule", rule, f"use one of {', '.join(_RULES)}")
    if not math.isfinite(min_gain) or min_gain < 0:
        raise InvalidValue("min_gain", min_gain, "use a number of at least 0, in units of the metric")
    if not 0.0 < confidence < 1.0:
        raise InvalidValue("confidence", confidence, "use a number between 0 and 1, such as 0.95")
    if resamples < 100:
        raise InvalidValue("resamples", resamples, "use at least 100: fewer give no interval")


def _check(candidate: Evaluation, name: str, bound: float) -> Check:
    info = metric_info(name, candidate.task)
    if isinstance(bound, bool) or not isinstance(bound, (int, float)) or not math.isfinite(bound):
        raise ConfigError(f"the threshold of {name} is {bound!r}; use a finite number")
    value = candidate.metrics.get(name, math.nan)
    higher = info.higher_is_better
    if math.isfinite(value):
        passed = value >= bound if higher else value <= bound
        side = "at least" if higher else "at most"
        why = f"{name} {_beside(value, bound)} is {'' if passed else 'not '}{side} {_exact(bound)}"
    else:
        passed = False
        why = f"{name} could not be computed ({candidate.undefined.get(name, 'it is not a number')})"
    shown_value = value if math.isfinite(value) else None
    return Check(metric=name, bound=bound, higher_is_better=higher, value=shown_value, passed=passed, why=why)


def _check_same_rows(candidate: Evaluation, champion: Evaluation) -> None:
    if candidate.task != champion.task:
        raise ConfigError(
            f"the candidate is a {candidate.task} model and the champion a {champion.task} model: "
            "give models for another purpose another name"
        )
    if candidate.target != champion.target:
        raise ConfigError(
            f"the candidate predicts {candidate.target!r} and the champion {champion.target!r}: "
            "give models for another purpose another name"
        )
    ours, theirs = align(candidate.predictions, champion.predictions)
    if not np.array_equal(ours.actual, theirs.actual):
        raise ConfigError(
            f"candidate and champion were not evaluated on the same rows ({candidate.rows} and {champion.rows}, or "
            "other true values): evaluate both on one test table"
        )


def _unscored(metric: str, candidate: Evaluation, champion: Evaluation | None) -> str | None:
    scored = {"candidate": candidate} if champion is None else {"candidate": candidate, "champion": champion}
    usable = [name for name in candidate.metrics if all(name in one.metrics for one in scored.values())]
    for who, evaluation in scored.items():
        if not math.isfinite(evaluation.metrics.get(metric, math.nan)):
            why = evaluation.undefined.get(metric, "it is not a number")
            advice = f"; metrics that could: {shown(usable)}" if usable else ""
            return f"the {who}'s {metric} could not be computed ({why}){advice}"
    return None


def _compare(
    metric: str, candidate: Evaluation, champion: Evaluation, confidence: float, resamples: int, seed: int
) -> Comparison | None:
    gains = paired_gains(metric, candidate.predictions, champion.predictions, resamples=resamples, seed=seed)
    ends = interval(gains, confidence)
    if ends is None:
        return None
    ours, theirs = candidate.metrics[metric], champion.metrics[metric]
    sign = 1.0 if metric_info(metric, candidate.task).higher_is_better else -1.0
    return Comparison(
        metric=metric,
        candidate=ours,
        champion=theirs,
        gain=sign * (ours - theirs) + 0.0,
        low=ends[0],
        high=ends[1],
        confidence=confidence,
        noise=ends[0] <= 0.0 <= ends[1],
    )


def _too_few(metric: str) -> str:
    return f"the test rows are too few or too one-sided to compare by {metric}"


def _objection(comparison: Comparison, rule: Rule, min_gain: float) -> str | None:
    by = f" by more than {min_gain:g}" if min_gain else ""
    if rule == "not_worse" and comparison.high < -min_gain:
        return f"worse than the champion{by}: {comparison}"
    if rule == "better" and not comparison.low > min_gain:
        return f"not shown to be better than the champion{by}: {comparison}"
    return None


def _standing(
    champion: Evaluation | None, comparison: Comparison | None, metric: str, rule: Rule, min_gain: float
) -> str:
    if champion is None:
        return "no champion to compare with"
    if comparison is None:
        return f"not compared with the champion by {metric}"
    if rule == "none":
        return f"compared without being decided by it: {comparison}"
    by = f" by more than {min_gain:g}" if min_gain else ""
    return f"{'better' if rule == 'better' else 'not worse'} than the champion{by}: {comparison}"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _exact(bound: float) -> str:
    return short if float(short := f"{bound:g}") == bound else repr(bound)


def _beside(value: float, bound: float) -> str:
    # 0.89999 must not read "0.9 is not at least 0.9"
    if value == bound:
        return _exact(bound)
    texts = (f"{value:.{digits}g}" for digits in range(4, 18))
    return next(text for text in texts if float(text) != bound and (float(text) < bound) == (value < bound))
