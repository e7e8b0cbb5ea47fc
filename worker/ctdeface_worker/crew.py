"""The slots of one worker process: each a thread with a queue connection and a warm child of its own."""

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from ctdeface_shared import logs
from ctdeface_shared.audit.entry import Outcome
from ctdeface_shared.audit.writer import AuditLog, audit_log
from ctdeface_shared.broker import open_broker
from ctdeface_shared.broker.settlement import RetryRule
from ctdeface_shared.cli import EXIT_OK
from ctdeface_shared.lifecycle import boundary, stop_on_signals
from ctdeface_shared.ownership import sweep
from ctdeface_shared.site import Site
from ctdeface_shared.tracing.spans import Tracer
from ctdeface_shared.tracing.start import traced
from ctdeface_worker.attempt import Bench, Child
from ctdeface_worker.attestation import attest
from ctdeface_worker.child import prepare
from ctdeface_worker.executor import Run, WarmChild
from ctdeface_worker.metrics import exported_metrics
from ctdeface_worker.originals import archive
from ctdeface_worker.outbox import OutputRules
from ctdeface_worker.publishing import recover
from ctdeface_worker.report.model import CaseReport
from ctdeface_worker.result import CaseResult
from ctdeface_worker.segmentation.choice import segmenter_named
from ctdeface_worker.service import Station, serve
from ctdeface_worker.task import CaseTask
from ctdeface_worker.traces import JobTrace

Pipeline: TypeAlias = Callable[[str], Run[CaseTask, CaseResult]]

GRACE_SECONDS = 300.0
"""Folders that nobody touched for the job timeout and this long are abandoned."""

_log = logs.logger(__name__)


def run_crew(
    site: Site, processes: int | None, threads: int | None, pipeline: Pipeline | None = None, metrics_port: int | None = None
) -> int:
    """Run the slots of a worker until it is stopped, and return the exit code.

    Args:
        site: where the service runs.
        processes: how many slots; None for the settings'.
        threads: of each slot; None for the settings', or a fair share of the cores.
        pipeline: makes a child ready, given the segmenter's name; must be importable. None is the real one.
        metrics_port: where metrics are served; None for the settings', 0 for nowhere.

    Raises:
        ConfigurationError: a folder, the queue or a setting must be put right first.
    """
    work = site.settings.work
    count = processes or work.jobs
    each = threads or work.threads or max((os.cpu_count() or 1) // count, 1)
    os.environ.update({name: str(each) for name in ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")})
    logs.configure()
    segmenter_named(site.settings.deface.segmenter, site.settings.models.place)  # a wrong name shall be told before anything is taken
    site.prepare()
    find = partial(segmenter_named, site.settings.deface.segmenter, site.settings.models.place)
    with (
        stop_on_signals() as stop,  # first: whoever is asked to end while it begins leaves no lock behind
        audit_log(site.spool, site.settings.audit, stale_seconds=_stale_seconds(site)) as log,
    ):
        recover(site.spool, _rules(site, log))
        for folder in (site.spool.staging, site.spool.work, site.spool.locks):
            sweep(folder, stale_seconds=_stale_seconds(site))
        with (
            exported_metrics(site, metrics_port, find) as metrics,
            traced(site.settings.traces, "ctdeface-worker") as tracer,
        ):
            log.heard = metrics.attested
            stations = [partial(_traced, tracer, partial(station_of, site, f"slot-{n}", stop, pipeline, log)) for n in range(count)]
            ends = _run([partial(metrics.attended, station) for station in stations], stop)
    for end in ends:
        if end is not None:
            raise end
    return EXIT_OK


def _run(slots: Sequence[Callable[[], Station]], stop: threading.Event) -> list[Exception | None]:
    """Run every slot in a thread until all have ended, and return how each ended."""
    ends: list[Exception | None] = []
    crew = [threading.Thread(target=_serve, args=(slot, stop, ends), name=f"slot-{n}", daemon=True) for n, slot in enumerate(slots)]
    for thread in crew:
        thread.start()
    _log.info("worker_started")
    while at_work := [thread for thread in crew if thread.is_alive()]:
        at_work[0].join(timeout=0.2)  # a short wait, so that the main thread hears signals
    _log.info("worker_ended")
    return ends


def _serve(make_station: Callable[[], Station], stop: threading.Event, ends: list[Exception | None]) -> None:
    """Be one slot. One that ends on its own ends the worker: whoever supervises it starts all slots afresh."""
    end = boundary(lambda: serve(make_station()))
    ends.append(end)
    if not stop.is_set():
        _log.error("slot_ended", worker=threading.current_thread().name)
        stop.set()


def _traced(tracer: Tracer, make_station: Callable[[], Station]) -> Station:
    """Make a slot that tells how long its jobs take."""
    station = make_station()
    return replace(station, listener=JobTrace(tracer, station.name).listener())


def _put_away(site: Site, log: AuditLog | None, report: CaseReport) -> bool:
    """Do what must be done before a visible case is done, and say whether its originals are still in the inbox.

    An entry in the audit log comes last.
    """
    left = archive(site.spool, report, site.settings.spool.originals)
    if log is not None:
        attest(log, site.spool, Outcome.QUARANTINED, report)
    return left


def _stale_seconds(site: Site) -> float:
    return site.settings.work.job_timeout + GRACE_SECONDS


def _rules(site: Site, log: AuditLog | None) -> OutputRules:
    settings = site.settings
    return OutputRules(
        folder_mode=settings.output.folder_mode,
        file_mode=settings.output.file_mode,
        group=settings.output.outbox_group,
        stale_seconds=_stale_seconds(site),
        before_done=partial(_put_away, site, log),
    )


def station_of(site: Site, name: str, stop: threading.Event, pipeline: Pipeline | None = None, log: AuditLog | None = None) -> Station:
    """Put together what one slot works with; without an audit log nothing is attested (tests)."""
    settings = site.settings
    bench = Bench(spool=site.spool, rules=_rules(site, log), settings=settings, child=_child(site, pipeline))
    if log is not None:
        bench = replace(bench, attest=partial(attest, log, site.spool, Outcome.QUARANTINED))
    return Station(
        name=name,
        broker=open_broker(site.queue),
        bench=bench,
        spool=site.spool,
        originals=settings.spool.originals,
        rule=RetryRule(max_attempts=settings.work.max_attempts, delays_seconds=site.queue.retry_delays),
        stop=stop,
    )


def _child(site: Site, pipeline: Pipeline | None) -> Child:
    settings = site.settings
    return WarmChild(partial(pipeline or partial(prepare, models=settings.models.place), settings.deface.segmenter))
