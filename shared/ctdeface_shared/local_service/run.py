"""Run watcher and workers on one machine, show their status and end when nothing is left."""

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
from ctdeface_shared.local_service.display import Snapshot, View, open_view
from ctdeface_shared.local_service.supervisor import Program, Running, supervise
from ctdeface_shared.metrics.ports import is_free, metrics_ports
from ctdeface_shared.settings.memory import with_memory_share
from ctdeface_shared.settings.service import ServiceConfig
from ctdeface_shared.status.service_status import disk_warnings, inbox_warnings, skip_warnings
from ctdeface_shared.status.spool_status import SpoolScanner, SpoolStatus
from ctdeface_shared.status.watcher_state import WATCHER_STATE, read_watcher_state
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.spool import PRIVATE

SCAN_SECONDS = 2.0
SCAN_SHARE = 0.1
"""Maximum share of the time that goes into scanning the spool, however large it is."""
LOG_BYTES = 20_000_000
"""A log in the state folder that grows larger is put aside once and started anew."""
MARGIN_SECONDS = 15.0
"""Time beyond the grace period before a process is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalService:
    """The processes to run on this machine.

    Attributes:
        service: settings, spool and queue.
        config: the given settings file; None for the usual places.
        workers: number of worker processes; None for the settings'.
        threads: threads of each worker; None for the settings', or an equal share of the cores.
        once: whether to end when nothing is left to do.
    """

    service: ServiceConfig
    config: Path | None = None
    workers: int | None = None
    threads: int | None = None
    once: bool = False

    @property
    def worker_count(self) -> int:
        """Return the number of worker processes."""
        return self.workers or self.service.settings.work.jobs


@dataclass(slots=True)
class RunMonitor:
    """Scans the spool regularly, shows its status, and ends a run that has nothing left to do.

    Attributes:
        local_service: the service that runs.
        view: shows the status.
        stop: set to end the run.
        scanner: reads the state of the cases.
        jobs: reads the jobs.
        shown: ended jobs that were shown, or had ended before the run.
        logs: folder of the processes' logs; None if they log to standard error.
        next_scan: monotonic seconds.
        idle_scans: number of scans since anything was waiting or in flight.
        refused: whether a case was refused during the run.
    """

    local_service: LocalService
    view: View
    stop: threading.Event
    scanner: SpoolScanner
    jobs: JobReader
    shown: frozenset[JobRecord]
    logs: Path | None = None
    next_scan: float = 0.0
    idle_scans: int = 0
    refused: bool = False

    def tick(self, running: Sequence[Running]) -> None:
        """Scan if it is time to; a failed scan is repeated."""
        begun = time.monotonic()
        if begun >= self.next_scan:
            boundary(partial(self._scan, running))
            if self.logs is not None:
                boundary(partial(shorten, self.logs))
            now = time.monotonic()
            self.next_scan = now + max(SCAN_SECONDS, (now - begun) / SCAN_SHARE)

    def close(self) -> None:
        """Show the final status; jobs may have ended since the last scan."""
        boundary(self._close)

    def _close(self) -> None:
        status = self._show_ends()
        self.view.close(status)

    def _scan(self, running: Sequence[Running]) -> None:
        status = self._show_ends()
        self.idle_scans = self.idle_scans + 1 if status.is_idle else 0
        if self.local_service.once and self.idle_scans > 1:
            self.stop.set()
        warnings = self._warnings(status)
        self.view.show(Snapshot(spool=status, running=running, warnings=warnings))

    def _show_ends(self) -> SpoolStatus:
        """Scan the spool and show the jobs that ended since the last scan."""
        watcher = read_watcher_state(self.local_service.service.state_dir / WATCHER_STATE)
        status = self.scanner.look(time.time(), watcher.kept if watcher else ())
        ended = ended_jobs(self.jobs)
        for job in sorted(ended - self.shown, key=lambda one: one.reported_at):
            self.refused |= job.state is JobState.REFUSED
            self.view.show_end(job)
        self.shown = ended
        return status

    def _warnings(self, status: SpoolStatus) -> tuple[str, ...]:
        service = self.local_service.service
        watcher = read_watcher_state(service.state_dir / WATCHER_STATE)
        return (
            *inbox_warnings(status, watcher),
            *skip_warnings(status.skipped, watcher),
            *disk_warnings(service.free_space()),
        )


def run_local_service(local_service: LocalService) -> int:
    """Run watcher and workers until stopped or done, and return the exit code.

    Raises:
        ConfigurationError: a folder, the queue, a port or a setting must be corrected first.
    """
    service = local_service.service
    _require_free_ports(local_service)
    service.prepare()
    with (
        stop_on_signals() as stop,
        open_view(service.spool, once=local_service.once) as view,
        _log_folder(service, view) as folder,
    ):
        watch, jobs = service.settings.watch, JobReader(service.spool.reports)
        monitor = RunMonitor(
            local_service=local_service,
            view=view,
            stop=stop,
            scanner=SpoolScanner(service.spool, case_depth=watch.case_depth, ignore=watch.ignore),
            jobs=jobs,
            # compared as a set: the file system's clock may differ from this machine's
            shown=ended_jobs(jobs),
            logs=folder,
        )
        supervise(
            programs(local_service, folder),
            stop,
            environment=environment_of(service, local_service.worker_count),
            grace_seconds=service.settings.work.grace_period + MARGIN_SECONDS,
            tick=monitor.tick,
        )
        monitor.close()
    return EXIT_REFUSED if local_service.once and monitor.refused else EXIT_OK


def ended_jobs(jobs: JobReader) -> frozenset[JobRecord]:
    """Return every job that has ended."""
    return frozenset(job for job in jobs.read() if job.ended)


def programs(local_service: LocalService, log_folder: Path | None) -> list[Program]:
    """Return the processes: one watcher, and workers with one case at a time.

    Each worker serves its metrics at a port of its own.
    """
    service, count = local_service.service, local_service.worker_count
    threads = threads_per_case(count, local_service.threads or service.settings.work.threads)
    place = ("--spool", str(service.settings.spool.root.absolute()), "--with-parent")
    worker = ("work", *place, "--processes", "1", "--threads", str(threads))
    commands: dict[str, tuple[str, ...]] = {"watcher": ("watch", *place)}
    first = service.settings.metrics.work_port
    for number in range(count):
        port = str(first + number if first else 0)
        commands[f"worker {number + 1}"] = (*worker, "--metrics-port", port)
    config = ("--config", str(local_service.config.absolute())) if local_service.config else ()
    return [
        Program(
            name=name,
            command=(sys.executable, "-m", "ctdeface_shared", *command, *config),
            log=log_folder / f"{name.replace(' ', '-')}.log" if log_folder else None,
        )
        for name, command in commands.items()
    ]


def shorten(folder: Path, most_bytes: int = LOG_BYTES) -> None:
    """Put aside every log that is too large.

    It replaces the one put aside before; lines written meanwhile may be lost.

    Raises:
        OSError: storage failed; it is tried again.
    """
    for file in folder.glob("*.log"):
        if file.stat().st_size > most_bytes:
            shutil.copy(file, file.with_name(f"{file.name}.1"))
            os.truncate(file, 0)  # processes have it open for appending


def _require_free_ports(local_service: LocalService) -> None:
    """Check the metrics ports before any process is started.

    Raises:
        ConfigurationError: a port is in use.
    """
    section = local_service.service.settings.metrics
    for key, port in metrics_ports(section, local_service.worker_count):
        if not is_free(section.host, port):
            raise ConfigurationError(
                f"port {port} at {section.host} is in use, perhaps by another ctdeface up: stop "
                f"that one, or set {key} to a free port (0 turns metrics off)"
            )


def environment_of(service: ServiceConfig, workers: int) -> dict[str, str]:
    """Return the environment of all processes.

    It holds the queue's URL, because a password in the arguments would show in the process list,
    and each worker's share of the memory.

    Args:
        service: settings and queue.
        workers: number of worker processes.
    """
    limit_gb = with_memory_share(service.settings, workers).work.memory_limit_gb
    share = {} if limit_gb is None else {"CTDEFACE_WORK__MEMORY_LIMIT_GB": str(limit_gb)}
    return {**os.environ, "CTDEFACE_BROKER__URL": service.queue.url, **share}


@contextmanager
def _log_folder(service: ServiceConfig, view: View) -> Iterator[Path | None]:
    """Create a folder for the processes' logs while a live screen is shown.

    Without one they log to standard error.
    """
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
        raise ConfigurationError("; ".join([*_last_errors(folder), str(error)])) from error


def _last_errors(folder: Path) -> Iterator[str]:
    """Yield the error with which each process ended."""
    for file in sorted(folder.glob("*.log")):
        last = file.read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
        yield from (
            line.removeprefix("ctdeface: ") for line in last if line.startswith("ctdeface: ")
        )
