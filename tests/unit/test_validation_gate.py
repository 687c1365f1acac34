"""The paired bootstrap, and what the gate decides by it."""

import math
import re

import numpy as np
import pytest

from longshore.errors import ConfigError, InvalidValue
from longshore.validation.bootstrap import interval, paired_gains
from longshore.validation.evaluate import evaluate_predictions
from longshore.validation.gate import judge
from longshore.validation.metrics import METRICS, score
from longshore.validation.predictions import classification, regression

CLASSES = ("a", "b", "c")


def classifier(*, right, rows=300, seed=0, probabilities=True, classes=CLASSES):
    """A model that is right in about this share of the rows; the true labels are the same for every seed."""
    rng = np.random.default_rng(seed + 1)
    actual = np.random.default_rng(0).integers(0, len(classes), rows)
    guess = np.where(rng.random(rows) < right, actual, (actual + 1) % len(classes))
    sure = rng.uniform(0.4, 0.9, rows)
    table = np.repeat(((1 - sure) / (len(classes) - 1))[:, None], len(classes), axis=1)
    table[np.arange(rows), guess] = sure
    names = np.array(classes, dtype=object)
    return classification(names[actual], names[guess], table if probabilities else None, classes=classes)


def regressor(*, error, rows=300, seed=0):
    actual = np.random.default_rng(0).normal(50, 10, rows)
    return regression(actual, actual + error * np.random.default_rng(seed + 1).normal(size=rows))


def evaluation(predictions, target="y"):
    return evaluate_predictions(predictions, target=target)


def test_coverage_of_the_interval():
    """In many repetitions of a test, the 90% interval holds the true gain about 90 times of 100."""
    rng = np.random.default_rng(7)
    covered, runs, rows = 0, 300, 200
    for _ in range(runs):
        actual = rng.integers(0, 2, rows)
        ours = np.where(rng.random(rows) < 0.85, actual, 1 - actual)
        theirs = np.where(rng.random(rows) < 0.80, actual, 1 - actual)
        gains = paired_gains(
            "accuracy", classification(actual, ours), classification(actual, theirs), resamples=200, seed=1
        )
        low, high = interval(gains, 0.9)
        covered += low <= 0.05 <= high
    assert 0.84 <= covered / runs <= 0.96


@pytest.mark.parametrize("metric", [name for name, info in METRICS.items() if info.task == "classification"])
def test_resampled_scores_of_classifiers_are_those_of_the_resampled_rows(metric):
    """Mean and spread of the fast gains match those of rows that are really drawn and scored."""
    ours, theirs = classifier(right=0.8, rows=120), classifier(right=0.7, rows=120, seed=5)
    check_against_drawn_rows(metric, ours, theirs)


@pytest.mark.parametrize("metric", [name for name, info in METRICS.items() if info.task == "regression"])
def test_resampled_scores_of_regressions_are_those_of_the_resampled_rows(metric):
    check_against_drawn_rows(metric, regressor(error=2, rows=120), regressor(error=3, rows=120, seed=5))


def check_against_drawn_rows(metric, ours, theirs):
    fast = paired_gains(metric, ours, theirs, resamples=2000, seed=0)
    rng = np.random.default_rng(3)
    sign = 1 if METRICS[metric].higher_is_better else -1
    slow = []
    for _ in range(300):
        rows = rng.integers(0, ours.rows, ours.rows)
        slow.append(sign * (score(ours.take(rows))[0][metric] - score(theirs.take(rows))[0][metric]))
    spread = np.std(slow)
    assert fast.shape == (2000,)
    assert np.mean(fast) == pytest.approx(np.mean(slow), abs=5 * spread / math.sqrt(300))
    assert np.std(fast) == pytest.approx(spread, rel=0.2)
    point = sign * (score(ours)[0][metric] - score(theirs)[0][metric])
    assert np.mean(fast) == pytest.approx(point, abs=spread)
    assert point > 0


