"""The status of a service: its spool, queue, watcher and disks, with warnings."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from ctdeface_shared.broker import open_broker
from ctdeface_shared.broker.protocols import Depth
from ctdeface_shared.broker.target import file_of, masked, split
from ctdeface_shared.errors import CtDefaceError
from ctdeface_shared.settings.service import ServiceConfig
from ctdeface_shared.status.spool_status import SpoolScanner, SpoolStatus
from ctdeface_shared.status.text import duration, refused_lines, retry_lines, spool_lines
from ctdeface_shared.status.watcher_state import WATCHER_STATE, WatcherState, read_watcher_state
from ctdeface_shared.storage.disk import FreeSpace
from ctdeface_shared.storage.locks import MISSED_HEARTBEATS_SECONDS, WATCHER_LOCK, is_held
from ctdeface_shared.storage.skipped import Skipped, attempt

SCANS_MISSED = 3
"""A watcher that has not scanned for this many intervals needs a person's attention."""
NAMES_SHOWN = 5
"""Maximum number of names in one warning."""
_WAYS_TO_WAIT = {
    "disk": "less than output.min_free_gb is free: make space",
    "unfinished jobs": "watch.max_unfinished jobs have not ended: start workers, or wait for them",
}
"""What `WatcherState.paused` means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """A service at one moment.

    Attributes:
        root: folder of the spool.
        spool: state of the cases.
        queue_url: without its password.
        queue: number of jobs by state; None if the queue cannot be reached.
        queue_error: why the queue cannot be reached; empty if it can.
        watcher: the watcher's last scan; None if there is none on this machine.
        watcher_age_seconds: time since that scan.
        watcher_runs: whether a watcher is running, here or on another machine.
        disks: free space by file system.
        warnings: sentences about what needs a person's attention.
    """

    root: Path
    spool: SpoolStatus
    queue_url: str
    queue: Depth | None = None
    queue_error: str = ""
    watcher: WatcherState | None = None
    watcher_age_seconds: float = 0.0
    watcher_runs: bool = False
    disks: tuple[FreeSpace, ...] = ()
    warnings: tuple[str, ...] = ()

    def as_plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "spool": str(self.root),
            **self.spool.as_plain(),
            "queue": {
                "url": self.queue_url,
                "silent": self.queue_error or None,
                **(asdict(self.queue) if self.queue else {}),
            },
            "watcher": self._plain_watcher(),
            "free_gb": {disk.place: round(disk.free_gb, 1) for disk in self.disks},
            "warnings": list(self.warnings),
        }

    def _plain_watcher(self) -> dict[str, Any] | None:
        if self.watcher is None:
            return None
        # the watcher looks at empty folders, too; they do not count until they hold a file
        waiting = [name for name in self.watcher.waiting if name not in self.spool.empty]
        return {
            **asdict(self.watcher),
            "waiting": waiting,
            "age_seconds": round(self.watcher_age_seconds, 1),
            "runs": self.watcher_runs,
        }


def service_status(service: ServiceConfig, now: float) -> ServiceStatus:
    """Examine a service; nothing is changed or created.

    Args:
        service: the service.
        now: seconds since the epoch.

    Raises:
        OSError: the free space cannot be measured.
    """
    watch = service.settings.watch
    queue, queue_error = _queue_depth(service)
    watcher, unknown = _watcher_of(service)
    age = max(now - datetime.fromisoformat(watcher.looked_at).timestamp(), 0.0) if watcher else 0.0
    scanner = SpoolScanner(service.spool, case_depth=watch.case_depth, ignore=watch.ignore)
    status = ServiceStatus(
        root=service.spool.reports.parent,
        spool=scanner.look(now, watcher.kept if watcher else ()),
        queue_url=masked(service.queue.url),
        queue=queue,
        queue_error=queue_error,
        watcher=watcher,
        watcher_age_seconds=age,
        watcher_runs=_watcher_runs(service, unknown),
        disks=service.free_space(),
    )
    warnings = (
        *_queue_warnings(status),
        *_watcher_warnings(status, SCANS_MISSED * watch.rescan_interval),
        *inbox_warnings(status.spool, watcher),
        *skip_warnings((*status.spool.skipped, *unknown), watcher),
        *disk_warnings(status.disks),
    )
    return replace(status, warnings=warnings)


def status_lines(status: ServiceStatus, limit: int = 10) -> tuple[str, ...]:
    """Return a status as lines for a person, with the newest refused cases.

    Args:
        status: the status.
        limit: maximum number of refused cases.
    """
    waiting, in_flight, released, refused = spool_lines(status.spool)
    free = ", ".join(f"{disk.free_gb:.1f} GB free at {disk.place}" for disk in status.disks)
    return (
        f"spool           {status.root}",
        waiting,
        in_flight,
        *retry_lines(status.spool),
        released,
        refused,
        *refused_lines(status.spool, limit),
        f"queue           {_queue_text(status)}",
        f"watcher         {_watcher_text(status)}",
        f"disk            {free}",
        *(f"warning: {warning}" for warning in status.warnings),
        *_note_lines(status.watcher),
    )


def inbox_warnings(spool: SpoolStatus, watcher: WatcherState | None) -> Iterator[str]:
    """Yield what a person should do about the content of the inbox."""
    if watcher and watcher.paused:
        meaning = _WAYS_TO_WAIT.get(watcher.paused)
        reason = f"{watcher.paused}: {meaning}" if meaning else watcher.paused
        yield f"the watcher publishes nothing now: {reason}"
    if spool.empty:
        yield _about(spool.empty, "no file: copy a case into it, or remove it", "holds")
    if watcher is None:
        return
    if watcher.strays:
        yield _about(
            watcher.strays, "loose in the inbox: put the files of a case into a folder", "is"
        )
    if watcher.never_settled:
        names = tuple(watcher.never_settled)
        text = "not complete after watch.max_wait: finish or remove the copy"
        yield _about(names, text, "is")
    for name, reason in list(watcher.unusable.items())[:NAMES_SHOWN]:
        yield f"{name} cannot be used: {reason}"


def _note_lines(watcher: WatcherState | None) -> Iterator[str]:
    """Yield what became of the newest drops that did not become the case of their name."""
    notes = list(watcher.notes.items()) if watcher else []
    yield from (f"note: {name} {text}" for name, text in notes[-NAMES_SHOWN:])


def skip_warnings(seen: Sequence[Skipped], watcher: WatcherState | None) -> Iterator[str]:
    """Yield what could not be examined, by name and with the reason.

    Args:
        seen: what this look at the spool left out.
        watcher: the watcher's last scan, which may have left out other things.
    """
    found = (*seen, *(watcher.skipped if watcher else ()))
    lines = dict.fromkeys(one.line for one in found)
    yield from list(lines)[:NAMES_SHOWN]
    if len(lines) > NAMES_SHOWN:
        yield f"{len(lines) - NAMES_SHOWN} more were left out: ctdeface status --json names them"


def disk_warnings(disks: tuple[FreeSpace, ...]) -> Iterator[str]:
    """Yield a warning for each file system with less than the required free space."""
    return (disk.shortage for disk in disks if not disk.is_enough)


def _about(names: tuple[str, ...], text: str, verb: str) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    plural = {"is": "are", "holds": "hold"}[verb]
    return f"{', '.join(names[:NAMES_SHOWN])}{more} {verb if len(names) == 1 else plural} {text}"


def _queue_text(status: ServiceStatus) -> str:
    queue = status.queue
    if queue is None:
        return status.queue_error
    held = "" if queue.held is None else f"{queue.held} held, "
    return f"{queue.ready} ready, {held}{queue.delayed} delayed, {queue.dead} dead"


def _watcher_text(status: ServiceStatus) -> str:
    watcher = status.watcher
    if watcher is None:
        return "runs on another machine" if status.watcher_runs else "not running"
    text = f"scanned {duration(status.watcher_age_seconds)} ago, {watcher.open_jobs} jobs open"
    if watcher.oldest_open_at is not None:
        text += f", the oldest for {duration(max(status.spool.at - watcher.oldest_open_at, 0.0))}"
    return text if status.watcher_runs else f"not running; {text}"


def _watcher_of(service: ServiceConfig) -> tuple[WatcherState | None, list[Skipped]]:
    """Return the watcher's last scan, and what of it cannot be read."""
    read = partial(read_watcher_state, service.state_dir / WATCHER_STATE)
    found = attempt("state", WATCHER_STATE, read)
    return (None, [found]) if isinstance(found, Skipped) else (found, [])


