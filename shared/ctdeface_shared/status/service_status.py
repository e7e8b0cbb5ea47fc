"""How a service stands, put together from its spool, its queue, its watcher and its disks; what cannot be asked is said, and no failure."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ctdeface_shared.broker import open_broker
from ctdeface_shared.broker.protocols import Depth
from ctdeface_shared.broker.target import file_of, masked, split
from ctdeface_shared.errors import CtDefaceError
from ctdeface_shared.settings.service import ServiceConfig
from ctdeface_shared.status.spool_status import SpoolScanner, SpoolStatus, duration, lines
from ctdeface_shared.status.watcher_state import WATCHER_STATE, WatcherState, read_watcher_state

_GIGABYTE = 1e9
LOOKS_MISSED = 3
"""A watcher that did not look for so many rescans is not there any more."""
SHOWN = 5
"""Names in one warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """A service at one moment.

    Attributes:
        root: folder of the spool.
        survey: where the cases are.
        queue_url: without its password.
        queue: how many jobs lie where; None when it could not be asked.
        queue_silent: why not.
        watcher: its last look; None when nothing is known here.
        watcher_age_seconds: since then.
        free_gb: by place, where less than needed may be free.
        warnings: a sentence for each thing that a person should look at.
    """

    root: Path
    spool_status: SpoolStatus
    queue_url: str
    queue: Depth | None = None
    queue_silent: str = ""
    watcher: WatcherState | None = None
    watcher_age_seconds: float = 0.0
    free_gb: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def as_plain(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "spool": str(self.root),
            **self.spool_status.as_plain(),
            "queue": {
                "url": self.queue_url,
                "silent": self.queue_silent or None,
                **(asdict(self.queue) if self.queue else {}),
            },
            "watcher": {**asdict(self.watcher), "age_seconds": round(self.watcher_age_seconds, 1)}
            if self.watcher
            else None,
            "free_gb": {place: round(free, 1) for place, free in self.free_gb.items()},
            "warnings": list(self.warnings),
        }


def take_overview(service: ServiceConfig, now: float) -> ServiceStatus:
    """Look at everything once; nothing is changed or made.

    Args:
        site: which service.
        now: seconds since the epoch.

    Raises:
        OSError: the spool cannot be read.
    """
    watch = service.settings.watch
    queue, silent = _ask_queue(service)
    watcher = read_watcher_state(service.state_dir / WATCHER_STATE)
    age = max(now - datetime.fromisoformat(watcher.looked_at).timestamp(), 0.0) if watcher else 0.0
    seen = ServiceStatus(
        root=service.spool.reports.parent,
        spool_status=SpoolScanner(
            service.spool, case_depth=watch.case_depth, ignore=watch.ignore
        ).look(now),
        queue_url=masked(service.queue.url),
        queue=queue,
        queue_silent=silent,
        watcher=watcher,
        watcher_age_seconds=age,
        free_gb={
            name: shutil.disk_usage(there).free / _GIGABYTE for name, there in _places(service)
        },
    )
    least, patience = service.settings.output.min_free_gb, LOOKS_MISSED * watch.rescan_interval
    warnings = (*_about_queue(seen), *_about_watcher(seen, patience), *_about_disks(seen, least))
    return replace(seen, warnings=warnings)


def describe(status: ServiceStatus, limit: int = 10) -> tuple[str, ...]:
    """Describe it for a person, one thing per line; of the refused cases the newest so many."""
    queue, watcher = status.queue, status.watcher
    held = "" if queue is None or queue.held is None else f"{queue.held} held, "
    depth = (
        f"{queue.ready} ready, {held}{queue.delayed} delayed, {queue.dead} dead"
        if queue
        else status.queue_silent
    )
    last = (
        f"looked {duration(status.watcher_age_seconds)} ago"
        if watcher
        else "no look is noted here: it runs elsewhere, or never ran"
    )
    opened = f", {watcher.open_jobs} jobs open" if watcher else ""
    if watcher and watcher.oldest_open_at is not None:
        opened += f", the oldest for {duration(max(status.spool_status.at - watcher.oldest_open_at, 0.0))}"
    free = ", ".join(f"{value:.1f} GB free at {place}" for place, value in status.free_gb.items())
    return (
        f"spool           {status.root}",
        *lines(status.spool_status, limit),
        f"queue           {depth}",
        f"watcher         {last}{opened}",
        f"disk            {free}",
        *(f"warning: {warning}" for warning in status.warnings),
    )


def _ask_queue(service: ServiceConfig) -> tuple[Depth | None, str]:
    if split(service.queue.url).scheme == "sqlite" and not file_of(service.queue.url).exists():
        return None, "not made yet on this machine"
    try:
        broker = open_broker(service.queue)
        try:
            return broker.depth(), ""
        finally:
            broker.close()
    except CtDefaceError as error:
        return None, f"not reachable: {error}"


def _places(service: ServiceConfig) -> Iterator[tuple[str, Path]]:
    """Yield places that exist, one for each file system."""
    devices: set[int] = set()
    for name, folder in (
        ("outbox", service.spool.outbox),
        ("work", service.spool.work),
        ("state", service.state_dir),
    ):
        if folder.is_dir() and folder.stat().st_dev not in devices:
            devices.add(folder.stat().st_dev)
            yield name, folder


def _about_queue(seen: ServiceStatus) -> Iterator[str]:
    if seen.queue and seen.queue.dead:
        yield f"the queue gave up {seen.queue.dead} messages: see ctdeface replay --dead --dry-run"


def _about_watcher(seen: ServiceStatus, patience: float) -> Iterator[str]:
    state = seen.watcher
    if state is None:
        if (seen.spool_status.oldest_waiting_seconds or 0.0) > patience:
            yield "cases are waiting, and no watcher is known here: is ctdeface watch running?"
        return
    if seen.watcher_age_seconds > patience:
        yield f"the watcher has not looked for {duration(seen.watcher_age_seconds)}: is it running?"
    if state.paused:
        yield f"the watcher publishes nothing now: {state.paused}"
    for names, what in (
        (state.strays, "lie in the inbox and are no cases"),
        (tuple(state.never_settled), "never became complete and are left alone"),
        (tuple(f"{name} ({why})" for name, why in state.unusable.items()), "cannot be used"),
    ):
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            yield f"{', '.join(names[:SHOWN])}{more} {what}"


def _about_disks(seen: ServiceStatus, least_gb: float) -> Iterator[str]:
    for place, free in seen.free_gb.items():
        if free < least_gb:
            yield f"only {free:.1f} GB are free at {place}, less than output.min_free_gb ({least_gb:g}): nothing new is begun"
