import math
from html.parser import HTMLParser

import numpy as np
import pytest

from longshore.errors import MonitorError
from longshore.monitoring import DriftReport, assess, psi
from longshore.monitoring.drift import critical_psi
from longshore.packaging import FeatureBins


def number(name: str, counts: tuple[int, ...]) -> FeatureBins:
    edges = tuple(float(i) for i in range(len(counts) - 2))
    return FeatureBins(name=name, kind="number", edges=edges, categories=(), counts=counts)


UNIFORM = number("size", (100, 100, 100, 100, 0))


@pytest.mark.parametrize(
    ("expected", "actual", "value"),
    [
        ([10, 10], [50, 50], 0.0),
        ([49.5, 49.5], [74.5, 24.5], 0.25 * math.log(1.5) - 0.25 * math.log(0.5)),
        ([49.5, 49.5, 0], [74.5, 24.5, 0], 0.25 * math.log(1.5) - 0.25 * math.log(0.5)),
        ([50, 50], [100, 0], (100.5 / 101 - 0.5) * math.log(100.5 / 0.5)),
        ([50, 50], [0, 0], 0.0),
        ([0, 0], [1, 2], 0.0),
        ([], [], 0.0),
    ],
)
def test_psi(expected, actual, value):
    assert psi(expected, actual) == pytest.approx(value)


def test_psi_is_that_of_the_text_book_for_many_rows():
    assert psi([5e6, 5e6], [7.5e6, 2.5e6]) == pytest.approx(0.25 * math.log(1.5) - 0.25 * math.log(0.5), rel=1e-6)


def test_psi_needs_as_many_bins_on_both_sides():
    with pytest.raises(ValueError, match="longer|shorter"):
        psi([1, 2], [1])


def test_the_critical_value_is_that_of_chi_squared():
    # 95th percentile of chi-squared with 9 degrees of freedom: 16.919 (any table)
    assert critical_psi(1000, 500, 10, alpha=0.05) == pytest.approx((1 / 1000 + 1 / 500) * 16.919, rel=1e-4)
    assert critical_psi(1000, 500, 1, alpha=0.05) == 0.0


def sample(draw: np.random.Generator, weights: list[float], rows: int) -> tuple[int, ...]:
    return tuple(draw.multinomial(rows, np.array(weights) / sum(weights)).tolist())


@pytest.mark.parametrize(("bins", "trained", "rows"), [(2, 200, 50), (4, 274, 69), (10, 400, 100), (10, 2000, 50)])
def test_the_level_of_the_critical_value_is_near_alpha(bins, trained, rows):
    draw, shares, trials = np.random.default_rng(1), [1.0] * bins, 600
    critical = critical_psi(trained, rows, bins, alpha=0.05)
    over = sum(psi(sample(draw, shares, trained), sample(draw, shares, rows)) > critical for _ in range(trials))
    # 600 trials at a rate of 0.05 have a standard deviation of 0.009
    assert 0.02 < over / trials < 0.08


EIGHT_FEATURES = [[1.0] * 10] * 5 + [[1.0, 1.0], [5.0, 3.0, 2.0, 0.1], [1 / i**1.5 for i in range(1, 13)]]


@pytest.mark.parametrize(("trained", "rows"), [(200, 50), (274, 69), (1000, 50), (1000, 150)])
def test_a_model_without_drift_is_seldom_said_to_drift(trained, rows):
    draw, trials = np.random.default_rng(1), 250
    false = 0
    for _ in range(trials):
        baseline = [number(f"x{i}", (*sample(draw, p, trained), 0)) for i, p in enumerate(EIGHT_FEATURES)]
        actual = {f"x{i}": sample(draw, p, rows) for i, p in enumerate(EIGHT_FEATURES)}
        false += assess(baseline, actual).verdict == "drift"
    # 5 % for the eight together; three standard deviations of 250 trials are 0.041
    assert false / trials < 0.091


