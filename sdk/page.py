"""Small self-contained HTML pages: one file, no script, nothing loaded from elsewhere.

Kubeflow shows such a page in a sandboxed frame of unknown width, so the layout is one column that wraps.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Final

__all__ = ["Cell", "badge", "bar", "escape", "note_list", "page", "section", "table", "tiles"]

Cell = str
"""HTML of a table cell: text that comes from data goes through :func:`escape` first."""

_STYLE: Final = """
:root{color-scheme:light}
*{box-sizing:border-box}
body{margin:0;padding:24px;background:#fff;color:#1f2933;font:14px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif}
main{max-width:1040px;margin:0 auto}
h1{font-size:21px;line-height:1.3;font-weight:600;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:15px;font-weight:600;margin:32px 0 10px;padding-bottom:6px;border-bottom:1px solid #e3e8ee}
p{margin:6px 0}
.sub,.hint{color:#616e7c}
.hint{font-size:13px;max-width:72ch}
.tiles{display:flex;flex-wrap:wrap;gap:10px;margin:16px 0}
.tile{border:1px solid #e3e8ee;border-radius:6px;padding:8px 14px;min-width:112px}
.tile.main{border-color:#2f6db3;background:#f4f8fc}
.tile b{display:block;font-size:19px;line-height:1.35;font-weight:600;font-variant-numeric:tabular-nums}
.tile span{color:#616e7c;font-size:12.5px}
.row{display:flex;flex-wrap:wrap;gap:8px 28px;align-items:flex-start}
.row>*{min-width:0}
figure{margin:0;max-width:100%}
figure svg{display:block;max-width:100%;height:auto}
figcaption{color:#616e7c;font-size:12.5px;margin-top:2px;max-width:400px;overflow-wrap:anywhere}
.wrap{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:5px 12px 5px 0;text-align:left;vertical-align:top;border-bottom:1px solid #eef1f4}
th{font-weight:600;color:#52606d;font-size:12.5px;vertical-align:bottom}
td{overflow-wrap:anywhere;max-width:44ch}
.num{text-align:right;white-space:nowrap}
.whole{white-space:nowrap}
.matrix td,.matrix th{border:0;padding:6px 10px;text-align:center}
.matrix td{border:2px solid #fff;min-width:56px}
.matrix tbody th{text-align:right;max-width:22ch;overflow-wrap:anywhere}
.bar{display:inline-block;width:120px;height:9px;background:#eef1f4;border-radius:2px;overflow:hidden}
.bar i{display:block;height:100%;background:#2f6db3}
.bar.pale i{background:#9fb3c8}
details{margin-top:14px}
summary{cursor:pointer;font-weight:600;overflow-wrap:anywhere}
.badge{display:inline-block;padding:1px 9px;border-radius:10px;font-size:12.5px;font-weight:600}
.good{color:#12653a;background:#e3f4ea}
.bad{color:#9b2318;background:#fce9e7}
.warn{color:#7a5200;background:#fdf2d9}
.key{display:inline-block;white-space:nowrap;margin-right:12px}
.key i{display:inline-block;width:14px;height:3px;vertical-align:middle;margin-right:5px}
ul{margin:6px 0;padding-left:20px}
code{font:12.5px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
"""


def escape(value: object, *, limit: int = 120) -> str:
    """Text from data as HTML text, cut to ``limit`` characters."""
    text = str(value)
    return html.escape(text if len(text) <= limit else text[: limit - 1] + "…")


def page(title: str, *parts: str) -> str:
    """A whole page.

    Args:
        title: Plain text.
        *parts: HTML below the heading; empty parts are left out.
    """
    body = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def section(heading: str, *parts: str, hint: str = "") -> str:
    """A heading, a sentence on how to read what follows, and that."""
    said = f'<p class="hint">{escape(hint, limit=1000)}</p>' if hint else ""
    return f"<section><h2>{escape(heading)}</h2>{said}{''.join(parts)}</section>"


def table(headers: Sequence[str], rows: Sequence[Sequence[Cell]], *, numbers: Sequence[int] = ()) -> str:
    """A table.

    Args:
        headers: Plain text.
        rows: HTML of the cells.
        numbers: Columns to align to the right.
    """
    kinds = [' class="num"' if i in numbers else "" for i in range(len(headers))]
    head = "".join(f"<th{kind}>{escape(text)}</th>" for kind, text in zip(kinds, headers, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="wrap"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def tiles(values: Sequence[tuple[str, str]], *, main: str | None = None) -> str:
    """Numbers to see first, as (name, text); the one named ``main`` stands out."""
    cells = "".join(
        f'<div class="tile{" main" if name == main else ""}"><b>{escape(text)}</b><span>{escape(name)}</span></div>'
        for name, text in values
    )
    return f'<div class="tiles">{cells}</div>'


def bar(share: float, *, pale: bool = False) -> str:
    """A small horizontal bar; ``share`` is cut to the range from 0 to 1. A pale one is there to compare with."""
    percent = 100.0 * min(1.0, max(0.0, share))
    return f'<span class="bar{" pale" if pale else ""}"><i style="width:{percent:.1f}%"></i></span>'


def badge(text: str, kind: str) -> str:
    """A coloured word; ``kind`` is ``good``, ``bad`` or ``warn``."""
    return f'<span class="badge {kind}">{escape(text)}</span>'


def note_list(notes: Sequence[str]) -> str:
    """Sentences of plain text as a list; nothing for no sentences."""
    return f"<ul>{''.join(f'<li>{escape(note, limit=1000)}</li>' for note in notes)}</ul>" if notes else ""
