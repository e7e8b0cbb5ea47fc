"""The slots of one worker process: each a thread with a queue connection and a warm child of its own."""

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
from ctdeface_shared.exit_codes import EXIT_OK
from ctdeface_shared.lifecycle import boundary, limit_threads, stop_on_signals, threads_per_case
from ctdeface_shared.settings.service import ServiceConfig
from ctdeface_shared.storage.locks import sweep
from ctdeface_shared.tracing.spans import Tracer
from ctdeface_shared.tracing.start import traced
from ctdeface_worker.case.child_main import prepare
from ctdeface_worker.case.child_process import Run, WarmChild
from ctdeface_worker.case.run import CaseResources, Child
from ctdeface_worker.pipeline.result import CaseResult
from ctdeface_worker.pipeline.task import CaseTask
from ctdeface_worker.publishing.audit_entry import attest
from ctdeface_worker.publishing.commit import recover
from ctdeface_worker.publishing.originals import archive
from ctdeface_worker.publishing.outbox import OutputRules
from ctdeface_worker.report.model import CaseReport
from ctdeface_worker.segmentation.choice import segmenter_named
from ctdeface_worker.service.consumer import WorkerSlot, serve
from ctdeface_worker.service.metrics import exported_metrics
from ctdeface_worker.service.tracing import JobTrace

Pipeline: TypeAlias = Callable[[str], Run[CaseTask, CaseResult]]

_log = logs.logger(__name__)


def run_workers(
    service: ServiceConfig,
    processes: int | None,
    threads: int | None,
    pipeline: Pipeline | None = None,
    metrics_port: int | None = None,
) -> int:
    """Run the slots of a worker until it is stopped, and return the exit code.

    Args:
        site: where the service runs.
        processes: how many slots; None for the settings'.
        threads: of each slot; None for the settings', or a fair share of the cores.
        pipeline: makes a child ready, given the segmenter's name; must be importable. None is the
            real one.
        metrics_port: where metrics are served; None for the settings', 0 for nowhere.

    Raises:
        ConfigurationError: a folder, the queue or a setting must be put right first.
    """
    work = service.settings.work
    count = processes or work.jobs
    limit_threads(threads_per_case(count, threads or work.threads))
    logs.configure()
    segmenter_named(
        service.settings.deface.segmenter, service.settings.models.place
    )  # a wrong name shall be told before anything is taken
    service.prepare()
    find = partial(
        segmenter_named, service.settings.deface.segmenter, service.settings.models.place
    )
    with (
        # first: whoever is asked to end while it begins leaves no lock behind
        stop_on_signals() as stop,
        audit_log(
            service.spool, service.settings.audit, stale_seconds=service.settings.work.stale_seconds
        ) as log,
    ):
        recover(service.spool, _rules(service, log))
        for folder in (service.spool.staging, service.spool.work, service.spool.locks):
            sweep(folder, stale_seconds=service.settings.work.stale_seconds)
        with (
            exported_metrics(service, metrics_port, find) as metrics,
            traced(service.settings.traces, "ctdeface-worker") as tracer,
        ):
            log.heard = metrics.attested
            stations = [
                partial(
                    _traced, tracer, partial(worker_slot, service, f"slot-{n}", stop, pipeline, log)
                )
                for n in range(count)
            ]
            ends = _run(
                [partial(metrics.attended, worker_slot_) for worker_slot_ in stations], stop
            )
    for end in ends:
        if end is not None:
            raise end
    return EXIT_OK


def _run(
    slots: Sequence[Callable[[], WorkerSlot]], stop: threading.Event
) -> list[Exception | None]:
    """Run every slot in a thread until all have ended, and return how each ended."""
    ends: list[Exception | None] = []
    crew = [
        threading.Thread(target=_serve, args=(slot, stop, ends), name=f"slot-{n}", daemon=True)
        for n, slot in enumerate(slots)
    ]
    for thread in crew:
        thread.start()
    _log.info("worker_started")
    while at_work := [thread for thread in crew if thread.is_alive()]:
        at_work[0].join(timeout=0.2)  # a short wait, so that the main thread hears signals
    _log.info("worker_ended")
    return ends


def _serve(
    make_station: Callable[[], WorkerSlot], stop: threading.Event, ends: list[Exception | None]
) -> None:
    """Be one slot. One that ends on its own ends the worker: whoever supervises it starts all slots afresh."""
    end = boundary(lambda: serve(make_station()))
    ends.append(end)
    if not stop.is_set():
        _log.error("slot_ended", worker=threading.current_thread().name)
        stop.set()


def _traced(tracer: Tracer, make_station: Callable[[], WorkerSlot]) -> WorkerSlot:
    """Make a slot that tells how long its jobs take."""
    worker_slot_ = make_station()
    return replace(worker_slot_, observer=JobTrace(tracer, worker_slot_.name).observer())


def _put_away(service: ServiceConfig, log: AuditLog | None, report: CaseReport) -> bool:
    """Do what must be done before a visible case is done, and say whether its originals are still in the inbox.

    An entry in the audit log comes last.
    """
    left = archive(service.spool, report, service.settings.spool.originals)
    if log is not None:
        attest(log, service.spool, Outcome.QUARANTINED, report)
    return left


def _rules(service: ServiceConfig, log: AuditLog | None) -> OutputRules:
    settings = service.settings
    return OutputRules(
        folder_mode=settings.output.folder_mode,
        file_mode=settings.output.file_mode,
        group=settings.output.outbox_group,
        stale_seconds=service.settings.work.stale_seconds,
        before_done=partial(_put_away, service, log),
    )


def worker_slot(
    service: ServiceConfig,
    name: str,
    stop: threading.Event,
    pipeline: Pipeline | None = None,
    log: AuditLog | None = None,
) -> WorkerSlot:
    """Put together what one slot works with; without an audit log nothing is attested (tests)."""
    settings = service.settings
    resources = CaseResources(
        spool=service.spool,
        rules=_rules(service, log),
        settings=settings,
        child=_child(service, pipeline),
    )
    if log is not None:
        resources = replace(
            resources, attest=partial(attest, log, service.spool, Outcome.QUARANTINED)
        )
    return WorkerSlot(
        name=name,
        broker=open_broker(service.queue),
        resources=resources,
        spool=service.spool,
        originals=settings.spool.originals,
        rule=RetryRule(
            max_attempts=settings.work.max_attempts, delays_seconds=service.queue.retry_delays
        ),
        stop=stop,
    )


def _child(service: ServiceConfig, pipeline: Pipeline | None) -> Child:
    settings = service.settings
    return WarmChild(
        partial(
            pipeline or partial(prepare, models=settings.models.place), settings.deface.segmenter
        )
    )
