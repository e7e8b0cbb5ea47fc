"""What a person sees while a batch runs, and the summary at its end."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ctdeface_shared.console import printable
from ctdeface_worker.report.model import CaseReport, State


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
        self._console.print(escape(printable(line)), soft_wrap=True, highlight=False)
        self._show()

    def _show(self) -> None:
        what = ", ".join(f"{case}: {stage}" for case, stage in self._running.copy().items())
        self._progress.update(self._task, description=escape(printable(what)))


@contextmanager
def display(console: Console, total: int) -> Iterator[Display]:
    """Show progress for the time of the block."""
    columns = (
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as progress:
        yield Display(console, progress, total)


def summary(console: Console, reports: Sequence[CaseReport], skipped: Sequence[str]) -> None:
    """Print what came of the batch: a table on a terminal, otherwise one line per case with tabs between the fields.

    The fields are case, outcome, seconds, and for a case that was not released its code and reason.
    """
    ordered = sorted(reports, key=lambda one: one.case)
    if console.is_terminal:
        console.print(_table(ordered, len(skipped)))
        return
    rows = [
        (report.case, _outcome(report), f"{_seconds(report):.1f}", *filter(None, [_why(report)]))
        for report in ordered
    ]
    rows += [
        (case, "skipped", "0.0", "already released with the same input and options")
        for case in sorted(skipped)
    ]
    for row in rows:
        console.file.write("\t".join(printable(field) for field in row) + "\n")


def line_of(report: CaseReport) -> str:
    """Say in one line what came of a case."""
    if report.is_published:
        return f"{report.case}: released in {_seconds(report):.1f} s"
    return f"{report.case}: {_outcome(report)}, {_why(report)}"


def _table(reports: Sequence[CaseReport], skipped: int) -> Table:
    table = Table(title=None, show_edge=False, pad_edge=False)
    for name in ("case", "outcome", "series", "seconds", "why"):
        table.add_column(name, overflow="fold", justify="right" if name == "seconds" else "left")
    for report in reports:
        released = f"{len(report.result.released_series)} of {len(report.result.series)}"
        table.add_row(
            escape(printable(report.case)),
            _outcome(report),
            released,
            f"{_seconds(report):.1f}",
            escape(printable(_why(report))),
        )
    if skipped:
        table.caption = (
            f"{skipped} already released with the same input and options: skipped (--redo repeats)"
        )
    return table


def _outcome(report: CaseReport) -> str:
    if report.is_published:
        return "released"
    return "superseded" if report.state is State.SUPERSEDED else "refused"


def _why(report: CaseReport) -> str:
    if report.state is State.SUPERSEDED:
        return "Superseded: a newer job of this case is published"
    return f"{report.result.code}: {report.result.reason}" if report.result.code else ""


def _seconds(report: CaseReport) -> float:
    return sum(report.result.seconds.values())
