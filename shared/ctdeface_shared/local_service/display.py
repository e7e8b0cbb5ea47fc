"""The output of `ctdeface up`: a live screen on a terminal, log lines otherwise."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from ctdeface_shared import logs
from ctdeface_shared.console import printable
from ctdeface_shared.jobs.history import JobRecord
from ctdeface_shared.jobs.states import JobState
from ctdeface_shared.local_service.supervisor import Running
from ctdeface_shared.status.spool_status import SpoolStatus, report_file
from ctdeface_shared.status.text import retry_lines, spool_lines
from ctdeface_shared.storage.spool import ServiceSpool, case_path

REPEAT_SECONDS = 60.0
"""An unchanged status is logged again after this time, to show that the service is alive."""

_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The service at one moment.

    Attributes:
        spool: state of the cases.
        running: the processes.
        warnings: sentences about what needs a person's attention.
    """

    spool: SpoolStatus
    running: Sequence[Running] = ()
    warnings: Sequence[str] = ()


class View(Protocol):
    """An output of `ctdeface up`."""

    is_live: bool

    def show(self, snapshot: Snapshot) -> None:
        """Show the present status."""

    def show_end(self, job: JobRecord) -> None:
        """Show that a job has ended."""

    def close(self, spool: SpoolStatus) -> None:
        """Show that the service has stopped."""


@dataclass(slots=True)
class Terminal:
    """A live screen below one line for each case that has ended."""

    console: Console
    live: Live
    spool: ServiceSpool
    is_live: bool = True

    def show(self, snapshot: Snapshot) -> None:
        """Redraw the screen."""
        lines = screen_lines(snapshot, self.spool)
        self.live.update(Text("\n".join(printable(line) for line in lines)))

    def show_end(self, job: JobRecord) -> None:
        """Print a line above the screen."""
        self._print(end_line(job, self.spool))

    def close(self, spool: SpoolStatus) -> None:
        """Print the closing line."""
        self._print(closing_line(spool))

    def _print(self, line: str) -> None:
        self.console.print(escape(printable(line)), soft_wrap=True, highlight=False)


@dataclass(slots=True)
class Lines:
    """JSON lines on standard error.

    A run with `--once` also prints a line for each ended case on standard output.
    """

    spool: ServiceSpool
    once: bool
    is_live: bool = False
    last: tuple[int, ...] = ()
    last_at: float = field(default=0.0)

    def show(self, snapshot: Snapshot) -> None:
        """Log the numbers when they have changed, and every minute."""
        restarts = sum(each.restarts for each in snapshot.running)
        numbers = (*_numbers(snapshot.spool).values(), restarts)
        if numbers != self.last or time.monotonic() - self.last_at >= REPEAT_SECONDS:
            self.last, self.last_at = numbers, time.monotonic()
            _log.info("status", **_numbers(snapshot.spool), restarts=restarts)

    def show_end(self, job: JobRecord) -> None:
        """Print a line if the run ends by itself."""
        if self.once:
            sys.stdout.write(printable(end_line(job, self.spool)) + "\n")
            sys.stdout.flush()

    def close(self, spool: SpoolStatus) -> None:
        """Log the final numbers."""
        _log.info("stopped", **_numbers(spool))


@contextmanager
def open_view(spool: ServiceSpool, *, once: bool) -> Iterator[View]:
    """Open the view that suits standard output."""
    console = Console()
    if not console.is_terminal:
        logs.configure()
        yield Lines(spool, once)
        return
    with Live(Text("starting"), console=console, transient=True, refresh_per_second=2) as live:
        yield Terminal(console, live, spool)


def screen_lines(snapshot: Snapshot, spool: ServiceSpool) -> tuple[str, ...]:
    """Return the lines of the live screen."""
    waiting, in_flight, released, refused = spool_lines(snapshot.spool)
    return (
        waiting,
        in_flight,
        *retry_lines(snapshot.spool),
        released,
        refused,
        ", ".join(f"{each.program.name} {_process_state(each)}" for each in snapshot.running),
        *(f"warning: {warning}" for warning in snapshot.warnings),
        f"drop folders into {spool.inbox}; Ctrl-C stops",
    )


def end_line(job: JobRecord, spool: ServiceSpool) -> str:
    """Return how a job ended and where to look, in one line."""
    if job.state is JobState.REFUSED:
        report = report_file(case_path(spool.quarantine, job.case) / job.job_id)
        return f"{job.case}: refused, {job.code}: {job.reason}, see {report}"
    if job.state is JobState.SUPERSEDED:
        return f"{job.case}: superseded, a newer job of this case is published"
    return f"{job.case}: released, see {case_path(spool.outbox, job.case)}"


def closing_line(spool: SpoolStatus) -> str:
    """Return the last line of a run."""
    text = f"stopped: {spool.released} released, {len(spool.refused)} refused"
    if spool.is_idle:
        return text
    return (
        f"{text}; {len(spool.waiting)} waiting and {len(spool.in_flight)} in flight "
        "continue when ctdeface up is started again"
    )


def _numbers(spool: SpoolStatus) -> dict[str, int]:
    return {
        "waiting": len(spool.waiting),
        "in_flight": len(spool.in_flight),
        "released": spool.released,
        "refused": len(spool.refused),
    }


def _process_state(each: Running) -> str:
    restarts = f" ({each.restarts} restarts)" if each.restarts else ""
    if each.process is not None:
        return f"running{restarts}"
    return f"restarts within {each.pause:.0f} s{restarts}"
