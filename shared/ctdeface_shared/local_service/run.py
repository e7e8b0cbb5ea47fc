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

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.exit_codes import EXIT_OK, EXIT_REFUSED
from ctdeface_shared.jobs.history import JobReader, JobRecord
from ctdeface_shared.jobs.states import JobState
from ctdeface_shared.lifecycle import boundary, stop_on_signals, threads_per_case
from ctdeface_shared.local_service.display import View, view_of
from ctdeface_shared.local_service.supervisor import Program, Running, supervise
from ctdeface_shared.settings.service import ServiceConfig
from ctdeface_shared.status.spool_status import SpoolScanner
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.spool import PRIVATE

LOOK_SECONDS = 2.0
LOOK_SHARE = 0.1
"""No more than this share of the time goes into looking at the spool, however large it is."""
LOG_BYTES = 20_000_000
"""A log in the state folder that is larger is put aside, once, and begun anew."""
MARGIN_SECONDS = 15.0
"""What a process gets beyond the grace period before it is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalService:
    """What shall run.

    Attributes:
        site: where.
        config: the settings file that was named, None for the usual places.
        workers: worker processes; None for the settings'.
        threads: of each worker; None for the settings', or a fair share of the cores.
        once: whether to end when nothing is left to do.
    """

    service: ServiceConfig
    config: Path | None = None
    workers: int | None = None
    threads: int | None = None
    once: bool = False


@dataclass(slots=True)
class RunMonitor:
    """Looks at the spool every now and then, shows what it sees, and ends a run that has nothing left to do."""

    local_service: LocalService
    view: View
    stop: threading.Event
    scanner: SpoolScanner
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
        spool_status = self.scanner.look(time.time())
        self.view.show(spool_status, running)
        ended = ended_jobs(self.jobs)
        for job in sorted(ended - self.told, key=lambda one: one.reported_at):
            self.refused |= job.state is JobState.REFUSED
            self.view.tell(job)
        self.told = ended
        self.idle_looks = self.idle_looks + 1 if spool_status.is_idle else 0
        if self.local_service.once and self.idle_looks > 1:
            self.stop.set()


def run_local_service(local_service: LocalService) -> int:
    """Run watcher and workers until stopped, or until the inbox is done, and return the exit code.

    Raises:
        ConfigurationError: a folder, the queue or a setting must be put right first.
    """
    service = local_service.service
    service.prepare()
    with (
        stop_on_signals() as stop,
        view_of(service.spool, once=local_service.once) as view,
        _logs(service, view) as folder,
    ):
        watch, jobs = service.settings.watch, JobReader(service.spool.reports)
        monitor = RunMonitor(
            local_service=local_service,
            view=view,
            stop=stop,
            scanner=SpoolScanner(service.spool, case_depth=watch.case_depth, ignore=watch.ignore),
            jobs=jobs,
            told=ended_jobs(
                jobs
            ),  # before this run; no clock is asked, because the file system's may be another
            logs=folder,
        )
        supervise(
            programs(local_service, folder),
            stop,
            environment=_environment(service),
            grace_seconds=service.settings.work.grace_period + MARGIN_SECONDS,
            tick=monitor.tick,
        )
    return EXIT_REFUSED if local_service.once and monitor.refused else EXIT_OK


def ended_jobs(jobs: JobReader) -> frozenset[JobRecord]:
    """Return every job that has ended."""
    return frozenset(job for job in jobs.read() if job.ended)


def programs(local_service: LocalService, log_folder: Path | None) -> list[Program]:
    """Name the processes: one watcher, and workers with one case each at a time and the next ports for their metrics."""
    service = local_service.service
    count = local_service.workers or service.settings.work.jobs
    threads = threads_per_case(count, local_service.threads or service.settings.work.threads)
    place = ("--spool", str(service.settings.spool.root.absolute()), "--with-parent")
    worker = ("work", *place, "--processes", "1", "--threads", str(threads))
    commands: dict[str, tuple[str, ...]] = {"watcher": ("watch", *place)}
    first = service.settings.metrics.work_port
    for number in range(count):
        commands[f"worker {number + 1}"] = (
            *worker,
            "--metrics-port",
            str(first + number if first else 0),
        )
    config = ("--config", str(local_service.config.absolute())) if local_service.config else ()
    return [
        Program(
            name=name,
            command=(sys.executable, "-m", "ctdeface_shared", *command, *config),
            log=log_folder / f"{name.replace(' ', '-')}.log" if log_folder else None,
        )
        for name, command in commands.items()
    ]


def _environment(service: ServiceConfig) -> dict[str, str]:
    """The environment of all processes; the queue's URL travels here, because it may hold a password that a list of processes shows."""
    return {**os.environ, "CTDEFACE_BROKER__URL": service.queue.url}


@contextmanager
def _logs(service: ServiceConfig, view: View) -> Iterator[Path | None]:
    """Give a folder for what the processes log while a person looks at the live picture; None leaves them standard error."""
    if not view.is_live:
        yield None
        return
    folder = service.state_dir / "logs"
    atomic.make_folder(folder, mode=PRIVATE)
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
            os.truncate(
                file, 0
            )  # whoever writes goes on in the same file: it is open for appending


def _complaints(folder: Path) -> Iterator[str]:
    """Yield what processes said last about what must be put right."""
    for file in sorted(folder.glob("*.log")):
        last = file.read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
        yield from (
            line.removeprefix("ctdeface: ") for line in last if line.startswith("ctdeface: ")
        )