def _watcher_runs(service: ServiceConfig, unknown: list[Skipped]) -> bool:
    """Return whether a watcher runs; add its lock to what cannot be read."""
    lock = service.spool.locks / WATCHER_LOCK
    found = attempt("locks", WATCHER_LOCK, partial(is_held, lock, MISSED_HEARTBEATS_SECONDS))
    if isinstance(found, Skipped):
        unknown.append(found)
        return False
    return found


def _queue_depth(service: ServiceConfig) -> tuple[Depth | None, str]:
    """Return the depth of the queue, or None and the reason."""
    if split(service.queue.url).scheme == "sqlite" and not file_of(service.queue.url).exists():
        return None, "not created yet on this machine"
    try:
        broker = open_broker(service.queue)
        try:
            return broker.depth(), ""
        finally:
            broker.close()
    except CtDefaceError as error:
        return None, f"not reachable: {error}"


def _queue_warnings(status: ServiceStatus) -> Iterator[str]:
    if status.queue and status.queue.dead:
        yield (
            f"the queue gave up {status.queue.dead} messages: "
            "ctdeface replay --dead --dry-run shows them"
        )


def _watcher_warnings(status: ServiceStatus, longest_seconds: float) -> Iterator[str]:
    age = status.watcher_age_seconds
    if not status.watcher_runs:
        if status.watcher or (status.spool.oldest_waiting_seconds or 0.0) > longest_seconds:
            yield "no watcher is running: start ctdeface up or ctdeface watch"
    elif status.watcher and age > longest_seconds:
        yield (
            f"the watcher has not scanned for {duration(age)}, "
            f"at most {duration(longest_seconds)} are expected: see its log"
        )
