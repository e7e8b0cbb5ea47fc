"""What a person sees while a batch runs, and the table at its end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ctdeface_worker.report.model import CaseReport


class Display:
    """Shows which stage each case is in: a live bar with the time left on a terminal, one line per case otherwise."""

    def __init__(self, console: Console, progress: Progress, total: int) -> None:
        """Begin with nothing done of `total` cases."""
        self._console = console
        self._progress = progress
        self._task = progress.add_task("starting", total=total, visible=console.is_terminal)
        self._begun = time.monotonic()
        self._running: dict[str, str] = {}

    def stage(self, case: str, name: str) -> None:
        """Show that a case entered a stage."""
        self._running[case] = name
        self._show()

    def finished(self, case: str, line: str) -> None:
        """Count a case and print its line."""
        self._running.pop(case, None)
        self._progress.advance(self._task)
        self._console.print(escape(line), soft_wrap=True, highlight=False)
        self._show()

    def _show(self) -> None:
        what = ", ".join(f"{case}: {stage}" for case, stage in self._running.items())
        self._progress.update(self._task, description=escape(what))


@contextmanager
def display(console: Console, total: int) -> Iterator[Display]:
    """Show progress for the time of the block."""
    columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield Display(console, progress, total)


def summary(reports: list[CaseReport], skipped: int) -> Table:
    """Return the table at the end of a batch."""
    table = Table(title=None, show_edge=False, pad_edge=False)
    for name in ("case", "outcome", "series", "seconds", "why"):
        table.add_column(name, overflow="fold", justify="right" if name == "seconds" else "left")
    for report in sorted(reports, key=lambda one: one.case):
        result = report.result
        released = sum(one.fate.value == "released" for one in result.series)
        outcome = "released" if result.released else f"refused: {result.code}"
        seconds = f"{sum(result.seconds.values()):.1f}"
        table.add_row(escape(report.case), outcome, f"{released} of {len(result.series)}", seconds, escape(result.reason))
    if skipped:
        table.caption = f"{skipped} already released with the same input and options: skipped (--redo repeats)"
    return table
