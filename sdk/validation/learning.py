"""The course of a network's training as a page that people read."""

from __future__ import annotations

from longshore.page import escape, page, section, table, tiles
from longshore.training.loop import Course
from longshore.validation.charts import COLOURS, course_chart

__all__ = ["course_html"]

_MOST_ROWS = 200
_LABELS = {"loss": "Loss", "accuracy": "Share of right answers", "rmse": "Root of the mean squared error"}


def course_html(course: Course, *, title: str) -> str:
    """A self-contained HTML page; equal courses give equal bytes.

    Args:
        course: How training went.
        title: Plain text.

    Raises:
        MissingExtra: If matplotlib is not installed.
    """
    best = [(name, f"{value:.4g}") for name, value in course.metrics.items()]
    facts = [("best epoch", str(course.best)), ("epochs", str(len(course.epochs))), *best]
    return page(
        title, f'<p class="sub">{escape(_told(course), limit=300)}</p>', tiles(facts), _curves(course), _epochs(course)
    )


def _told(course: Course) -> str:
    loss = course.monitored.replace("_", " ")
    told = f"The weights are those of epoch {course.best}, which had the lowest {loss}."
    if course.stopped:
        told += f" Training stopped after {len(course.epochs)} epochs, as nothing got better any more."
    if course.resumed:
        told += f" It was resumed from a checkpoint after epoch {course.resumed}."
    return told


def _curves(course: Course) -> str:
    figures = []
    for kind, label in _LABELS.items():
        names = [name for name in course.epochs[0].metrics if name.endswith(kind)]
        if names:
            lines = [[epoch.metrics[name] for epoch in course.epochs] for name in names]
            legend = "".join(
                f'<span class="key"><i style="background:{colour}"></i>{escape(name.replace("_", " "))}</span>'
                for name, colour in zip(names, COLOURS, strict=False)
            )
            chart = course_chart(lines, label=label, marked=course.best)
            figures.append(f"<figure>{chart}<figcaption>{legend}</figcaption></figure>")
    hint = "The vertical line is the best epoch. Losses that part, one falling and one rising, mean overfitting."
    return section("Course", f'<div class="row">{"".join(figures)}</div>', hint=hint)


def _epochs(course: Course) -> str:
    shown = course.epochs[-_MOST_ROWS:]
    names = list(shown[0].metrics)
    rows = [[f"{epoch.number:,}", *(f"{epoch.metrics[name]:.6g}" for name in names)] for epoch in shown]
    headers = ["epoch", *(name.replace("_", " ") for name in names)]
    heading = "Epochs" if len(shown) == len(course.epochs) else f"The last {_MOST_ROWS} epochs"
    return section(heading, table(headers, rows, numbers=range(len(headers))))
