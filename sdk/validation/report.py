"""The evaluation of a model as a page that people read."""

from __future__ import annotations

from longshore.page import Cell, bar, escape, note_list, page, section, table, tiles
from longshore.validation.charts import COLOURS, calibration_chart, histogram_chart, roc_chart, scatter_chart
from longshore.validation.curves import Calibration, RocCurve
from longshore.validation.evaluate import Confusion, Evaluation, SliceScore
from longshore.validation.metrics import METRICS

__all__ = ["report_html"]

_MOST_CLASSES = 30
_FEW_ROWS = 30


def report_html(evaluation: Evaluation, *, title: str) -> str:
    """A self-contained HTML page, below 400 kB whatever the number of rows; equal evaluations give equal bytes.

    Args:
        evaluation: What was measured.
        title: Plain text, such as the model's name.

    Raises:
        MissingExtra: If matplotlib is not installed.
    """
    kind = "Classification" if evaluation.task == "classification" else "Regression"
    intro = f'<p class="sub">{kind} of <b>{escape(evaluation.target)}</b>, {evaluation.rows:,} test rows</p>'
    pictures = _classification(evaluation) if evaluation.task == "classification" else _regression(evaluation)
    return page(title, intro, _summary(evaluation), *pictures, _slices(evaluation), _definitions(evaluation))


def _summary(evaluation: Evaluation) -> str:
    order = [evaluation.primary, *(name for name in METRICS if name != evaluation.primary)]
    values = [(name, number(evaluation.metrics[name])) for name in order if name in evaluation.metrics]
    undefined = [f"{name} could not be computed: {why}." for name, why in evaluation.undefined.items()]
    return tiles(values, main=evaluation.primary) + note_list([*evaluation.notes, *undefined])


def _classification(evaluation: Evaluation) -> list[str]:
    parts = []
    if evaluation.confusion is not None:
        parts.append(_confusion(evaluation.confusion))
    figures = []
    if evaluation.roc:
        figures.append(
            f"<figure>{roc_chart(evaluation.roc)}<figcaption>{_roc_legend(evaluation.roc)}</figcaption></figure>"
        )
    if evaluation.calibration is not None:
        caption = escape(_calibration_caption(evaluation.calibration), limit=400)
        figures.append(
            f"<figure>{calibration_chart(evaluation.calibration)}<figcaption>{caption}</figcaption></figure>"
        )
    if figures:
        hint = (
            "First: hits against false alarms as the probability threshold falls; the dashed line is guessing. Second: "
            "of the rows said to be p likely, the share in which it was so; an honest model follows the dashed line."
        )
        parts.append(
            section(
                "Probabilities", f'<div class="row">{"".join(figures)}</div>', hint=hint if len(figures) == 2 else ""
            )
        )
    return parts


def _confusion(confusion: Confusion) -> str:
    labels, matrix = confusion.labels, confusion.matrix
    if len(labels) > _MOST_CLASSES:
        return _confused_pairs(confusion)
    totals = [max(1, sum(row)) for row in matrix]
    head = "".join(f"<th>{escape(label, limit=40)}</th>" for label in labels)
    body = "".join(
        f"<tr><th>{escape(label, limit=40)}</th>"
        + "".join(_shaded(count, count / total, hit=i == j) for j, count in enumerate(row))
        + f'<td class="num hint">{sum(row):,}</td></tr>'
        for i, (label, row, total) in enumerate(zip(labels, matrix, totals, strict=True))
    )
    hint = "Rows: the true class. Columns: the predicted class. The shade is the share of the true class."
    return section(
        "Confusion matrix",
        '<div class="wrap"><table class="matrix"><thead><tr><th></th>'
        f'{head}<th class="num">rows</th></tr></thead><tbody>{body}</tbody></table></div>',
        hint=hint,
    )


def _shaded(count: int, share: float, *, hit: bool) -> Cell:
    red, green, blue = (47, 109, 179) if hit else (200, 85, 61)
    strength = 0.08 + 0.92 * share if count else 0.03
    ink = "#fff" if share > 0.55 else "#1f2933" if count else "#9aa5b1"
    style = f"background:rgba({red},{green},{blue},{strength:.2f});color:{ink}"
    return f'<td style="{style}" title="{share:.1%}">{count:,}</td>'


