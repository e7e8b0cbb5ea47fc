"""What a person sees while the service runs: a live picture on a terminal, JSON lines on standard error otherwise."""

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
from ctdeface_shared.status.spool_status import SpoolStatus, lines
from ctdeface_shared.storage.spool import ServiceSpool, case_path

REPEAT_SECONDS = 60.0
"""A status that does not change is logged again after this time, so that a silent service can be told from a dead one."""

_log = logs.logger(__name__)


class View(Protocol):
    """Where a person looks."""

    is_live: bool

    def show(self, spool_status: SpoolStatus, running: Sequence[Running]) -> None:
        """Show where everything stands."""

    def tell(self, job: JobRecord) -> None:
        """Tell that a job has ended."""


@dataclass(slots=True)
class Terminal:
    """A picture at the foot of the terminal, and a line for each case that has ended above it."""

    console: Console
    live: Live
    spool: ServiceSpool
    is_live: bool = True

    def show(self, spool_status: SpoolStatus, running: Sequence[Running]) -> None:
        """Draw the picture anew."""
        processes = ", ".join(f"{each.program.name} {_state(each)}" for each in running)
        foot = f"drop folders into {self.spool.inbox}; Ctrl-C ends"
        self.live.update(
            Text(
                "\n".join(
                    printable(line) for line in (*lines(spool_status, limit=0), processes, foot)
                )
            )
        )

    def tell(self, job: JobRecord) -> None:
        """Print the line."""
        self.console.print(
            escape(printable(line_of(job, self.spool))), soft_wrap=True, highlight=False
        )


@dataclass(slots=True)
class Lines:
    """JSON lines on standard error; a run that ends by itself also prints a line for each case on standard output."""

    spool: ServiceSpool
    once: bool
    is_live: bool = False
    last: tuple[int, ...] = ()
    last_at: float = field(default=0.0)

    def show(self, spool_status: SpoolStatus, running: Sequence[Running]) -> None:
        """Log the numbers when they have changed, and every minute."""
        restarts = sum(each.restarts for each in running)
        numbers = (
            len(spool_status.waiting),
            len(spool_status.in_flight),
            spool_status.released,
            len(spool_status.refused),
            restarts,
        )
        if numbers != self.last or time.monotonic() - self.last_at >= REPEAT_SECONDS:
            self.last, self.last_at = numbers, time.monotonic()
            waiting, in_flight, released, refused, _ = numbers
            _log.info(
                "status",
                waiting=waiting,
                in_flight=in_flight,
                released=released,
                refused=refused,
                restarts=restarts,
            )

    def tell(self, job: JobRecord) -> None:
        """Print a line if somebody waits for the end."""
        if self.once:
            sys.stdout.write(printable(line_of(job, self.spool)) + "\n")
            sys.stdout.flush()


@contextmanager
def view_of(spool: ServiceSpool, *, once: bool) -> Iterator[View]:
    """Give the view that suits standard output."""
    console = Console()
    if not console.is_terminal:
        logs.configure()
        yield Lines(spool, once)
        return
    with Live(Text("starting"), console=console, transient=True, refresh_per_second=2) as live:
        yield Terminal(console, live, spool)


def line_of(job: JobRecord, spool: ServiceSpool) -> str:
    """Say in one line what came of a job and where to look."""
    if job.state is JobState.REFUSED:
        return f"{job.case}: refused, {job.code}: {job.reason}, see {case_path(spool.quarantine, job.case) / job.job_id / 'report.html'}"
    if job.state is JobState.SUPERSEDED:
        return f"{job.case}: superseded, a newer job of this case is published"
    return f"{job.case}: released, see {case_path(spool.outbox, job.case)}"


def _state(each: Running) -> str:
    restarts = f" ({each.restarts} restarts)" if each.restarts else ""
    return (
        "runs" if each.process is not None else f"starts again within {each.pause:.0f} s"
    ) + restarts
