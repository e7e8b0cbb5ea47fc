"""The watcher's metrics: a hook that counts its events."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ctdeface_shared.metrics.dependencies import Dependencies, error_codes, new_registry
from ctdeface_shared.metrics.endpoint import Address, serve_metrics
from ctdeface_shared.metrics.probe import Probe
from ctdeface_shared.settings.service import ServiceConfig
from ctdeface_shared.status.watcher_state import DISK, UNFINISHED_JOBS, WatcherState
from ctdeface_watcher.watch_events import EventKind, WatchEvent, WatchHook

SETTLE_SECONDS = (
    0.1,
    1.0,
    5.0,
    10.0,
    15.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
    1800.0,
    3600.0,
    14400.0,
    86400.0,
)
REASONS = {"disk": DISK, "unfinished_jobs": UNFINISHED_JOBS}
"""Label -> reason in the watcher's state."""
OTHER = "other"
PLACES = ("inbox", "taken", "reports")
"""Folders of the spool whose content a look examines one by one."""
_RESULTS = (
    EventKind.PUBLISHED,
    EventKind.KNOWN,
    EventKind.NEVER_SETTLED,
    EventKind.UNUSABLE,
)


class WatcherMetrics:
    """Counts the events of a watcher."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time) -> None:
        """Register every metric, with each of its labels at 0.

        Args:
            registry: registry of the process.
            clock: seconds since the epoch.
        """
        self._clock = clock
        self._codes = error_codes()
        self._oldest_open_at: float | None = None
        text = "Cases that were seen for the first time, or changed after they had been processed."
        self._drops = Counter("ctdeface_watcher_drops", text, registry=registry)
        text = "Cases that were processed, by result."
        self._results = Counter("ctdeface_watcher_cases", text, ["result"], registry=registry)
        text = "From the first sight of a case to its published job; pauses included."
        self._settle = Histogram(
            "ctdeface_watcher_settle_seconds", text, buckets=SETTLE_SECONDS, registry=registry
        )
        text = "Looks at the inbox that failed, by the code of the error."
        self._failures = Counter(
            "ctdeface_watcher_look_failures", text, ["code"], registry=registry
        )
        self._pending = Gauge(
            "ctdeface_watcher_pending_cases",
            "Cases that are not complete, or wait for their turn.",
            registry=registry,
        )
        self._open = Gauge(
            "ctdeface_watcher_open_jobs",
            "Jobs that were published and have not ended.",
            registry=registry,
        )
        text = "Time since the oldest open job was published; 0 without any."
        self._age = Gauge("ctdeface_watcher_oldest_open_job_age_seconds", text, registry=registry)
        text = "When the inbox was looked at last without an error; 0 before the first time."
        self._looked_at = Gauge(
            "ctdeface_watcher_last_look_timestamp_seconds", text, registry=registry
        )
        self._skipped = Gauge(
            "ctdeface_watcher_skipped",
            "Cases, reports and folders that the last look left out because of an error.",
            ["place"],
            registry=registry,
        )
        text = "Attempts at cases, reports and folders that failed, by the code of the error."
        self._skips = Counter("ctdeface_watcher_skips", text, ["code"], registry=registry)
        self._paused = Gauge(
            "ctdeface_watcher_paused",
            "1 while nothing is published for this reason.",
            ["reason"],
            registry=registry,
        )
        self._age.set_function(self._age_seconds)
        for result in _RESULTS:
            self._results.labels(result)
        for code in (*sorted(self._codes), OTHER):
            self._failures.labels(code)
            self._skips.labels(code)
        for place in PLACES:
            self._skipped.labels(place)
        for reason in REASONS:
            self._paused.labels(reason)
        self._has_looked, self._failed = False, False
        self._left_out = 0

    def watching(self) -> str | None:
        """Return why the watcher is not ready, for /readyz."""
        if self._failed:
            return "the last look at the inbox failed"
        return (
            None
            if self._has_looked
            else "no look at the inbox has ended yet: another watcher may be at work"
        )

    def left_out(self) -> str | None:
        """Return what was left out, for the warnings of /readyz."""
        if not self._left_out:
            return None
        return (
            f"{self._left_out} cases, reports or folders are left out because of errors, the "
            "others go on: ctdeface status names them"
        )

    def count(self, event: WatchEvent) -> None:
        """Count an event; this is the watcher's hook."""
        if event.kind is EventKind.LOOKED:
            self._looked(event.state, event.failed)
            return
        if event.kind is EventKind.SKIPPED:
            self._skips.labels(self._known(event.failed)).inc()
        elif event.kind is EventKind.DROPPED:
            self._drops.inc()
        else:
            self._results.labels(event.kind).inc()
        if event.kind is EventKind.PUBLISHED:
            self._settle.observe(event.settle_seconds)

    def _looked(self, state: WatcherState | None, failed: str | None) -> None:
        if state is not None:
            self._pending.set(len(state.waiting))
            self._open.set(state.open_jobs)
            self._oldest_open_at = state.oldest_open_at
            self._left_out = len(state.skipped) + len(state.unusable)
            for place in PLACES:
                of_place = sum(one.place == place for one in state.skipped)
                unusable = len(state.unusable) if place == "inbox" else 0
                self._skipped.labels(place).set(of_place + unusable)
            for label, reason in REASONS.items():
                self._paused.labels(label).set(state.paused == reason)
        self._failed = failed is not None
        if failed is None:
            self._has_looked = True
            self._looked_at.set(self._clock())
        else:
            self._failures.labels(self._known(failed)).inc()

    def _known(self, code: str | None) -> str:
        return code if code is not None and code in self._codes else OTHER

    def _age_seconds(self) -> float:
        return (
            0.0 if self._oldest_open_at is None else max(self._clock() - self._oldest_open_at, 0.0)
        )


@contextmanager
def exported_metrics(service: ServiceConfig, port: int | None) -> Iterator[WatchHook]:
    """Serve metrics during the block and yield the hook that counts events.

    Args:
        service: the service.
        port: port of the endpoint; None takes it from the settings, 0 serves nothing.

    Raises:
        ConfigurationError: the port is taken, or the address does not belong to this machine.
    """
    settings = service.settings.metrics
    registry = new_registry()
    metrics = WatcherMetrics(registry)
    dependencies = Dependencies(service, registry, counts_messages=True)
    checks = {**dependencies.checks(), "watching": metrics.watching}
    address = Address.of(settings, settings.watch_port if port is None else port)
    probe = Probe(checks, warnings={"skipped": metrics.left_out}, close=dependencies.close)
    with serve_metrics(address, registry, probe):
        yield metrics.count
