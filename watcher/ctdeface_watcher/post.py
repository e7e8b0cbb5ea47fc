"""The watcher's process: one per inbox, with everything it works with."""

import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace

from ctdeface_shared import logs
from ctdeface_shared.broker import open_broker
from ctdeface_shared.broker.protocols import Broker
from ctdeface_shared.cli import EXIT_OK
from ctdeface_shared.errors import StorageUnavailable
from ctdeface_shared.lifecycle import stop_on_signals
from ctdeface_shared.ownership import locked, sweep
from ctdeface_shared.settings import WatchMode
from ctdeface_shared.site import Site
from ctdeface_shared.tracing.start import traced
from ctdeface_shared.watcher_state import WATCHER_STATE
from ctdeface_watcher.desk import Post
from ctdeface_watcher.events import wakeups
from ctdeface_watcher.ledger import Ledger
from ctdeface_watcher.listener import NOBODY, Listener
from ctdeface_watcher.metrics import exported_metrics
from ctdeface_watcher.scan import Rules
from ctdeface_watcher.service import watch
from ctdeface_watcher.stability import Patience
from ctdeface_watcher.unzip import Limits

LOCK = "watcher"
STALE_SECONDS = 120.0
"""A watcher of another machine that showed no life for so long is gone."""
ENDING_SECONDS = 300.0
"""Within which a job that took too long has been ended."""
TURN_SECONDS = 1.0
"""How often a second watcher, which waits for its turn, sees whether it shall stop instead."""

_log = logs.logger(__name__)


def run_post(site: Site, metrics_port: int | None = None) -> int:
    """Watch the inbox of a service until stopped, and return the exit code.

    Raises:
        ConfigurationError: a folder, the queue or a setting must be put right first.
    """
    logs.configure()
    site.prepare()
    sweep(site.spool.locks, stale_seconds=site.settings.work.job_timeout + ENDING_SECONDS)
    with (
        stop_on_signals() as stop,
        exported_metrics(site, metrics_port) as listener,
        traced(site.settings.traces, "ctdeface-watcher") as tracer,
    ):
        while not stop.is_set():
            with ExitStack() as held:
                is_active = _wait_for_turn(site, stop, held)
                if is_active is not None:
                    ledger = held.enter_context(Ledger(site.state_dir))
                    broker = held.enter_context(closing(open_broker(site.queue)))
                    watch(replace(post_of(site, ledger, broker, stop, listener), is_active=is_active, tracer=tracer))
                    if not stop.is_set():
                        _log.warning("another_watcher_took_over")
    return EXIT_OK


def _wait_for_turn(site: Site, stop: threading.Event, held: ExitStack) -> Callable[[], bool] | None:
    """Become the active watcher of the inbox and return what tells whether it still is; None when stopped before."""
    told = False
    while not stop.is_set():
        try:
            return held.enter_context(locked(site.spool.locks, LOCK, stale_seconds=STALE_SECONDS, patience_seconds=TURN_SECONDS))
        except StorageUnavailable:
            if not told:
                _log.info("another_watcher_active")
            told = True
    return None


def post_of(site: Site, ledger: Ledger, broker: Broker, stop: threading.Event, listener: Listener = NOBODY) -> Post:
    """Put together what the watcher works with."""
    settings = site.settings.watch
    return Post(
        spool=site.spool,
        broker=broker,
        ledger=ledger,
        wakeups=wakeups(site.spool.inbox, polling=settings.mode is WatchMode.POLLING, depth=settings.case_depth),
        rules=Rules(case_depth=settings.case_depth, marker=settings.marker, ignore=settings.ignore),
        patience=Patience(quiet=settings.quiet_period, longest=settings.max_wait, marker_only=settings.marker_only),
        limits=Limits(files=settings.zip_files, bytes=round(settings.zip_gb * 1e9), ratio=settings.zip_ratio),
        options=site.settings.deface.options(),
        keeping=site.settings.spool,
        state_file=site.state_dir / WATCHER_STATE,
        rescan_seconds=settings.rescan_interval,
        max_unfinished=settings.max_unfinished,
        min_free_gb=site.settings.output.min_free_gb,
        stop=stop,
        longest_job_seconds=site.settings.work.job_timeout + ENDING_SECONDS,
        listener=listener,
    )
