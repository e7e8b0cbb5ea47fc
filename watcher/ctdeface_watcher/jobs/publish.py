"""From a settled case to its published job."""

from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, time

from ctdeface_shared import logs
from ctdeface_shared.errors import InvalidMessage, LateFiles, StorageUnavailable
from ctdeface_shared.jobs.history import history_of
from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.messages import DefaceJob
from ctdeface_shared.jobs.options import Originals
from ctdeface_shared.storage import atomic
from ctdeface_watcher.context import WatcherContext, WatchState
from ctdeface_watcher.inbox.late_files import Base, adds_to, find_base, gather
from ctdeface_watcher.jobs.intake import CompleteCase, IntakeResult, take_in
from ctdeface_watcher.jobs.ledger import Entry
from ctdeface_watcher.jobs.refuse import Refusal, refuse
from ctdeface_watcher.observer import WatchEvent

_log = logs.logger(__name__)


def offer(context: WatcherContext, state: WatchState, case: str, folder: Path) -> bool:
    """Publish the job of a settled case; return whether nothing more is to be done about it as it is.

    Raises:
        OSError: the case cannot be read, or changes while it is.
        InvalidMessage: the job cannot travel.
        BrokerUnavailable: it was not confirmed; it can be offered again.
    """
    _check_name(case)
    known = (*context.ledger.of_case(case), *state.unnoted)
    history = history_of(context.spool, case)
    settled = CompleteCase(
        case=case,
        manifest=Manifest.scan(folder),
        history=history,
        published=frozenset(entry.job_id for entry in known if entry.closed is None),
    )
    job = take_in(settled, context.options, datetime.now(UTC))
    if job is IntakeResult.KNOWN:
        context.observer.happened(WatchEvent.KNOWN)
    if isinstance(job, IntakeResult):
        return job is IntakeResult.KNOWN
    if not context.is_active():
        return False
    base = (
        find_base(context.spool, case, history) if context.originals is not Originals.KEEP else None
    )
    if base is not None and adds_to(folder, base, context.rules):
        return _complete(context, job, folder, base)
    _publish(context, state, job)
    return True


def _complete(context: WatcherContext, job: DefaceJob, folder: Path, base: Base) -> bool:
    """Put late files and originals together, which settle again then; without the originals quarantine what came late.

    Raises:
        OSError: storage failed; it can be repeated.
    """
    if base.folder is not None:
        with atomic.storage_errors():
            gather(folder, base.folder)
        _log.info("late_files_added", files=job.manifest.files)
        return False
    message = (
        "these files came after their case was done, and its originals are gone: alone they would replace the whole case's output. "
        "Drop the whole case again, or use another folder name if they are a case of their own"
    )
    refusal = Refusal(
        case=job.case, manifest=job.manifest, options=job.options, error=LateFiles(message)
    )
    _log.warning(
        "late_files_refused", job_id=refuse(context.spool, refusal, folder), code=LateFiles.code
    )
    return True


def _check_name(case: str) -> None:
    try:
        case.encode()
    except UnicodeEncodeError:
        raise InvalidMessage(
            "the name of the case is no valid text (UTF-8): rename the folder"
        ) from None


def _send(context: WatcherContext, state: WatchState, job: DefaceJob) -> None:
    """Publish a job with the trace that begins when its case was seen; one that is not confirmed leaves no trace."""
    watched, now = state.watched.get(job.case), time()
    seen_at = now if watched is None else now - (monotonic() - watched.first_seen)
    span = context.tracer.begin("watch", seen_at)
    context.broker.publish(job, span.traceparent)
    span.part("settle", seen_at, now)
    span.part("publish", now, time())
    span.end(
        time(),
        {
            "job_id": job.job_id,
            "generation": job.generation,
            "files": job.manifest.files,
            "megabytes": job.manifest.bytes / 1e6,
        },
    )


def _publish(context: WatcherContext, state: WatchState, job: DefaceJob) -> None:
    """Publish first and note then: a crash in between publishes the same job twice, which is harmless."""
    _send(context, state, job)
    context.observer.happened(WatchEvent.PUBLISHED)
    if job.case in state.watched:
        context.observer.settled(monotonic() - state.watched[job.case].first_seen)
    entry = Entry(
        job_id=job.job_id,
        case=job.case,
        digest=job.manifest.digest,
        generation=job.generation,
        published_at=time(),
    )
    try:
        context.ledger.note(entry)
    except StorageUnavailable:
        state.unnoted.append(
            entry
        )  # published it is; the ledger hears of it when its disk has space again
    _log.info(
        "job_published",
        job_id=job.job_id,
        files=job.manifest.files,
        megabytes=round(job.manifest.bytes / 1e6, 1),
    )