@pytest.mark.parametrize(
    ("now", "rows", "least"),
    [
        # ten bins of equal share under a normal distribution whose mean moves up by 1 standard deviation
        ([0.011, 0.022, 0.031, 0.04, 0.05, 0.071, 0.09, 0.13, 0.19, 0.365], 69, 0.95),
        # by 1/2, from more rows
        ([0.037, 0.053, 0.063, 0.073, 0.083, 0.094, 0.107, 0.124, 0.149, 0.217], 400, 0.8),
        # a third of the rows has come to lie in one bin
        ([0.4, *[0.6 / 9] * 9], 100, 0.9),
    ],
    ids=["far", "near", "stuck"],
)
def test_a_shift_of_one_feature_is_found(now, rows, least):
    draw, trials = np.random.default_rng(1), 100
    found = 0
    for _ in range(trials):
        baseline = [number(f"x{i}", (*sample(draw, p, 274), 0)) for i, p in enumerate(EIGHT_FEATURES)]
        actual = {f"x{i}": sample(draw, p, rows) for i, p in enumerate(EIGHT_FEATURES)}
        report = assess(baseline, {**actual, "x0": sample(draw, now, rows)})
        found += "x0" in [feature.name for feature in report.features if feature.drifted]
    assert found / trials >= least


@pytest.mark.parametrize(
    ("counted", "verdict"),
    [
        ([25, 25, 25, 25, 0], "none"),
        ([97, 1, 1, 1, 0], "drift"),
        ([0, 0, 0, 0, 100], "drift"),
        ([49, 0, 0, 0, 0], "not-enough-data"),
        ([50], "drift"),
        ([], "not-enough-data"),
        ([11_000, 10_000, 9_500, 9_500], "none"),
    ],
)
def test_the_verdict(counted, verdict):
    assert assess([UNIFORM], {"size": counted}).verdict == verdict


def test_a_small_shift_is_no_drift_however_many_rows_show_it():
    trained = number("size", (10_000, 10_000, 10_000, 10_000, 0))
    report = assess([trained], {"size": [12_000, 9_600, 9_200, 9_200]})
    (feature,) = report.features
    assert feature.psi > feature.critical
    assert report.verdict == "none"


def test_many_bins_and_few_rows_are_not_taken_for_drift():
    bins = number("size", (*[10] * 10, 0))
    counted = [9, 1, 8, 2, 7, 3, 6, 4, 5, 5, 0]
    report = assess([bins, *(number(f"x{i}", (*[10] * 10, 0)) for i in range(20))], {"size": counted})
    feature = next(f for f in report.features if f.name == "size")
    assert 0.2 < feature.psi < feature.critical
    assert report.verdict == "none"


def test_features_are_sorted_and_rows_are_told():
    calm = number("calm", (50, 50, 0))
    report = assess([calm, UNIFORM], {"size": [97, 1, 1, 1], "calm": [30, 30]})
    assert [f.name for f in report.features] == ["size", "calm"]
    assert [f.drifted for f in report.features] == [True, False]
    assert report.rows == 100
    assert "size" in report.summary
    assert report.features[0].largest_change == "< 0: 25% in training, 97% now"


def test_a_feature_that_was_never_counted_does_not_drift():
    report = assess([number("calm", (50, 50, 0)), UNIFORM], {"size": [25, 25, 25, 25]})
    assert report.verdict == "none"
    assert {f.name: f.rows for f in report.features} == {"size": 100, "calm": 0}


def test_counts_of_another_model_are_refused():
    with pytest.raises(MonitorError, match="'size'.*another model"):
        assess([UNIFORM], {"size": [1] * 6})


def test_a_model_without_features_is_not_judged():
    assert assess([], {}) == DriftReport(verdict="not-enough-data", features=(), rows=0)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


EVIL = '<script>alert("1")</script>|`x`'


@pytest.mark.parametrize("counted", [{}, {EVIL: [0, 99, 1, 0]}, {EVIL: [34, 33, 33, 0]}])
def test_the_page_is_self_contained_and_escaped(counted):
    bins = FeatureBins(name=EVIL, kind="category", edges=(), categories=("<b>", "|"), counts=(50, 30, 20, 0))
    report = assess([bins], counted)
    page = report.to_html()
    parser = Tags()
    parser.feed(page)
    assert {tag for tag, _ in parser.seen}.isdisjoint({"script", "b", "link", "img", "iframe"})
    assert not any(key in ("src", "href") for _, attrs in parser.seen for key in attrs)
    assert "alert(&quot;1&quot;)" in page
    text = report.to_markdown()
    assert "<script>" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1


@pytest.mark.parametrize(
    ("counted", "word"),
    [([25] * 4, "no drift"), ([97, 1, 1, 1], "drift"), ([1], "not enough data")],
)
def test_both_reports_say_the_verdict(counted, word):
    report = assess([UNIFORM], {"size": counted})
    assert report.to_markdown().startswith(f"## Input drift: {word}\n")
    assert f">{word}</span>" in report.to_html()
