"""Progress of a batch on the console, and summary."""

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
from ctdeface_worker.case.run import CaseRun
from ctdeface_worker.report.model import CaseReport, State

_REPLACED = "replaces the earlier output, which is kept in archive/outputs of the state folder"


class Display:
    """Live progress of a batch.

    A terminal shows a bar with the time left; other outputs get one line per case.
    """

    def __init__(self, console: Console, progress: Progress, total: int) -> None:
        """Start with none of `total` cases done."""
        self._console = console
        self._progress = progress
        self._task = progress.add_task("starting", total=total, visible=console.is_terminal)
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
        stages = ", ".join(f"{case}: {stage}" for case, stage in self._running.copy().items())
        self._progress.update(self._task, description=escape(printable(stages)))


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


def summary(console: Console, runs: Sequence[CaseRun]) -> None:
    """Print the end of every case.

    A terminal gets a table, other outputs get tab-separated lines.

    The fields of a line are case, outcome, seconds, reason and released files of all files. The
    reason is empty for a case that was released whole.
    """
    ordered = sorted(runs, key=lambda run: (_is_skipped(run), run.report.case))
    if console.is_terminal:
        console.print(_table(ordered))
        return
    for run in ordered:
        seconds = 0.0 if _is_skipped(run) else _seconds(run.report)
        row = (run.report.case, _outcome(run), f"{seconds:.1f}", _why(run), _files(run.report))
        console.file.write("\t".join(printable(field) for field in row) + "\n")


def line_of(run: CaseRun) -> str:
    """Return one line about the end of a case."""
    report = run.report
    if _is_skipped(run):
        return f"{report.case}: already {_released(report)}, skipped"
    if not report.is_published:
        return f"{report.case}: {_outcome(run)}, {_why(run)}"
    replaced = f"; {_REPLACED}" if run.replaced else ""
    return f"{report.case}: {_released(report)} in {_seconds(report):.1f} s{replaced}"


def _table(runs: Sequence[CaseRun]) -> Table:
    table = Table(title=None, show_edge=False, pad_edge=False)
    for name in ("case", "outcome", "series", "files", "seconds", "why"):
        table.add_column(name, overflow="fold", justify="right" if name == "seconds" else "left")
    for run in runs:
        report = run.report
        if _is_skipped(run) and not report.is_partial:
            continue
        table.add_row(
            escape(printable(report.case)),
            _outcome(run),
            _series(report),
            _files(report),
            "" if _is_skipped(run) else f"{_seconds(report):.1f}",
            escape(printable(_why(run))),
        )
    skipped = sum(_is_skipped(run) for run in runs)
    if skipped:
        table.caption = (
            f"{skipped} already released with the same input and options: skipped (--redo repeats)"
        )
    return table


def _is_skipped(run: CaseRun) -> bool:
    return run.resumed_from is not None and run.report.is_published


def _outcome(run: CaseRun) -> str:
    if _is_skipped(run):
        return "skipped"
    if run.report.is_published:
        return "released in part" if run.report.is_partial else "released"
    return "superseded" if run.report.state is State.SUPERSEDED else "refused"


def _released(report: CaseReport) -> str:
    return f"released in part ({report.parts})" if report.is_partial else "released"


def _why(run: CaseRun) -> str:
    report = run.report
    if report.state is State.SUPERSEDED:
        return "Superseded: a newer job of this case is published"
    if not report.is_published:
        return f"{report.result.code}: {report.result.reason}"
    reasons = [report.parts] if report.is_partial else []
    if _is_skipped(run):
        reasons.append("already released with the same input and options")
    if run.replaced:
        reasons.append(_REPLACED)
    return "; ".join(reasons)


def _files(report: CaseReport) -> str:
    """Return the number of released files and of all files."""
    released = len(report.outputs) if report.is_published else 0
    return f"{released} of {len(report.result.files) or report.manifest.files}"


def _series(report: CaseReport) -> str:
    """Return released series of those that should be."""
    released = len(report.result.released_series)
    return f"{released} of {released + len(report.result.failed_series)}"


def _seconds(report: CaseReport) -> float:
    return sum(report.result.seconds.values())
