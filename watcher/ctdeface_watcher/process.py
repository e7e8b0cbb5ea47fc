"""The watcher's process: one per inbox, with everything it works with."""

import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace

from ctdeface_shared import logs
from ctdeface_shared.broker import open_broker
from ctdeface_shared.broker.protocols import Broker
from ctdeface_shared.errors import StorageUnavailable
from ctdeface_shared.exit_codes import EXIT_OK
from ctdeface_shared.lifecycle import stop_on_signals
from ctdeface_shared.settings.sections import WatchMode
from ctdeface_shared.settings.service import ServiceConfig
from ctdeface_shared.status.watcher_state import WATCHER_STATE
from ctdeface_shared.storage.locks import (
    MISSED_HEARTBEATS_SECONDS,
    WATCHER_LOCK,
    locked,
    sweep,
)
from ctdeface_shared.tracing.start import traced
from ctdeface_watcher.context import WatcherContext
from ctdeface_watcher.inbox.events import wakeups
from ctdeface_watcher.inbox.scan import InboxRules
from ctdeface_watcher.inbox.stability import SettleTimes
from ctdeface_watcher.inbox.unzip import ZipLimits
from ctdeface_watcher.jobs.ledger import Ledger
from ctdeface_watcher.metrics import exported_metrics
from ctdeface_watcher.observer import NO_OBSERVER, Observer
from ctdeface_watcher.service import watch

TURN_SECONDS = 1.0
"""How often a second watcher, which waits for its turn, sees whether it shall stop instead."""

_log = logs.logger(__name__)


def run_watcher(service: ServiceConfig, metrics_port: int | None = None) -> int:
    """Watch the inbox of a service until stopped, and return the exit code.

    Raises:
        ConfigurationError: a folder, the queue or a setting must be put right first.
    """
    logs.configure()
    service.prepare()
    sweep(service.spool.locks, stale_seconds=service.settings.work.stale_seconds)
    with (
        stop_on_signals() as stop,
        exported_metrics(service, metrics_port) as observer,
        traced(service.settings.traces, "ctdeface-watcher") as tracer,
    ):
        while not stop.is_set():
            with ExitStack() as held:
                is_active = _wait_for_turn(service, stop, held)
                if is_active is not None:
                    ledger = held.enter_context(Ledger(service.state_dir))
                    broker = held.enter_context(closing(open_broker(service.queue)))
                    watch(
                        replace(
                            post_of(service, ledger, broker, stop, observer),
                            is_active=is_active,
                            tracer=tracer,
                        )
                    )
                    if not stop.is_set():
                        _log.warning("another_watcher_took_over")
    return EXIT_OK


def _wait_for_turn(
    service: ServiceConfig, stop: threading.Event, held: ExitStack
) -> Callable[[], bool] | None:
    """Become the active watcher of the inbox and return what tells whether it still is; None when stopped before."""
    told = False
    while not stop.is_set():
        try:
            return held.enter_context(
                locked(
                    service.spool.locks,
                    WATCHER_LOCK,
                    stale_seconds=MISSED_HEARTBEATS_SECONDS,
                    patience_seconds=TURN_SECONDS,
                )
            )
        except StorageUnavailable:
            if not told:
                _log.info("another_watcher_active")
            told = True
    return None


def post_of(
    service: ServiceConfig,
    ledger: Ledger,
    broker: Broker,
    stop: threading.Event,
    observer: Observer = NO_OBSERVER,
) -> WatcherContext:
    """Put together what the watcher works with."""
    settings = service.settings.watch
    return WatcherContext(
        spool=service.spool,
        broker=broker,
        ledger=ledger,
        wakeups=wakeups(
            service.spool.inbox,
            polling=settings.mode is WatchMode.POLLING,
            depth=settings.case_depth,
        ),
        rules=InboxRules(
            case_depth=settings.case_depth, marker=settings.marker, ignore=settings.ignore
        ),
        patience=SettleTimes(
            quiet=settings.quiet_period, longest=settings.max_wait, marker_only=settings.marker_only
        ),
        limits=ZipLimits(
            files=settings.zip_files, bytes=round(settings.zip_gb * 1e9), ratio=settings.zip_ratio
        ),
        options=service.settings.deface.options(),
        keeping=service.settings.spool,
        state_file=service.state_dir / WATCHER_STATE,
        rescan_seconds=settings.rescan_interval,
        max_unfinished=settings.max_unfinished,
        min_free_gb=service.settings.output.min_free_gb,
        stop=stop,
        longest_job_seconds=service.settings.work.stale_seconds,
        observer=observer,
    )
