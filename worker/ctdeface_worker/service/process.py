"""Worker process with a thread for each slot."""

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
from ctdeface_shared.lifecycle import (
    boundary,
    limit_threads,
    notify,
    stop_on_signals,
    threads_per_case,
)
from ctdeface_shared.settings.memory import with_memory_share
from ctdeface_shared.settings.service import ServiceConfig
from ctdeface_shared.storage.locks import sweep
from ctdeface_shared.tracing.spans import Tracer
from ctdeface_shared.tracing.start import open_tracer
from ctdeface_worker.case.child_main import prepare
from ctdeface_worker.case.child_process import Run, WarmChild
from ctdeface_worker.case.run import Child
from ctdeface_worker.pipeline.result import CaseResult
from ctdeface_worker.pipeline.task import CaseTask
from ctdeface_worker.publishing.audit_entry import attest
from ctdeface_worker.publishing.commit import recover
from ctdeface_worker.publishing.outbox import OutputRules
from ctdeface_worker.segmentation.choice import segmenter_named
from ctdeface_worker.service.case_ends import CaseEnds, case_resources
from ctdeface_worker.service.consumer import WorkerSlot, serve
from ctdeface_worker.service.job_log import log_hook
from ctdeface_worker.service.metrics import WorkerMetrics, exported_metrics
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
    """Run a worker until stopped and return its exit code.

    Args:
        service: folders, queue and settings.
        processes: number of slots; None for the setting.
        threads: threads of each slot; None for the setting, or a fair share of the cores.
        pipeline: prepares a child, given the segmenter's name; must be importable. None for the
            real one.
        metrics_port: where metrics are served; None for the setting, 0 for not at all.

    Raises:
        ConfigurationError: a folder, the queue or a setting must be corrected first.
    """
    count = processes or service.settings.work.jobs
    service = replace(service, settings=with_memory_share(service.settings, count))
    settings, spool = service.settings, service.spool
    stale_seconds = settings.work.stale_seconds
    limit_threads(threads_per_case(count, threads or settings.work.threads))
    logs.configure()
    find = partial(segmenter_named, settings.deface.segmenter, settings.models.place)
    find()  # report a wrong name before any job is taken
    service.prepare()
    with (
        # First, so that a worker that is stopped while it starts leaves no lock behind.
        stop_on_signals() as stop,
        audit_log(spool, settings.audit, stale_seconds=stale_seconds) as log,
    ):
        recover(spool, _rules(service, _case_ends(service, log)))
        for folder in (spool.staging, spool.work, spool.locks):
            sweep(folder, stale_seconds=stale_seconds)
        with (
            exported_metrics(service, metrics_port, find) as metrics,
            open_tracer(settings.traces.endpoint, "ctdeface-worker") as tracer,
        ):
            log.on_entry = partial(notify, (metrics.count_audit_entry,))
            slots = [
                partial(worker_slot, service, f"slot-{n}", stop, pipeline, log)
                for n in range(count)
            ]
            ends = _run_slots([partial(_observe, slot, metrics, tracer) for slot in slots], stop)
    for end in ends:
        if end is not None:
            raise end
    return EXIT_OK


def worker_slot(
    service: ServiceConfig,
    name: str,
    stop: threading.Event,
    pipeline: Pipeline | None = None,
    log: AuditLog | None = None,
) -> WorkerSlot:
    """Return one slot of a worker.

    Args:
        service: folders, queue and settings.
        name: of the slot.
        stop: set when the worker must end.
        pipeline: prepares the child; None for the real one.
        log: the audit log; None writes no entries (tests).
    """
    settings, ends = service.settings, _case_ends(service, log)
    rule = RetryRule(
        max_attempts=settings.work.max_attempts, delays_seconds=service.queue.retry_delays
    )
    return WorkerSlot(
        name=name,
        broker=open_broker(service.queue),
        resources=case_resources(ends, settings, _child(service, pipeline), _rules(service, ends)),
        spool=service.spool,
        rule=rule,
        stop=stop,
        hooks=(log_hook(name),),
    )


def _observe(make: Callable[[], WorkerSlot], metrics: WorkerMetrics, tracer: Tracer) -> WorkerSlot:
    """Make a slot whose jobs appear in metrics and traces."""
    slot = make()
    metrics.children.of_slot[slot.name] = slot.resources.child
    return replace(slot, hooks=(*slot.hooks, metrics, JobTrace(tracer, slot.name)))


def _run_slots(
    makers: Sequence[Callable[[], WorkerSlot]], stop: threading.Event
) -> list[Exception | None]:
    """Run every slot in a thread until all have ended.

    Returns the error of each slot, None for a slot that was stopped.
    """
    ends: list[Exception | None] = []
    threads = [
        threading.Thread(target=_run_slot, args=(make, stop, ends), name=f"slot-{n}", daemon=True)
        for n, make in enumerate(makers)
    ]
    for thread in threads:
        thread.start()
    _log.info("worker_started")
    while alive := [thread for thread in threads if thread.is_alive()]:
        alive[0].join(timeout=0.2)  # a short wait, so that the main thread receives signals
    _log.info("worker_ended")
    return ends


def _run_slot(
    make: Callable[[], WorkerSlot], stop: threading.Event, ends: list[Exception | None]
) -> None:
    """Serve one slot; one that ends by itself ends the worker.

    The supervisor then starts all slots again.
    """
    ends.append(boundary(lambda: serve(make())))
    if not stop.is_set():
        _log.error("slot_ended", worker=threading.current_thread().name)
        stop.set()


def _case_ends(service: ServiceConfig, log: AuditLog | None) -> CaseEnds:
    ends = CaseEnds(
        spool=service.spool,
        originals=service.settings.spool.originals,
        stale_seconds=service.settings.work.stale_seconds,
    )
    if log is None:
        return ends
    return replace(ends, attest=partial(attest, log, service.spool, Outcome.QUARANTINED))


def _rules(service: ServiceConfig, ends: CaseEnds) -> OutputRules:
    output = service.settings.output
    return OutputRules(
        folder_mode=output.folder_mode,
        file_mode=output.file_mode,
        group=output.outbox_group,
        stale_seconds=service.settings.work.stale_seconds,
        before_done=ends.before_done,
    )


def _child(service: ServiceConfig, pipeline: Pipeline | None) -> Child:
    settings = service.settings
    ready = pipeline or partial(prepare, models=settings.models.place)
    return WarmChild(partial(ready, settings.deface.segmenter))
