"""The whole service on one machine: which processes there are, what a person sees of them, and when nothing is left to do."""

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ctdeface_shared import durable
from ctdeface_shared.cli import EXIT_OK, EXIT_REFUSED
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.fleet_view import View, view_of
from ctdeface_shared.lifecycle import boundary, stop_on_signals
from ctdeface_shared.past_jobs import JobReader, JobRecord
from ctdeface_shared.site import Site
from ctdeface_shared.spool import PRIVATE
from ctdeface_shared.supervisor import Program, Running, supervise
from ctdeface_shared.survey import Surveyor

LOOK_SECONDS = 2.0
LOOK_SHARE = 0.1
"""No more than this share of the time goes into looking at the spool, however large it is."""
LOG_BYTES = 20_000_000
"""A log in the state folder that is larger is put aside, once, and begun anew."""
MARGIN_SECONDS = 15.0
"""What a process gets beyond the grace period before it is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What shall run.

    Attributes:
        site: where.
        config: the settings file that was named, None for the usual places.
        workers: worker processes; None for the settings'.
        threads: of each worker; None for the settings', or a fair share of the cores.
        once: whether to end when nothing is left to do.
    """

    site: Site
    config: Path | None = None
    workers: int | None = None
    threads: int | None = None
    once: bool = False


@dataclass(slots=True)
class Overseer:
    """Looks at the spool every now and then, shows what it sees, and ends a run that has nothing left to do."""

    fleet: Fleet
    view: View
    stop: threading.Event
    surveyor: Surveyor
    jobs: JobReader
    told: frozenset[JobRecord]
    logs: Path | None = None
    next_look: float = 0.0
    idle_looks: int = 0
    refused: bool = False

    def tick(self, running: Sequence[Running]) -> None:
        """Look if it is time to; a look that fails is made again."""
        begun = time.monotonic()
        if begun >= self.next_look:
            boundary(partial(self._look, running))
            if self.logs is not None:
                boundary(partial(shorten, self.logs))
            now = time.monotonic()
            self.next_look = now + max(LOOK_SECONDS, (now - begun) / LOOK_SHARE)

    def _look(self, running: Sequence[Running]) -> None:
        survey = self.surveyor.look(time.time())
        self.view.show(survey, running)
        ended = ended_jobs(self.jobs)
        for job in sorted(ended - self.told, key=lambda one: one.reported_at):
            self.refused |= job.state == "refused"
            self.view.tell(job)
        self.told = ended
        self.idle_looks = self.idle_looks + 1 if survey.is_idle else 0
        if self.fleet.once and self.idle_looks > 1:
            self.stop.set()


def run_fleet(fleet: Fleet) -> int:
    """Run watcher and workers until stopped, or until the inbox is done, and return the exit code.

    Raises:
        ConfigurationError: a folder, the queue or a setting must be put right first.
    """
    site = fleet.site
    site.prepare()
    with stop_on_signals() as stop, view_of(site.spool, once=fleet.once) as view, _logs(site, view) as folder:
        watch, jobs = site.settings.watch, JobReader(site.spool.reports)
        overseer = Overseer(
            fleet=fleet,
            view=view,
            stop=stop,
            surveyor=Surveyor(site.spool, case_depth=watch.case_depth, ignore=watch.ignore),
            jobs=jobs,
            told=ended_jobs(jobs),  # before this run; no clock is asked, because the file system's may be another
            logs=folder,
        )
        supervise(
            programs(fleet, folder),
            stop,
            environment=_environment(site),
            grace_seconds=site.settings.work.grace_period + MARGIN_SECONDS,
            tick=overseer.tick,
        )
    return EXIT_REFUSED if fleet.once and overseer.refused else EXIT_OK


def ended_jobs(jobs: JobReader) -> frozenset[JobRecord]:
    """Return every job that has ended."""
    return frozenset(job for job in jobs.read() if job.ended)


def programs(fleet: Fleet, log_folder: Path | None) -> list[Program]:
    """Name the processes: one watcher, and workers with one case each at a time and the next ports for their metrics."""
    site = fleet.site
    count = fleet.workers or site.settings.work.jobs
    threads = fleet.threads or site.settings.work.threads or max((os.cpu_count() or 1) // count, 1)
    place = ("--spool", str(site.settings.spool.root.absolute()), "--with-parent")
    worker = ("work", *place, "--processes", "1", "--threads", str(threads))
    commands: dict[str, tuple[str, ...]] = {"watcher": ("watch", *place)}
    first = site.settings.metrics.work_port
    for number in range(count):
        commands[f"worker {number + 1}"] = (*worker, "--metrics-port", str(first + number if first else 0))
    config = ("--config", str(fleet.config.absolute())) if fleet.config else ()
    return [
        Program(
            name=name,
            command=(sys.executable, "-m", "ctdeface_shared", *command, *config),
            log=log_folder / f"{name.replace(' ', '-')}.log" if log_folder else None,
        )
        for name, command in commands.items()
    ]


def _environment(site: Site) -> dict[str, str]:
    """The environment of all processes; the queue's URL travels here, because it may hold a password that a list of processes shows."""
    return {**os.environ, "CTDEFACE_BROKER__URL": site.queue.url}


@contextmanager
def _logs(site: Site, view: View) -> Iterator[Path | None]:
    """Give a folder for what the processes log while a person looks at the live picture; None leaves them standard error."""
    if not view.is_live:
        yield None
        return
    folder = site.state_dir / "logs"
    durable.make_folder(folder, mode=PRIVATE)
    for file in folder.glob("*.log*"):
        file.unlink()
    try:
        yield folder
    except ConfigurationError as error:
        raise ConfigurationError("; ".join([*_complaints(folder), str(error)])) from error


def shorten(folder: Path, most_bytes: int = LOG_BYTES) -> None:
    """Put every log aside that is too large, in place of what was put aside before; what is written meanwhile may be lost.

    Raises:
        OSError: storage failed; it is tried again.
    """
    for file in folder.glob("*.log"):
        if file.stat().st_size > most_bytes:
            shutil.copy(file, file.with_name(f"{file.name}.1"))
            os.truncate(file, 0)  # whoever writes goes on in the same file: it is open for appending


def _complaints(folder: Path) -> Iterator[str]:
    """Yield what processes said last about what must be put right."""
    for file in sorted(folder.glob("*.log")):
        last = file.read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
        yield from (line.removeprefix("ctdeface: ") for line in last if line.startswith("ctdeface: "))
