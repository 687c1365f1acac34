"""Pictures as inline SVG, drawn with matplotlib's Figure objects: no pyplot, no display, no global state left behind.

No text from data is drawn (matplotlib would read ``$`` as formulas and lacks glyphs of many scripts); captions and
legends are HTML beside the picture.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from longshore.errors import MissingExtra
from longshore.validation.curves import Calibration, RocCurve
from longshore.validation.predictions import Array, FloatArray

__all__ = ["COLOURS", "calibration_chart", "course_chart", "histogram_chart", "roc_chart", "scatter_chart"]

COLOURS: Final = ("#2f6db3", "#c8553d", "#3a8f5c", "#8a5fb0", "#b8860b", "#4c9aa8", "#7d8794")
"""One per curve, told apart by most people who see few colours."""

_GUIDE: Final = "#b4bdc7"
_STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "longshore",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": "#52606d",
    "axes.labelcolor": "#52606d",
    "axes.edgecolor": "#b4bdc7",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "#7b8794",
    "ytick.color": "#7b8794",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eef1f4",
    "grid.linewidth": 0.8,
}
_MOST_POINTS: Final = 1000
_THIRD: Final = {"width": 3.1, "height": 2.9}
"""Size of a picture of which three stand in a row, in inches of 72 points."""


@contextmanager
def _axes(svg: list[str], *, width: float = 3.9, height: float = 3.3) -> Iterator[Any]:
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("a report with pictures", "matplotlib", "train") from error

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure.add_subplot()
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg.append(_inline(stream.getvalue()))


def _inline(document: str) -> str:
    """The SVG element of an SVG document, without the ids that would occur twice on a page."""
    element = document[document.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    used = set(re.findall(r"(?:#|url\(#)([\w-]+)", element))
    element = re.sub(r' id="([\w-]+)"', lambda m: m[0] if m[1] in used else "", element)
    element = re.sub(r"<!--.*?-->", "", element, flags=re.DOTALL)
    # a tenth of a point is finer than a dot, and half of the page would be digits
    element = re.sub(r"(?<=<use )[^>]*", lambda m: re.sub(r'(="-?\d+\.\d)\d+', r"\1", m[0]), element)
    return re.sub(r"\n\s*", "\n", element)


def roc_chart(curves: Sequence[RocCurve]) -> str:
    """ROC curves in the order of :data:`COLOURS`."""
    svg: list[str] = []
    with _axes(svg) as axes:
        axes.plot([0, 1], [0, 1], color=_GUIDE, linewidth=1, linestyle=(0, (4, 3)))
        for curve, colour in reversed(list(zip(curves, COLOURS, strict=False))):
            axes.plot(curve.fpr, curve.tpr, color=colour, linewidth=1.8 if curve is curves[0] else 1.2)
        _unit_square(axes)
        axes.set_xlabel("False-positive rate")
        axes.set_ylabel("True-positive rate")
    return svg[0]


def calibration_chart(calibration: Calibration) -> str:
    """Observed against predicted probability; the area of a dot grows with its rows."""
    svg: list[str] = []
    with _axes(svg) as axes:
        axes.plot([0, 1], [0, 1], color=_GUIDE, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot(calibration.predicted, calibration.observed, color=COLOURS[0], linewidth=1.4)
        sizes = 16 + 90 * np.array(calibration.counts) / max(calibration.counts)
        axes.scatter(
            calibration.predicted,
            calibration.observed,
            s=sizes,
            color=COLOURS[0],
            linewidths=0,
            zorder=3,
            clip_on=False,
        )
        _unit_square(axes)
        axes.set_xlabel("Predicted probability")
        axes.set_ylabel("Observed share")
    return svg[0]


def scatter_chart(across: FloatArray, up: FloatArray, *, across_label: str, up_label: str, guide: str) -> str:
    """A cloud of points, thinned to 1,000.

    Args:
        across: Horizontal values.
        up: Vertical values.
        across_label: Fixed words, not from data.
        up_label: Fixed words, not from data.
        guide: ``diagonal`` or ``zero``: where a perfect model's points would lie.
    """
    svg: list[str] = []
    kept = thin(len(across))
    with _axes(svg, **_THIRD) as axes:
        if guide == "diagonal":
            ends = [min(across.min(), up.min()), max(across.max(), up.max())]
            axes.plot(ends, ends, color=_GUIDE, linewidth=1.2, zorder=3)
        else:
            axes.axhline(0, color=_GUIDE, linewidth=1.2, zorder=3)
        alpha = float(np.clip(120 / len(kept), 0.18, 0.6))
        # a marker line is written as one small element per point, a collection as one larger one
        axes.plot(across[kept], up[kept], "o", color=COLOURS[0], markersize=3.2, markeredgewidth=0, alpha=alpha)
        axes.locator_params(axis="x", nbins=4)
        axes.set_xlabel(across_label)
        axes.set_ylabel(up_label)
    return svg[0]


def histogram_chart(values: FloatArray, *, label: str) -> str:
    """Distribution of values.

    Of 1,000 or more the outermost half percent on both sides is left out: a few far ones would make a single bar of
    all the others.
    """
    svg: list[str] = []
    tail = 0.005 if len(values) >= 1000 else 0.0
    low, high = np.quantile(values, [tail, 1.0 - tail])
    if not low < high:
        # wide enough for bins of their own at any magnitude
        margin = max(0.5, 1e-6 * float(np.abs(values).max()))
        low, high = values.min() - margin, values.max() + margin
    bins = int(np.clip(np.sqrt(len(values)), 8, 40))
    with _axes(svg, **_THIRD) as axes:
        axes.hist(values, bins=np.linspace(low, high, bins + 1), color=COLOURS[0], rwidth=0.92)
        axes.axvline(0, color="#52606d", linewidth=1)
        axes.grid(visible=False, axis="x")
        axes.locator_params(axis="x", nbins=4)
        axes.set_xlabel(label)
        axes.set_ylabel("Rows")
        axes.yaxis.get_major_locator().set_params(integer=True)
    return svg[0]


def course_chart(lines: Sequence[Sequence[float]], *, label: str, marked: int) -> str:
    """What was measured in each epoch, in the order of :data:`COLOURS`.

    Args:
        lines: Values from the first epoch on, for each line.
        label: Fixed words, not from data.
        marked: Number of the epoch that stands out.
    """
    svg: list[str] = []
    with _axes(svg) as axes:
        axes.axvline(marked, color=_GUIDE, linewidth=1.2)
        for values, colour in zip(lines, COLOURS, strict=False):
            marker = "o" if len(values) == 1 else ""
            axes.plot(range(1, len(values) + 1), values, color=colour, linewidth=1.6, marker=marker, markersize=4)
        axes.set_xlabel("Epoch")
        axes.set_ylabel(label)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return svg[0]


def thin(rows: int) -> Array:
    """At most 1,000 row numbers, always the same ones for the same number of rows."""
    if rows <= _MOST_POINTS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(0).choice(rows, _MOST_POINTS, replace=False))


def _unit_square(axes: Any) -> None:
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_aspect("equal")
