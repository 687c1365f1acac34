"""Who wins an experiment."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longshore.errors import InvalidValue, MonitorError
from longshore.monitoring import Arm, ExperimentRules, judge_experiment

RULES = ExperimentRules()


def arm(name, requests=1000, errors=0, rewards=500, reward=0.5):
    return Arm(revision=f"iris-{name}", requests=requests, errors=errors, rewards=rewards, reward_sum=rewards * reward)


A = arm("a")


@pytest.mark.parametrize(
    ("a", "b", "winner", "decided", "words"),
    [
        (A, arm("b", reward=0.7), "b", True, "b earns 0.2 more for an answer"),
        (A, arm("b", reward=0.3), "a", True, "a earns 0.2 more for an answer"),
        (A, arm("b", reward=0.53), "a", False, "within chance"),
        (A, arm("b", requests=99, reward=1.0), "a", False, "b answered 99 requests, 100 are needed"),
        (arm("a", requests=0, rewards=0), arm("b", reward=1.0), "a", False, "a answered 0 requests"),
        (A, arm("b", rewards=29, reward=1.0), "a", False, "b has 29 rewards, 30 are needed"),
        (arm("a", rewards=0), A, "a", False, "a has 0 rewards"),
        (A, arm("b", errors=60, reward=1.0), "a", True, "b failed 6 % of its requests, at most 5 % may"),
        (arm("a", errors=60), arm("b", rewards=0), "b", True, "a failed 6 % of its requests"),
        (arm("a", errors=60), arm("b", errors=200, reward=1.0), "a", False, "both failed too many"),
    ],
)
def test_the_better_one_wins_and_what_is_not_decided_stays(a, b, winner, decided, words):
    verdict = judge_experiment(a, b)
    assert (verdict.winner, verdict.decided) == (winner, decided)
    assert words in verdict.reason
    assert verdict.revision == f"iris-{winner}" if b is not A else True


def test_a_named_one_wins_whatever_was_observed():
    verdict = judge_experiment(A, arm("b", requests=0, rewards=0), winner="b")
    assert (verdict.winner, verdict.decided, verdict.reason) == ("b", True, "b was named")
    with pytest.raises(InvalidValue, match="use a or b"):
        judge_experiment(A, arm("b"), winner="iris-b")


def test_without_confidence_the_larger_average_wins():
    rules = replace(RULES, confidence=0.0)
    assert judge_experiment(A, arm("b", reward=0.501), rules).winner == "b"
    assert not judge_experiment(A, arm("b"), rules).decided


def test_the_interval_is_that_of_agresti_and_caffo():
    verdict = judge_experiment(arm("a", rewards=50, reward=0.5), arm("b", rewards=80, reward=0.75))
    # (61 + 0.0) / 82 and 26 / 52: the adjusted proportions
    spread = np.sqrt(61 / 82 * (1 - 61 / 82) / 82 + 0.25 / 52)
    assert verdict.gain == 0.25
    assert (verdict.low, verdict.high) == pytest.approx(
        (61 / 82 - 0.5 - 1.959964 * spread, 61 / 82 - 0.5 + 1.959964 * spread)
    )


def test_rewards_of_another_scale():
    rules = replace(RULES, reward_low=-1.0, reward_high=1.0)
    plain = judge_experiment(A, arm("b", reward=0.7))
    scaled = judge_experiment(arm("a", reward=0.0), arm("b", reward=0.4), rules)
    assert (scaled.low, scaled.high) == pytest.approx((2 * plain.low, 2 * plain.high))
    with pytest.raises(MonitorError, match="which is not from 0 to 1: say what rewards can be"):
        judge_experiment(A, arm("b", reward=1.5))
    with pytest.raises(MonitorError, match="is -0.5"):
        judge_experiment(arm("a", reward=-0.5), A)


def test_of_two_equal_ones_hardly_any_is_called_better():
    """Rewards of 0 and 1 with the same probability: the interval of 95 % leaves out 0 in about 5 % of experiments."""
    draw = np.random.default_rng(5)
    decided = 0
    for _ in range(1000):
        first, second = (arm(name, rewards=200, reward=draw.binomial(200, 0.4) / 200) for name in "ab")
        decided += judge_experiment(first, second).decided
    assert decided < 70


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500), st.floats(0, 1)),
    st.tuples(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500), st.floats(0, 1)),
)
def test_nothing_is_decided_without_data(first, second):
    a, b = (
        Arm(revision=name, requests=n, errors=min(e, n), rewards=r, reward_sum=r * mean)
        for name, (n, e, r, mean) in zip("ab", (first, second), strict=True)
    )
    verdict = judge_experiment(a, b)
    if min(a.requests, b.requests) < 100:
        assert not verdict.decided
    if not verdict.decided:
        assert verdict.winner == "a"
    assert verdict.to_markdown()
    assert all(np.isfinite(value) for value in verdict.numbers().values())


def test_the_report_says_what_it_rests_on():
    text = judge_experiment(A, arm("b", errors=10, reward=0.7)).to_markdown()
    assert "## b wins" in text
    assert "| b | `iris-b` | 1000 | 1 % | 500 | 0.7 |" in text
    assert "## Not decided: a stays" in judge_experiment(A, arm("b")).to_markdown()
    numbers = judge_experiment(A, arm("b", rewards=0)).numbers()
    assert "reward_b" not in numbers
    assert (numbers["requests_b"], numbers["reward_a"]) == (1000, 0.5)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"min_requests": -1}, "min_requests"),
        ({"min_rewards": 0}, "min_rewards"),
        ({"max_error_percent": 101}, "max_error_percent"),
        ({"reward_low": 1.0}, "reward_high"),
        ({"reward_high": float("inf")}, "reward_high"),
        ({"reward_low": float("nan")}, "reward_high"),
        ({"confidence": 1.0}, "confidence"),
    ],
)
def test_rules_that_are_none(given, field):
    with pytest.raises(InvalidValue) as refused:
        ExperimentRules(**given)
    assert refused.value.field == f"ExperimentRules.{field}"