def test_large_tables_are_worked_through_in_parts(monkeypatch):
    models = {
        "accuracy": (classifier(right=0.8), classifier(right=0.7, seed=5)),
        "roc_auc": (classifier(right=0.8), classifier(right=0.7, seed=5)),
        "rmse": (regressor(error=2), regressor(error=3, seed=5)),
    }
    whole = {name: paired_gains(name, *pair, resamples=500, seed=0) for name, pair in models.items()}
    monkeypatch.setattr("longshore.validation.bootstrap._CELLS", 7 * 300)
    for name, pair in models.items():
        parts = paired_gains(name, *pair, resamples=500, seed=0)
        assert parts.shape == (500,)
        assert len(np.unique(parts)) > 20
        assert np.mean(parts) == pytest.approx(np.mean(whole[name]), abs=0.3 * np.std(whole[name]))


def test_same_seed_same_gains():
    pair = classifier(right=0.8), classifier(right=0.7, seed=5)
    one, again, other = (paired_gains("f1_macro", *pair, resamples=100, seed=seed) for seed in (1, 1, 2))
    assert one.tolist() == again.tolist()
    assert one.tolist() != other.tolist()


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        (np.arange(101.0), (5.0, 95.0)),
        (np.concatenate([np.arange(101.0), np.full(100, np.nan)]), (5.0, 95.0)),
        (np.concatenate([np.arange(101.0), np.full(102, np.nan)]), None),
    ],
)
def test_interval_of_defined_gains(gains, expected):
    assert interval(gains, 0.9) == (expected and pytest.approx(expected))


@pytest.mark.parametrize("metric", list(METRICS))
def test_the_same_model_twice_gains_nothing(metric):
    make = classifier if METRICS[metric].task == "classification" else regressor
    one = evaluation(make(right=0.8) if make is classifier else make(error=2))
    verdict = judge(one, {}, one, metric=metric)
    found = verdict.comparison
    assert verdict.approved
    assert (found.gain, found.low, found.high, found.noise) == (0, 0, 0, True)
    assert "gain of +0 " in verdict.summary
    assert "+0 to +0, within noise" in verdict.summary
    assert not judge(one, {}, one, metric=metric, rule="better").approved


# how the candidate stands, by rule: better by 0.2, worse by 0.2, or as good but for luck
MODELS = {
    "better": (classifier(right=0.9), classifier(right=0.7, seed=5)),
    "worse": (classifier(right=0.7, seed=5), classifier(right=0.9)),
    "level": (classifier(right=0.8), classifier(right=0.8, seed=5)),
    "smaller errors": (regressor(error=2), regressor(error=4, seed=5)),
    "larger errors": (regressor(error=4, seed=5), regressor(error=2)),
}


@pytest.mark.parametrize(
    ("models", "rule", "min_gain", "approved", "words"),
    [
        ("better", "not_worse", 0.0, True, "not worse than the champion: f1_macro"),
        ("better", "better", 0.0, True, "better than the champion: f1_macro"),
        ("better", "better", 0.5, False, "not shown to be better than the champion by more than 0.5"),
        ("better", "none", 0.0, True, "without being decided by it"),
        ("worse", "not_worse", 0.0, False, "worse than the champion: f1_macro"),
        ("worse", "not_worse", 0.5, True, "not worse than the champion by more than 0.5"),
        ("worse", "better", 0.0, False, "not shown to be better"),
        ("worse", "none", 0.0, True, "without being decided by it"),
        ("level", "not_worse", 0.0, True, "within noise"),
        ("level", "better", 0.0, False, "within noise"),
        ("smaller errors", "not_worse", 0.0, True, "not worse than the champion: rmse"),
        ("smaller errors", "better", 1.0, True, "better than the champion by more than 1: rmse"),
        ("larger errors", "not_worse", 0.0, False, "worse than the champion: rmse"),
        ("larger errors", "not_worse", 3.0, True, "by more than 3"),
    ],
)
def test_rules(models, rule, min_gain, approved, words):
    candidate, champion = map(evaluation, MODELS[models])
    verdict = judge(candidate, {}, champion, rule=rule, min_gain=min_gain)
    assert verdict.approved is approved
    assert verdict.summary.startswith("approved: " if approved else "rejected: ")
    assert words in verdict.summary
    found = verdict.comparison
    assert found.low <= found.gain <= found.high
    assert found.noise == (models == "level")
    if models != "level":
        assert (found.gain > 0) == (models in ("better", "smaller errors"))


