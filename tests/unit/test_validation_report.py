"""Pages: what they show, that data cannot break out of them, and that they need nothing from elsewhere."""

import re
import time
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from longshore import page
from longshore.validation.evaluate import evaluate_predictions
from longshore.validation.gate import Check, Comparison, Verdict, judge
from longshore.validation.predictions import classification, regression
from longshore.validation.report import number, report_html
from longshore.validation.schema import check_table

EVIL = "<script>alert(1)</script>\"'&$x$"
VOID = {"meta", "br", "img", "hr", "link", "input"}


class Page(HTMLParser):
    """Elements, attributes and text of a page; fails on tags that do not match."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text, self._open = [], [], [], []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def checked(html):
    """The page, after a check that it is well formed, runs nothing and loads nothing."""
    found = Page(html)
    assert html.startswith("<!DOCTYPE html>")
    assert not {"script", "iframe", "object", "embed", "link", "img", "base", "form"} & set(found.tags)
    for _, name, value in found.attributes:
        assert not name.startswith("on")
        assert name not in ("src", "srcset", "action", "data")
        if name in ("href", "xlink:href"):
            assert value.startswith("#")
        if not name.startswith("xmlns"):
            assert "//" not in (value or "")
    style = "".join(re.findall(r"<style[^>]*>(.*?)</style>", html, re.DOTALL))
    assert "@import" not in style
    assert not re.search(r"url\((?!#)", html)
    assert len(html.encode()) < 400_000
    return found


def words(html):
    return " ".join(" ".join(checked(html).text).split())


def classified(labels, rows=120, *, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, len(labels), rows)
    table = rng.random((rows, len(labels))) + 2 * np.eye(len(labels))[codes]
    table /= table.sum(axis=1, keepdims=True)
    names = np.array(labels, dtype=object)
    return classification(names[codes], names[table.argmax(axis=1)], table, classes=labels)


def test_report_of_a_classifier():
    predictions = classified(("a", "b", "c"))
    slices = {"island": pd.Series(np.where(np.arange(120) < 20, "small", "large"))}
    html = report_html(
        evaluate_predictions(predictions, target="kind", slices=slices, notes=["A note."]), title="My model"
    )
    text = words(html)
    assert "My model" in text
    assert "Classification of kind , 120 test rows" in text
    assert "A note." in text
    for part in ("Confusion matrix", "Probabilities", "By group of rows", "What the numbers mean", "island", "small"):
        assert part in text
    for metric in ("f1_macro", "accuracy", "log_loss", "roc_auc"):
        assert metric in text
    assert html.count("<svg") == 2
    assert "all classes (micro average), AUC" in text


def test_report_of_two_classes_names_the_positive_one():
    text = words(report_html(evaluate_predictions(classified(("no", "yes")), target="y"), title="t"))
    assert "yes, AUC" in text
    assert "Probability of the class 'yes'" in text


def test_report_without_probabilities_says_so():
    one = evaluate_predictions(classification(["a", "b"], ["a", "a"]), target="y")
    html = report_html(one, title="t")
    assert "roc_auc could not be computed: the model gives no probabilities." in words(html)
    assert "<svg" not in html


def test_report_of_many_classes_lists_mistakes_instead_of_a_matrix():
    labels = tuple(f"class {i}" for i in range(40))
    actual = [labels[i % 40] for i in range(400)]
    predicted = ["class 7" if label == "class 3" else label for label in actual]
    html = report_html(evaluate_predictions(classification(actual, predicted), target="y"), title="t")
    text = words(html)
    assert "Most frequent mistakes" in text
    assert "class 3 class 7 10 100.0%" in text
    assert 'class="matrix"' not in html


def test_report_of_a_regression():
    rng = np.random.default_rng(0)
    actual = rng.normal(50, 10, 100)
    slices = {"size": pd.Series(actual)}
    html = report_html(
        evaluate_predictions(regression(actual, actual + rng.normal(size=100)), target="price", slices=slices),
        title="t",
    )
    text = words(html)
    assert html.count("<svg") == 3
    for part in ("Regression of price", "Predictions and errors", "rmse", "mae", "r2", "Predicted value", "size"):
        assert part in text


@pytest.mark.parametrize(
    ("actual", "predicted"),
    [
        pytest.param([1.0], [1.0], id="one row"),
        pytest.param([1.0, 2.0], [1.0, 2.0], id="perfect"),
        pytest.param([1.0, 1.0], [3.0, 3.0], id="one value"),
        pytest.param([1e20, 1e20], [3e20, 3e20], id="one large error"),
        pytest.param([0.0, 1e15], [1e15, 0.0], id="large"),
        pytest.param([1e-12, 2e-12], [2e-12, 1e-12], id="small"),
        pytest.param([1.0, 2.0], [1.0, float("nan")], id="not a number"),
    ],
)
def test_odd_regressions_have_a_report(actual, predicted):
    one = evaluate_predictions(regression(actual, predicted), target="y")
    html = report_html(one, title="t")
    checked(html)
    assert ("<svg" in html) == bool(one.metrics)


def test_equal_evaluations_give_equal_bytes():
    one, other = (report_html(evaluate_predictions(classified(("a", "b")), target="y"), title="t") for _ in range(2))
    assert one == other


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_reports_of_large_tables_are_small_and_soon_there(task):
    rows = 30_000
    rng = np.random.default_rng(0)
    if task == "regression":
        actual = 1e6 * rng.normal(size=rows)
        predictions = regression(actual, actual + 1e5 * rng.normal(size=rows))
    else:
        predictions = classified(tuple(f"a rather long name of class {i}" for i in range(30)), rows)
    slices = {f"column {i}": pd.Series(rng.integers(0, 20, rows)).map("value {}".format) for i in range(3)}
    started = time.perf_counter()
    html = report_html(evaluate_predictions(predictions, target="y", slices=slices), title="t")
    assert time.perf_counter() - started < 20
    checked(html)


def test_data_cannot_break_out_of_a_report():
    predictions = classified((EVIL, "b", "c"))
    slices = {EVIL: pd.Series([EVIL] * 120)}
    one = evaluate_predictions(predictions, target=EVIL, slices=slices, notes=[EVIL])
    html = report_html(one, title=EVIL)
    assert EVIL in "".join(checked(html).text)
    assert "<script" not in html
    many = classification([EVIL] * 5 + [f"c{i}" for i in range(40)], ["c1"] * 45)
    checked(report_html(evaluate_predictions(many, target="y"), title="t"))
    two = report_html(evaluate_predictions(classified(("no", EVIL)), target="y"), title="t")
    checked(two)
    assert "<script" not in two


def test_data_cannot_break_out_of_a_data_report():
    frame = pd.DataFrame({EVIL: [EVIL, "b"] * 10, "y": ["u", EVIL] * 10})
    report = check_table(frame, target="y")
    html = report.to_html()
    assert EVIL in "".join(checked(html).text)
    assert "<script" not in html


def verdict(**changes):
    facts = {
        "metric": "f1_macro", "candidate": 0.91, "champion": 0.9, "gain": 0.01, "low": -0.02, "high": 0.04,
        "confidence": 0.95, "noise": True,
    }  # fmt: skip
    check = Check(metric="accuracy", bound=0.9, higher_is_better=True, value=0.8, passed=False, why="why")
    return Verdict(
        approved=False, reasons=("first", "second"), checks=(check,), comparison=Comparison(**{**facts, **changes})
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "within noise"),
        ({"low": 0.005, "noise": False}, "better"),
        ({"gain": -0.03, "high": -0.01, "low": -0.05, "noise": False}, "worse"),
        ({"gain": 0.0, "high": 0.0, "low": 0.0}, "within noise"),
    ],
)
def test_verdict_page(changes, said):
    html = verdict(**changes).to_html(title="Verdict")
    text = words(html)
    assert "Verdict rejected first second" in text
    assert "accuracy 0.8 at least 0.9 missed" in text
    assert f"to {verdict(**changes).comparison.high:+.4g} {said}" in text
    drawn = [float(x) for x in re.findall(r'\b(?:cx|x1|x2)="([\d.]+)"', html)]
    assert len(drawn) == 7
    assert all(0 <= x <= 460 for x in drawn)


def test_verdict_in_markdown():
    lines = verdict().to_markdown().splitlines()
    assert lines[0] == "## Model rejected"
    assert "- first" in lines
    assert "| `accuracy` | 0.8 | at least 0.9 | **no** |" in lines
    assert "| `f1_macro` | 0.91 | 0.9 | +0.01 | -0.02 to +0.04 | within noise |" in lines
    tables = [line for line in lines if line.startswith("|")]
    assert [line.count("|") for line in tables] == [5] * 3 + [7] * 3


def test_short_verdicts_have_no_tables():
    bare = Verdict(approved=True, reasons=("no champion to compare with",))
    assert bare.to_markdown() == "## Model approved\n\n- no champion to compare with\n"
    assert "approved" in words(bare.to_html())


def test_text_cannot_break_out_of_a_verdict():
    evil = Verdict(approved=False, reasons=(f"{EVIL} | **bold** [link](http://x) `code` # &lt;b&gt;",))
    line = evil.to_markdown().splitlines()[2]
    assert line.startswith(r"- \<script\>alert\(1\)\<")
    # what is left after the escapes holds nothing that Markdown reads
    assert not re.search(r"[`*_\[\]<>|#&]", re.sub(r"\\.", "", line[2:]))
    checked(evil.to_html(title=EVIL))
    assert "<script" not in evil.to_html(title=EVIL)


def test_a_real_verdict_with_a_hostile_label():
    one = evaluate_predictions(classified((EVIL, "b")), target=EVIL)
    found = judge(one, {"accuracy": 0.1}, one)
    checked(found.to_html(title=EVIL))
    assert "<script" not in found.to_markdown()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345678, "0.1235"), (1, "1"), (9999.4, "9999"), (12345.6, "12,346"), (-12345.6, "-12,346"), (1e15, "1e+15")],
)
def test_numbers(value, text):
    assert number(value) == text


def test_long_text_is_cut_before_it_is_escaped():
    assert page.escape("<" * 200) == "&lt;" * 119 + "\N{HORIZONTAL ELLIPSIS}"
    assert page.escape("<" * 5, limit=5) == "&lt;" * 5


@pytest.mark.parametrize(("share", "width"), [(-1, "0.0%"), (0.255, "25.5%"), (7, "100.0%")])
def test_bars_stay_in_their_frame(share, width):
    assert f"width:{width}" in page.bar(share)
