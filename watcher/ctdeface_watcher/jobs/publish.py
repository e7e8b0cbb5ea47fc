"""From a taken case to its published job."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import time

from ctdeface_shared import logs
from ctdeface_shared.broker.protocols import Broker
from ctdeface_shared.errors import InvalidMessage, LateFiles
from ctdeface_shared.jobs.history import JobRecord, history_of
from ctdeface_shared.jobs.manifest import Manifest, digest_of_times
from ctdeface_shared.jobs.messages import DefaceJob
from ctdeface_shared.jobs.options import DefaceOptions, Originals
from ctdeface_shared.jobs.states import JobState
from ctdeface_shared.jobs.taken import DropRecord, TakenCase
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_shared.storage.tree_limits import TreeLimits
from ctdeface_shared.tracing.spans import NO_TRACER, Tracer
from ctdeface_watcher.inbox.late_files import EarlierCase, add_earlier_files, adds_to
from ctdeface_watcher.inbox.scan import InboxRules
from ctdeface_watcher.jobs.earlier_case import compare, next_name
from ctdeface_watcher.jobs.intake import CompleteCase, IntakeResult, latest_of_content, make_job
from ctdeface_watcher.jobs.ledger import Entry, Ledger
from ctdeface_watcher.jobs.put_away import put_away_repeated, put_away_zip
from ctdeface_watcher.jobs.refuse import refuse_taken

_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """What publishing a case needs.

    Attributes:
        spool: the folders of the service.
        broker: the queue.
        ledger: remembers published jobs.
        rules: which file names count.
        limits: maximum content of a case.
        options: options of a new job.
        originals: whether dropped files are archived, deleted or kept.
        is_active: tells whether this process is still the active watcher of the inbox.
        tracer: receives the span from the first sight of a case to its published job.
    """

    spool: ServiceSpool
    broker: Broker
    ledger: Ledger
    rules: InboxRules
    limits: TreeLimits
    options: DefaceOptions
    originals: Originals
    is_active: Callable[[], bool] = lambda: True
    tracer: Tracer = NO_TRACER


def publish_case(publisher: Publisher, taken: TakenCase, record: DropRecord) -> IntakeResult:
    """Publish the job of an examined case, if it makes one.

    The job is written into the taken folder before it is published, and recorded in the ledger
    after the queue has confirmed it. A crash in between publishes the same job twice, which is
    harmless.

    Args:
        publisher: what publishing needs.
        taken: folder of the case.
        record: its record with a manifest.

    Raises:
        OSError: storage failed; the call can be repeated.
        InvalidMessage: the name of the case cannot be written into a message.
        BrokerUnavailable: the queue did not confirm the job; the call can be repeated.
        StorageUnavailable: the ledger cannot be written.
    """
    require_text(record.case)
    spool, manifest = publisher.spool, record.manifest
    if manifest is None or not publisher.is_active():
        return IntakeResult.BUSY
    history = _history(spool, taken, record.case)
    if any(job.is_publishing for job in history):
        return IntakeResult.BUSY
    complete = CompleteCase(
        case=record.case,
        manifest=manifest,
        history=history,
        taken=taken.taken_id,
        left_in_inbox=record.left_in_inbox,
        owner=record.owner,
    )
    latest = latest_of_content(complete)
    if latest is not None and latest.state is not JobState.ORDERED:
        put_away_zip(spool, taken, record, publisher.originals)
        put_away_repeated(spool, taken, latest, publisher.originals)
        keep(publisher.ledger, record)
        return IntakeResult.KNOWN
    if not _is_requested(history):
        found = compare(spool, taken.files, record, history)
        if not found.belongs:
            return rename(spool, taken, record)
        if found.earlier is not None and adds_to(taken.files, found.earlier, publisher.rules):
            return _complete_late_files(publisher, taken, record, found.earlier)
    put_away_zip(spool, taken, record, publisher.originals)
    job = make_job(complete, publisher.options, datetime.now(UTC))
    taken.write_job(job)
    send(publisher, job, record)
    return IntakeResult.PUBLISHED


def rename(spool: ServiceSpool, taken: TakenCase, record: DropRecord) -> IntakeResult:
    """Give a drop another name, because another patient or user has it.

    The names with numbers are tried in turn, so that late files find the case that they belong to.

    Raises:
        OSError: storage failed; the call can be repeated.
    """
    taken.write_record(replace(record, case=next_name(spool, record)))
    _log.warning("drop_renamed")
    return IntakeResult.RENAMED


def send(publisher: Publisher, job: DefaceJob, record: DropRecord) -> None:
    """Publish the job of a taken case and record it.

    Raises:
        BrokerUnavailable: the queue did not confirm the job; the call can be repeated.
        StorageUnavailable: the ledger cannot be written.
    """
    complete_at = time()
    span = publisher.tracer.begin("watch", record.seen_at)
    publisher.broker.publish(job, span.traceparent)
    span.part("settle", record.seen_at, complete_at)
    span.part("publish", complete_at, time())
    span.end(time(), _numbers(job))
    publisher.ledger.record_published(
        Entry(
            job_id=job.job_id,
            case=job.case,
            digest=job.manifest.digest,
            generation=job.generation,
            published_at=time(),
        )
    )
    keep(publisher.ledger, record)
    _log.info(
        "job_published",
        job_id=job.job_id,
        files=job.manifest.files,
        megabytes=round(job.manifest.bytes / 1e6, 1),
    )


def _is_requested(history: Sequence[JobRecord]) -> bool:
    """Return True for the originals of a replay that release 0.1.0 put back into the inbox."""
    return any(job.state is JobState.ORDERED for job in history)


def _history(spool: ServiceSpool, taken: TakenCase, case: str) -> tuple[JobRecord, ...]:
    """Return the jobs of a case; of requests that have no files of their own, the drop's only."""
    history = history_of(spool, case)
    if not any(job.state is JobState.ORDERED for job in history):
        return history
    times = digest_of_times(taken.files)
    return tuple(job for job in history if job.state is not JobState.ORDERED or job.digest == times)


