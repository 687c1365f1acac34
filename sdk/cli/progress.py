"""Progress of a local run on the standard error: live lines on a terminal, one line per event elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from longshore.runner.reports import Event, StepFinished, StepOutput, StepReport

__all__ = ["shown_progress"]


@contextlib.contextmanager
def shown_progress() -> Iterator[Callable[[Event], None]]:
    """Show the events that the yielded function is given."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda event: console.print(_line(event), markup=False, soft_wrap=True)
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as progress:
        yield _Live(progress).show


def _line(event: Event) -> str:
    if isinstance(event, StepOutput):
        return f"{event.name} | {event.line}"
    if isinstance(event, StepFinished):
        return f"{event.report.name} {_end(event.report)}"
    return f"{event.name} started"


def _end(report: StepReport) -> str:
    again = f", attempt {report.attempts}" if report.attempts > 1 else ""
    return f"{report.state} in {report.seconds:.1f} s{again}"


class _Live:
    """Running steps with a spinner and a clock; what is over stays above them."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._running: dict[str, Any] = {}

    def show(self, event: Event) -> None:
        from rich.text import Text

        console = self._progress.console
        if isinstance(event, StepFinished):
            report = event.report
            self._progress.remove_task(self._running.pop(report.name))
            mark = ("✓", "green") if report.state == "succeeded" else ("✗", "red")
            console.print(Text.assemble(mark, f" {report.name} ", (_end(report), "dim")))
        elif isinstance(event, StepOutput):
            console.print(Text(_line(event), "dim"), soft_wrap=True)
        else:
            self._running[event.name] = self._progress.add_task(event.name, total=None)