@pytest.mark.parametrize("metric", ["accuracy", "log_loss", "roc_auc"])
def test_the_metric_can_be_chosen(metric):
    candidate, champion = map(evaluation, MODELS["better"])
    verdict = judge(candidate, {}, champion, metric=metric, rule="better")
    assert verdict.approved
    assert verdict.comparison.metric == metric
    assert verdict.comparison.candidate == candidate.metrics[metric]


@pytest.mark.parametrize(
    ("thresholds", "approved", "words"),
    [
        ({}, True, "no champion to compare with"),
        ({"accuracy": 0.5}, True, "is at least 0.5"),
        ({"accuracy": 0.999}, False, "is not at least 0.999"),
        ({"accuracy": 1}, False, "is not at least 1"),
        ({"log_loss": 5.0}, True, "is at most 5"),
        ({"log_loss": 0.01}, False, "is not at most 0.01"),
        ({"accuracy": 0.5, "log_loss": 0.01}, False, "log_loss"),
    ],
)
def test_thresholds(thresholds, approved, words):
    verdict = judge(evaluation(classifier(right=0.8)), thresholds)
    assert verdict.approved is approved
    assert words in verdict.summary
    assert len(verdict.checks) == len(thresholds)
    assert verdict.comparison is None


def test_a_bound_that_is_met_exactly_is_met():
    one = evaluation(classification(["a", "a", "b", "b", "b"], ["a", "a", "b", "b", "a"]))
    assert judge(one, {"accuracy": 0.8}).approved
    assert "accuracy 0.8 is at least 0.8" in judge(one, {"accuracy": 0.8}).reasons


@pytest.mark.parametrize(
    ("bound", "text"),
    [
        (0.80000001, "0.8 is not at least 0.80000001"),
        (math.nextafter(0.8, 1), "0.8 is not at least 0.8000000000000002"),
        (0.79999999, "0.8 is at least 0.79999999"),
    ],
)
def test_value_and_bound_are_told_apart(bound, text):
    one = evaluation(classification(list("aabbb"), list("aabba")))
    assert one.metrics["accuracy"] == 0.8
    verdict = judge(one, {"accuracy": bound})
    (check,) = verdict.checks
    assert f"accuracy {text}" == verdict.reasons[0] == check.why
    assert f"{check.value_text} | {check.bound_text}" in verdict.to_markdown()


def test_digits_show_on_which_side_of_the_bound_a_value_is():
    one = evaluation(regression([0.0, 0.0], [0.123456, 0.123456]))
    (check,) = judge(one, {"mae": 0.12346}).checks
    assert check.passed
    assert float(check.value_text) < 0.12346


@pytest.mark.parametrize(
    ("thresholds", "words"),
    [
        ({"acuracy": 0.9}, "'acuracy' is not a metric.*accuracy, balanced_accuracy"),
        ({"rmse": 3}, "does not score a classification model"),
        ({"accuracy": float("nan")}, "threshold of accuracy is nan"),
        ({"accuracy": float("inf")}, "use a finite number"),
        ({"accuracy": True}, "threshold of accuracy is True"),
        ({"accuracy": "0.9"}, "threshold of accuracy is '0.9'"),
    ],
)
def test_bad_thresholds_are_refused(thresholds, words):
    with pytest.raises(ConfigError, match=words):
        judge(evaluation(classifier(right=0.8)), thresholds)


@pytest.mark.parametrize(
    ("candidate", "thresholds", "settings", "words"),
    [
        pytest.param(regression([1, 2], [1, math.nan]), {"rmse": 1e9}, {}, "not a finite number in 1 of 2", id="rmse"),
        pytest.param(regression([1, 2], [1, math.nan]), {}, {}, "not a finite number in 1 of 2", id="no threshold"),
        pytest.param(regression([1, 2], [1, math.nan]), {}, {"rule": "none"}, "not a finite", id="rule none"),
        pytest.param(
            classifier(right=0.9, probabilities=False), {"roc_auc": 0.1}, {}, "gives no probabilities", id="roc_auc"
        ),
        pytest.param(
            classifier(right=0.9, probabilities=False),
            {},
            {"metric": "log_loss"},
            "gives no probabilities.*'accuracy'",
            id="the metric of the comparison",
        ),
    ],
)
def test_what_cannot_be_computed_never_passes(candidate, thresholds, settings, words):
    verdict = judge(evaluation(candidate), thresholds, **settings)
    assert not verdict.approved
    assert any(re.search(words, reason) for reason in verdict.reasons)
    assert all(not check.passed and check.value is None for check in verdict.checks)
    assert "rejected" in verdict.to_html()


