"""The drift report for people: one HTML file without scripts, and Markdown."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Final

from longshore.page import Cell, badge, bar, escape, page, table

if TYPE_CHECKING:
    from longshore.monitoring.drift import DriftReport, FeatureDrift

__all__ = ["drift_html", "drift_markdown"]

_TITLE: Final = "Input drift"
_WORDS: Final = {"none": "no drift", "drift": "drift", "not-enough-data": "not enough data"}
_KIND: Final = {"none": "good", "drift": "bad", "not-enough-data": "warn"}
_HINT: Final = (
    "PSI is the population stability index between the training data and what the server was asked. A feature has "
    "drifted if its PSI is over 0.2 and over what chance gives for so many rows."
)


def drift_html(report: DriftReport) -> str:
    """The report as a page that loads nothing; text from data is escaped."""
    verdict = badge(_WORDS[report.verdict], _KIND[report.verdict])
    return page(
        _TITLE,
        f"<p>{verdict} {escape(report.summary, limit=2000)}.</p>",
        f'<p class="hint">{_HINT}</p>',
        table(
            ["feature", "PSI", "by chance up to", "", "rows", "largest change"],
            [_row(feature) for feature in report.features],
            numbers=[1, 2, 4],
        ),
        *(_bins(feature) for feature in report.features if feature.rows),
    )


def _row(feature: FeatureDrift) -> list[Cell]:
    mark = badge("drifted", "bad") if feature.drifted else ""
    numbers = f"{feature.psi:.3f}", f"{feature.critical:.3f}"
    return [escape(feature.name), *numbers, mark, str(feature.rows), escape(feature.largest_change)]


def _bins(feature: FeatureDrift) -> str:
    rows = [
        [escape(label), f"{was:.1%}", bar(was, pale=True), f"{now:.1%}", bar(now)]
        for label, was, now in zip(feature.labels, feature.expected, feature.actual, strict=True)
    ]
    opened = " open" if feature.drifted else ""
    shares = table(["value", "training", "", "now", ""], rows, numbers=[1, 3])
    return f"<details{opened}><summary>{escape(feature.name)}</summary>{shares}</details>"


def drift_markdown(report: DriftReport) -> str:
    """The report as Markdown; what would be markup in text from data is shown as it is."""
    lines = [
        f"## {_TITLE}: {_WORDS[report.verdict]}",
        "",
        f"{_plain(report.summary)}.",
        "",
        "| feature | PSI | by chance up to | drifted | rows | largest change |",
        "|---|---:|---:|---|---:|---|",
    ]
    lines += [
        f"| {_plain(f.name)} | {f.psi:.3f} | {f.critical:.3f} | {'yes' if f.drifted else 'no'} | {f.rows} "
        f"| {_plain(f.largest_change)} |"
        for f in report.features
    ]
    return "\n".join(lines) + "\n"


def _plain(value: str) -> str:
    text = html.escape(" ".join(value.split()), quote=False)
    return "".join(f"\\{c}" if c in "\\`*_[]|#" else c for c in text)
