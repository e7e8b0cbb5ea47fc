"""From a complete case to its published job."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, time

from ctdeface_shared import logs
from ctdeface_shared.broker.protocols import Broker
from ctdeface_shared.errors import InvalidMessage, LateFiles
from ctdeface_shared.jobs.history import history_of
from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.messages import DefaceJob
from ctdeface_shared.jobs.options import DefaceOptions, Originals
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_shared.tracing.spans import NO_TRACER, Tracer
from ctdeface_watcher.inbox.late_files import EarlierCase, adds_to, gather
from ctdeface_watcher.inbox.scan import InboxRules
from ctdeface_watcher.jobs.earlier_case import find_earlier_case
from ctdeface_watcher.jobs.intake import CompleteCase, IntakeResult, make_job
from ctdeface_watcher.jobs.ledger import Entry, Ledger
from ctdeface_watcher.jobs.refuse import Refusal, refuse

_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """What publishing a case needs.

    Attributes:
        spool: the folders of the service.
        broker: the queue.
        ledger: remembers published jobs.
        rules: which file names count.
        options: options of a new job.
        originals: whether dropped files are archived, deleted or kept.
        is_active: tells whether this process is still the active watcher of the inbox.
        tracer: receives the span from the first sight of a case to its published job.
    """

    spool: ServiceSpool
    broker: Broker
    ledger: Ledger
    rules: InboxRules
    options: DefaceOptions
    originals: Originals
    is_active: Callable[[], bool] = lambda: True
    tracer: Tracer = NO_TRACER


def publish_case(publisher: Publisher, case: str, folder: Path, first_seen: float) -> IntakeResult:
    """Publish the job of a complete case, if it makes one.

    The job is recorded in the ledger after the queue has confirmed it. A crash in between publishes
    the same job twice, which is harmless.

    Args:
        publisher: what publishing needs.
        case: name of the case.
        folder: its folder.
        first_seen: when the watcher first saw the case, monotonic seconds.

    Raises:
        OSError: the case cannot be read, or changes while it is read.
        InvalidMessage: the name of the case cannot be written into a message.
        BrokerUnavailable: the queue did not confirm the job; the call can be repeated.
        StorageUnavailable: the ledger cannot be read.
    """
    _require_text(case)
    spool, ledger = publisher.spool, publisher.ledger
    history = history_of(spool, case)
    complete = CompleteCase(
        case=case,
        manifest=Manifest.scan(folder),
        history=history,
        open_jobs=frozenset(entry.job_id for entry in ledger.of_case(case) if not entry.closed),
    )
    job = make_job(complete, publisher.options, datetime.now(UTC))
    if isinstance(job, IntakeResult):
        return job
    if not publisher.is_active():
        return IntakeResult.BUSY
    if publisher.originals is not Originals.KEEP:
        earlier = find_earlier_case(spool, case, history)
        if earlier is not None and adds_to(folder, earlier, publisher.rules):
            return _complete_late_files(spool, job, folder, earlier)
    seen_at = time() - (monotonic() - first_seen)
    complete_at = time()
    span = publisher.tracer.begin("watch", seen_at)
    publisher.broker.publish(job, span.traceparent)
    span.part("settle", seen_at, complete_at)
    span.part("publish", complete_at, time())
    span.end(time(), _numbers(job))
    ledger.record_published(
        Entry(
            job_id=job.job_id,
            case=case,
            digest=job.manifest.digest,
            generation=job.generation,
            published_at=time(),
        )
    )
    _log.info(
        "job_published",
        job_id=job.job_id,
        files=job.manifest.files,
        megabytes=round(job.manifest.bytes / 1e6, 1),
    )
    return IntakeResult.PUBLISHED


def _require_text(case: str) -> None:
    try:
        case.encode()
    except UnicodeEncodeError:
        raise InvalidMessage(
            "the name of the case is not valid UTF-8, and job messages are UTF-8 text: "
            "rename the folder"
        ) from None


def _complete_late_files(
    spool: ServiceSpool, job: DefaceJob, folder: Path, earlier: EarlierCase
) -> IntakeResult:
    """Combine late files with their originals, or refuse them.

    Raises:
        OSError: storage failed; the call can be repeated.
    """
    if earlier.folder is not None:
        gather(folder, earlier.folder)
        _log.info("late_files_added", files=job.manifest.files)
        return IntakeResult.BUSY  # the combined case settles anew
    error = LateFiles(
        "these files came after their case was done, and its originals are gone; a job needs the "
        "whole case, because its output replaces the earlier one: drop the whole case again, or "
        "use another folder name if the files are a case of their own"
    )
    refusal = Refusal(case=job.case, manifest=job.manifest, options=job.options, error=error)
    _log.warning("late_files_refused", job_id=refuse(spool, refusal, folder), code=error.code)
    return IntakeResult.REFUSED


def _numbers(job: DefaceJob) -> dict[str, str | int | float]:
    return {
        "job_id": job.job_id,
        "generation": job.generation,
        "files": job.manifest.files,
        "megabytes": job.manifest.bytes / 1e6,
    }
