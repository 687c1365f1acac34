"""The drift report for people: one HTML file without scripts, and Markdown."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Final

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
_STYLE: Final = """
:root{color-scheme:light}
body{margin:0;padding:24px;background:#fff;color:#1f2933;font:14px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif}
main{max-width:960px;margin:0 auto}
h1{font-size:21px;font-weight:600;margin:0 0 4px}
p{margin:6px 0;overflow-wrap:anywhere}
.hint{color:#616e7c;font-size:13px;max-width:72ch}
.wrap{overflow-x:auto}
table{border-collapse:collapse;margin-top:12px;font-variant-numeric:tabular-nums}
th,td{padding:5px 14px 5px 0;text-align:left;vertical-align:top;border-bottom:1px solid #eef1f4}
th{font-weight:600;color:#52606d;font-size:12.5px}
td{overflow-wrap:anywhere;max-width:44ch}
.num{text-align:right;white-space:nowrap}
.badge{display:inline-block;padding:1px 9px;border-radius:10px;font-size:12.5px;font-weight:600}
.good{color:#12653a;background:#e3f4ea}
.bad{color:#9b2318;background:#fce9e7}
.warn{color:#7a5200;background:#fdf2d9}
details{margin-top:14px}
summary{cursor:pointer;font-weight:600;overflow-wrap:anywhere}
.bar{display:inline-block;width:120px;height:9px;background:#eef1f4;border-radius:2px;overflow:hidden}
.bar i{display:block;height:100%;background:#2f6db3}
.bar.was i{background:#9fb3c8}
"""


def drift_html(report: DriftReport) -> str:
    """The report as a page that loads nothing; text from data is escaped."""
    rows = "".join(_row(feature) for feature in report.features)
    details = "".join(_bins(feature) for feature in report.features if feature.rows)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_TITLE}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{_TITLE}</h1>\n"
        f"<p>{_badge(_WORDS[report.verdict], _KIND[report.verdict])} {_text(report.summary, 2000)}.</p>\n"
        f'<p class="hint">{_HINT}</p>\n'
        '<div class="wrap"><table><thead><tr><th>feature</th><th class="num">PSI</th><th class="num">by chance up to'
        '</th><th></th><th class="num">rows</th><th>largest change</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>\n{details}\n</main>\n</body>\n</html>\n"
    )


def _row(feature: FeatureDrift) -> str:
    mark = _badge("drifted", "bad") if feature.drifted else ""
    return (
        f'<tr><td>{_text(feature.name)}</td><td class="num">{feature.psi:.3f}</td>'
        f'<td class="num">{feature.critical:.3f}</td><td>{mark}</td><td class="num">{feature.rows}</td>'
        f"<td>{_text(feature.largest_change)}</td></tr>"
    )


def _bins(feature: FeatureDrift) -> str:
    rows = "".join(
        f'<tr><td>{_text(label)}</td><td class="num">{was:.1%}</td><td>{_bar(was, "bar was")}</td>'
        f'<td class="num">{now:.1%}</td><td>{_bar(now, "bar")}</td></tr>'
        for label, was, now in zip(feature.labels, feature.expected, feature.actual, strict=True)
    )
    return (
        f"<details{' open' if feature.drifted else ''}><summary>{_text(feature.name)}</summary>"
        '<div class="wrap"><table><thead><tr><th>value</th><th class="num">training</th><th></th>'
        f'<th class="num">now</th><th></th></tr></thead><tbody>{rows}</tbody></table></div></details>\n'
    )


def _bar(share: float, kind: str) -> str:
    return f'<span class="{kind}"><i style="width:{100 * share:.1f}%"></i></span>'


def _badge(text: str, kind: str) -> str:
    return f'<span class="badge {kind}">{_text(text)}</span>'


def _text(value: str, limit: int = 120) -> str:
    return html.escape(value if len(value) <= limit else value[: limit - 1] + "…")


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