def keep(ledger: Ledger, record: DropRecord) -> None:
    """Remember what was left in the inbox, so that it is not copied again.

    Raises:
        StorageUnavailable: the ledger cannot be written.
    """
    if record.left_in_inbox and record.stats:
        ledger.add_kept(record.entry, record.stats)


def require_text(case: str) -> None:
    """Check that the name of a case can be written into a message.

    Raises:
        InvalidMessage: it cannot.
    """
    try:
        case.encode()
    except UnicodeEncodeError:
        raise InvalidMessage(
            "the name of the case is not valid UTF-8, and job messages are UTF-8 text: "
            "rename the folder"
        ) from None


def _complete_late_files(
    publisher: Publisher, taken: TakenCase, record: DropRecord, earlier: EarlierCase
) -> IntakeResult:
    """Combine late files with their originals, or refuse them.

    Raises:
        OSError: storage failed; the call can be repeated.
    """
    if earlier.folder is not None:
        # Without a manifest, the combined files are read anew after a crash.
        taken.write_record(replace(record, manifest=None))
        add_earlier_files(taken.files, earlier.folder, publisher.limits)
        taken.write_record(replace(record, manifest=Manifest.scan(taken.files)))
        _log.info("late_files_added", files=record.manifest.files if record.manifest else 0)
        return IntakeResult.COMBINED
    error = LateFiles(
        "these files came after their case was done, and its originals are gone; a job needs the "
        "whole case, because its output replaces the earlier one: drop the whole case again, or "
        "use another folder name if the files are a case of their own"
    )
    refused_as = refuse_taken(publisher.spool, taken, record, publisher.options, error)
    keep(publisher.ledger, record)
    _log.warning("late_files_refused", job_id=refused_as, code=error.code)
    return IntakeResult.REFUSED


def _numbers(job: DefaceJob) -> dict[str, str | int | float]:
    return {
        "job_id": job.job_id,
        "generation": job.generation,
        "files": job.manifest.files,
        "megabytes": job.manifest.bytes / 1e6,
    }
