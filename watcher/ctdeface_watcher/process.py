"""The watcher's process; a second one per inbox waits."""

import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass

from ctdeface_shared import logs
from ctdeface_shared.broker import open_broker
from ctdeface_shared.broker.protocols import Broker
from ctdeface_shared.errors import StorageUnavailable
from ctdeface_shared.exit_codes import EXIT_OK
from ctdeface_shared.jobs.options import Originals
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
from ctdeface_shared.tracing.spans import Tracer
from ctdeface_shared.tracing.start import open_tracer
from ctdeface_watcher.inbox.events import wakeups
from ctdeface_watcher.inbox.examine import ExamineRules
from ctdeface_watcher.inbox.scan import InboxRules
from ctdeface_watcher.inbox.stability import SettleTimes
from ctdeface_watcher.inbox.unzip import ZipLimits
from ctdeface_watcher.jobs.ledger import Ledger
from ctdeface_watcher.jobs.publish import Publisher
from ctdeface_watcher.jobs.taken_cases import Examiner
from ctdeface_watcher.metrics import exported_metrics
from ctdeface_watcher.service import Watcher, WatchRules, watch
from ctdeface_watcher.watch_events import WatchHook

TURN_SECONDS = 1.0
"""How often a waiting watcher checks whether it was asked to stop."""

_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The resources of the active watcher.

    Attributes:
        ledger: the jobs that were published.
        broker: the queue.
        is_active: tells whether this process is still the active watcher of the inbox.
    """

    ledger: Ledger
    broker: Broker
    is_active: Callable[[], bool]


def run_watcher(service: ServiceConfig, metrics_port: int | None = None) -> int:
    """Watch a service's inbox until stopped; return the exit code.

    Raises:
        ConfigurationError: a folder, the queue or a setting must be corrected first.
    """
    logs.configure()
    service.prepare()
    sweep(service.spool.locks, stale_seconds=service.settings.work.stale_seconds)
    with (
        stop_on_signals() as stop,
        exported_metrics(service, metrics_port) as hook,
        open_tracer(service.settings.traces.endpoint, "ctdeface-watcher") as tracer,
    ):
        while not stop.is_set():
            with ExitStack() as held:
                is_active = _wait_for_turn(service, stop, held)
                if is_active is not None:
                    turn = Turn(
                        ledger=held.enter_context(Ledger(service.state_dir)),
                        broker=held.enter_context(closing(open_broker(service.queue))),
                        is_active=is_active,
                    )
                    watch(build_watcher(service, turn, (hook,), tracer), stop)
                    if not stop.is_set():
                        _log.warning("another_watcher_took_over")
    return EXIT_OK


def _wait_for_turn(
    service: ServiceConfig, stop: threading.Event, held: ExitStack
) -> Callable[[], bool] | None:
    """Become the active watcher of the inbox.

    Returns:
        A function that tells whether this process still is; None if stopped before.
    """
    is_logged = False
    while not stop.is_set():
        try:
            return held.enter_context(
                locked(
                    service.spool.locks,
                    WATCHER_LOCK,
                    stale_seconds=MISSED_HEARTBEATS_SECONDS,
                    wait_seconds=TURN_SECONDS,
                )
            )
        except StorageUnavailable:
            if not is_logged:
                _log.info("another_watcher_active")
            is_logged = True
    return None


def build_watcher(
    service: ServiceConfig, turn: Turn, hooks: tuple[WatchHook, ...], tracer: Tracer
) -> Watcher:
    """Return the watcher that the settings describe."""
    settings = service.settings.watch
    inbox = InboxRules(
        case_depth=settings.case_depth,
        marker=settings.marker,
        ignore=settings.ignore,
        depth=service.settings.limits.depth,
        most=2 * service.settings.limits.files + 2,
    )
    originals, options = service.settings.spool.originals, service.settings.deface.options()
    min_free_gb = service.settings.output.min_free_gb
    tree_limits = service.settings.limits.tree()
    zip_limits = ZipLimits(
        files=settings.zip_files, bytes=round(settings.zip_gb * 1e9), ratio=settings.zip_ratio
    )
    return Watcher(
        rules=WatchRules(
            inbox=inbox,
            settle=SettleTimes(
                quiet=settings.quiet_period,
                longest=settings.max_wait,
                marker_only=settings.marker_only,
            ),
            moves=originals is not Originals.KEEP,
            rescan_seconds=settings.rescan_interval,
            max_unfinished=settings.max_unfinished,
            min_free_gb=min_free_gb,
            retention=service.settings.spool,
            longest_job_seconds=service.settings.work.stale_seconds,
        ),
        spool=service.spool,
        broker=turn.broker,
        ledger=turn.ledger,
        publisher=Publisher(
            spool=service.spool,
            broker=turn.broker,
            ledger=turn.ledger,
            rules=inbox,
            limits=tree_limits,
            options=options,
            originals=originals,
            is_active=turn.is_active,
            tracer=tracer,
        ),
        examiner=Examiner(
            ExamineRules(
                inbox=service.spool.inbox,
                limits=tree_limits,
                zips=zip_limits,
                min_free_gb=min_free_gb,
            )
        ),
        wakeups=wakeups(
            service.spool.inbox,
            polling=settings.mode is WatchMode.POLLING,
            depth=settings.case_depth,
        ),
        state_file=service.state_dir / WATCHER_STATE,
        hooks=hooks,
        is_active=turn.is_active,
    )