def test_the_rule_none_needs_no_metric_for_the_comparison():
    one = evaluation(classifier(right=0.9, probabilities=False))
    assert judge(one, {"accuracy": 0.5}, one, metric="roc_auc", rule="none").approved


def test_a_champion_that_cannot_be_scored_is_told():
    candidate, champion = evaluation(classifier(right=0.9)), evaluation(classifier(right=0.9, probabilities=False))
    verdict = judge(candidate, {}, champion, metric="roc_auc")
    assert not verdict.approved
    assert "the champion's roc_auc could not be computed" in verdict.summary
    assert "'accuracy'" in verdict.summary
    assert "'log_loss'" not in verdict.summary


@pytest.mark.parametrize(("rule", "approved"), [("not_worse", False), ("better", False), ("none", True)])
def test_too_one_sided_rows_are_told(monkeypatch, rule, approved):
    monkeypatch.setattr("longshore.validation.gate.interval", lambda gains, confidence: None)
    one = evaluation(classifier(right=0.9))
    verdict = judge(one, {}, one, rule=rule)
    assert verdict.approved is approved
    assert verdict.comparison is None
    assert ("too few or too one-sided" in verdict.summary) is not approved


@pytest.mark.parametrize(
    ("champion", "words"),
    [
        (evaluation(regressor(error=1)), "candidate is a classification model and the champion a regression model"),
        (evaluation(classifier(right=0.9), target="z"), "candidate predicts 'y' and the champion 'z'"),
        (evaluation(classifier(right=0.9, rows=299)), "not evaluated on the same rows .300 and 299"),
        (evaluation(classifier(right=0.9, classes=("c", "b", "a"))), "not evaluated on the same rows"),
    ],
)
def test_only_models_of_the_same_rows_are_compared(champion, words):
    with pytest.raises(ConfigError, match=words):
        judge(evaluation(classifier(right=0.8)), {}, champion)


def test_models_may_know_their_classes_in_different_orders():
    one = classifier(right=0.8)
    names = np.array(one.labels, dtype=object)
    other = classification(
        names[one.actual], names[one.predicted], one.probabilities[:, ::-1], classes=one.labels[::-1]
    )
    for metric in ("f1_macro", "log_loss", "roc_auc"):
        found = judge(evaluation(one), {}, evaluation(other), metric=metric).comparison
        assert (found.gain, found.low, found.high) == pytest.approx((0, 0, 0), abs=1e-12)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rule": "best"}, "rule = 'best'.*not_worse, better, none"),
        ({"min_gain": -0.1}, "min_gain"),
        ({"min_gain": math.nan}, "min_gain"),
        ({"confidence": 0.0}, "confidence"),
        ({"confidence": 95}, "confidence"),
        ({"resamples": 10}, "resamples"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(InvalidValue, match=words):
        judge(evaluation(classifier(right=0.8)), {}, **settings)


def test_unknown_metric_of_the_comparison_is_refused_without_a_champion_too():
    with pytest.raises(ConfigError, match="'r2' does not score a classification model"):
        judge(evaluation(classifier(right=0.8)), {}, metric="r2")


def test_ties_count_half_in_resampled_areas():
    actual = ["a", "b"] * 20
    sure = [[1.0, 0.0], [0.0, 1.0]] * 20
    perfect, undecided = (
        classification(actual, actual, table, classes=("a", "b")) for table in (sure, [[0.5, 0.5]] * 40)
    )
    gains = paired_gains("roc_auc", perfect, undecided, resamples=100, seed=0)
    assert gains.tolist() == [0.5] * 100