def _confused_pairs(confusion: Confusion) -> str:
    pairs = sorted(
        (
            (count, sum(row), true, predicted)
            for true, row in zip(confusion.labels, confusion.matrix, strict=True)
            for predicted, count in zip(confusion.labels, row, strict=True)
            if count and true != predicted
        ),
        key=lambda pair: (-pair[0], str(pair[2]), str(pair[3])),
    )[:_MOST_CLASSES]
    rows = [
        (escape(true), escape(predicted), f"{count:,}", f"{count / total:.1%}")
        for count, total, true, predicted in pairs
    ]
    hint = f"The model has {len(confusion.labels)} classes; these are the mistakes that it makes most often."
    return section(
        "Most frequent mistakes",
        table(("True class", "Predicted class", "Rows", "Of the true class"), rows, numbers=(2, 3)),
        hint=hint,
    )


def _roc_legend(curves: tuple[RocCurve, ...]) -> str:
    return "".join(
        f'<span class="key"><i style="background:{colour}"></i>'
        f"{'all classes (micro average)' if curve.label is None else escape(curve.label, limit=40)}, "
        f"AUC {number(curve.auc)}</span>"
        for curve, colour in zip(curves, COLOURS, strict=False)
    )


def _calibration_caption(calibration: Calibration) -> str:
    of = "the predicted class" if calibration.label is None else f"the class {str(calibration.label)[:40]!r}"
    return f"Probability of {of}; expected calibration error {number(calibration.error)}. Larger dots: more rows."


def _regression(evaluation: Evaluation) -> list[str]:
    predictions = evaluation.predictions
    if not evaluation.metrics:
        return []
    actual, predicted, residuals = predictions.actual, predictions.predicted, predictions.residuals
    figures = (
        scatter_chart(actual, predicted, across_label="True value", up_label="Predicted value", guide="diagonal"),
        histogram_chart(residuals, label="True minus predicted"),
        scatter_chart(
            predicted, residuals, across_label="Predicted value", up_label="True minus predicted", guide="zero"
        ),
    )
    hint = (
        "A good model's points lie along the grey line, its errors centre on 0 and show no pattern over the "
        "predictions. Of many rows a random 1,000 are drawn; the histogram leaves out their outermost 1 percent."
    )
    body = "".join(f"<figure>{figure}</figure>" for figure in figures)
    return [section("Predictions and errors", f'<div class="row">{body}</div>', hint=hint)]


def _slices(evaluation: Evaluation) -> str:
    if not evaluation.slices:
        return ""
    shown = _slice_metrics(evaluation)
    top = max(
        (abs(s.metrics[evaluation.primary]) for s in evaluation.slices if evaluation.primary in s.metrics), default=1.0
    )
    previous, rows = None, []
    for one in evaluation.slices:
        column = f"<b>{escape(one.column)}</b>" if one.column != previous else ""
        rows.append(_slice_row(one, column, shown, evaluation.primary, max(top, 1e-300)))
        previous = one.column
    hint = f"The bar is {evaluation.primary}. Groups of fewer than {_FEW_ROWS} rows say little."
    headers = ("Column", "Value", "Rows", evaluation.primary, *shown)
    return section("By group of rows", table(headers, rows, numbers=(2, *range(4, 4 + len(shown)))), hint=hint)


def _slice_metrics(evaluation: Evaluation) -> tuple[str, ...]:
    wanted = ("accuracy", "balanced_accuracy", "roc_auc") if evaluation.task == "classification" else ("mae", "r2")
    return tuple(name for name in wanted if any(name in one.metrics for one in evaluation.slices))


def _slice_row(one: SliceScore, column: str, shown: tuple[str, ...], primary: str, top: float) -> list[Cell]:
    value = one.metrics.get(primary)
    # a share is drawn against 1, an error against the largest one
    scale = 1.0 if METRICS[primary].higher_is_better else top
    drawn = "\N{EN DASH}" if value is None else f'<span class="whole">{bar(value / scale)} {number(value)}</span>'
    rows = f"{one.rows:,}" if one.rows >= _FEW_ROWS else f'<span class="hint">{one.rows:,}</span>'
    others = (number(one.metrics[name]) if name in one.metrics else "\N{EN DASH}" for name in shown)
    return [column, escape(one.value), rows, drawn, *others]


def _definitions(evaluation: Evaluation) -> str:
    known = [info for info in METRICS.values() if info.name in evaluation.metrics]
    rows = [(f"<code>{i.name}</code>", i.meaning, "higher" if i.higher_is_better else "lower") for i in known]
    return section("What the numbers mean", table(("Metric", "Meaning", "Better"), rows)) if rows else ""


def number(value: float) -> str:
    """A number as a report shows it: four digits, thousands grouped."""
    return f"{value:,.0f}" if abs(value) >= 10_000 and abs(value) < 1e12 else f"{value:.4g}"
