"""The gate's verdict as Markdown and as a page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from longshore.page import badge, note_list, page, section, table

if TYPE_CHECKING:
    from longshore.validation.gate import Comparison, Verdict

__all__ = ["verdict_html", "verdict_markdown"]

_WIDTH, _HEIGHT, _MARGIN = 460, 74, 34
_MARKDOWN: Final = re.compile(r"([\\`*_{}\[\]<>()#+!|~&-])")


def verdict_html(verdict: Verdict, *, title: str) -> str:
    """The verdict as a self-contained page."""
    decision = badge("approved", "good") if verdict.approved else badge("rejected", "bad")
    thresholds = ""
    if verdict.checks:
        rows = [
            (
                f"<code>{c.metric}</code>",
                c.value_text,
                c.bound_text,
                badge("met", "good") if c.passed else badge("missed", "bad"),
            )
            for c in verdict.checks
        ]
        thresholds = section("Thresholds", table(("Metric", "Candidate", "Required", ""), rows, numbers=(1,)))
    return page(title, f"<p>{decision}</p>", note_list(verdict.reasons), thresholds, _comparison(verdict.comparison))


def verdict_markdown(verdict: Verdict) -> str:
    """The verdict as Markdown."""
    lines = [f"## Model {'approved' if verdict.approved else 'rejected'}", ""]
    lines += [f"- {_MARKDOWN.sub(_escaped, reason)}" for reason in verdict.reasons]
    if verdict.checks:
        lines += ["", "| Metric | Candidate | Required | Met |", "|---|---:|---|---|"]
        lines += [
            f"| `{c.metric}` | {c.value_text} | {c.bound_text} | {'yes' if c.passed else '**no**'} |"
            for c in verdict.checks
        ]
    if (c := verdict.comparison) is not None:
        noise = "within noise" if c.noise else "beyond noise"
        gain = f"{c.gain:+.4g} | {c.low:+.4g} to {c.high:+.4g}"
        lines += [
            "",
            f"| Metric | Candidate | Champion | Gain | {c.confidence:.0%} interval | |",
            "|---|---:|---:|---:|---|---|",
            f"| `{c.metric}` | {c.candidate:.4g} | {c.champion:.4g} | {gain} | {noise} |",
        ]
    return "\n".join(lines) + "\n"


def _escaped(match: re.Match[str]) -> str:
    return f"\\{match[0]}"


def _comparison(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    c = comparison
    row = (
        f"<code>{c.metric}</code>",
        f"{c.candidate:.4g}",
        f"{c.champion:.4g}",
        f"{c.gain:+.4g}",
        f"{c.low:+.4g} to {c.high:+.4g}",
        badge("within noise", "warn") if c.noise else badge("better", "good") if c.gain > 0 else badge("worse", "bad"),
    )
    headers = ("Metric", "Candidate", "Champion", "Gain", f"{c.confidence:.0%} interval", "")
    hint = (
        "Both models were scored on the same rows, drawn again and again with replacement. The interval holds the "
        "gains that other test rows could have shown; where it contains 0, the order of the two could turn round."
    )
    return section("Against the champion", table(headers, [row], numbers=(1, 2, 3)), _picture(c), hint=hint)


def _picture(comparison: Comparison) -> str:
    """The gain and its interval on a line with 0 in the middle."""
    c = comparison
    reach = max(abs(c.low), abs(c.high), abs(c.gain)) or 1.0

    def place(value: float) -> float:
        return _WIDTH / 2 + value / reach * (_WIDTH / 2 - _MARGIN)

    colour = "#b7791f" if c.noise else "#2f855a" if c.gain > 0 else "#c0392b"
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" '
        f'aria-label="gain {c.gain:+.4g}, interval {c.low:+.4g} to {c.high:+.4g}" font-size="11" fill="#616e7c" '
        'font-family="system-ui,sans-serif">'
        f'<line x1="12" x2="{_WIDTH - 12}" y1="34" y2="34" stroke="#e3e8ee"/>'
        f'<line x1="{_WIDTH / 2}" x2="{_WIDTH / 2}" y1="16" y2="52" stroke="#9aa5b1"/>'
        f'<line x1="{place(c.low):.1f}" x2="{place(c.high):.1f}" y1="34" y2="34" stroke="{colour}" stroke-width="5" '
        'stroke-linecap="round"/>'
        f'<circle cx="{place(c.gain):.1f}" cy="34" r="6" fill="{colour}" stroke="#fff" stroke-width="2"/>'
        f'<text x="{_WIDTH / 2}" y="66" text-anchor="middle">0</text>'
        '<text x="12" y="66">champion better</text>'
        f'<text x="{_WIDTH - 12}" y="66" text-anchor="end">candidate better</text></svg></figure>'
    )
