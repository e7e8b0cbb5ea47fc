"""The rule for new jobs of complete cases."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from ctdeface_shared.jobs.history import DROP_REFUSALS, JobRecord
from ctdeface_shared.jobs.manifest import Manifest, job_id
from ctdeface_shared.jobs.messages import DefaceJob
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_shared.jobs.repeats import was_too_early
from ctdeface_shared.jobs.states import JobState


class IntakeResult(Enum):
    """The result for a complete case or zip file."""

    PUBLISHED = "published"
    """A job was published and confirmed by the queue."""
    KNOWN = "known"
    """The last job of the case was for exactly these files, or is still open.

    `ctdeface replay` repeats a job.
    """
    REFUSED = "refused"
    """The drop was put into the quarantine, with a report."""
    UNPACKED = "unpacked"
    """The zip file became a case."""
    BUSY = "busy"
    """Nothing can be done now; the next look tries again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteCase:
    """A complete case with its earlier jobs.

    Attributes:
        case: name of the case.
        manifest: fingerprint of its files.
        history: its jobs that have a report or a replay request, oldest first.
        open_jobs: ids of its jobs that were published and have not ended.
    """

    case: str
    manifest: Manifest
    history: Sequence[JobRecord]
    open_jobs: frozenset[str]


def make_job(
    complete: CompleteCase, options: DefaceOptions, now: datetime
) -> DefaceJob | IntakeResult:
    """Return the job of a complete case, or why it makes none.

    Args:
        complete: the case.
        options: options of a new job.
        now: time of submission.

    Returns:
        The job; `KNOWN`; or `BUSY` while a job of this case is being published and its originals
        are being put away.
    """
    if any(job.is_publishing for job in complete.history):
        return IntakeResult.BUSY
    counted = [
        job
        for job in complete.history
        if job.code not in DROP_REFUSALS and job.state is not JobState.ABANDONED
    ]
    latest = counted[-1] if counted and counted[-1].digest == complete.manifest.digest else None
    generation = latest.generation + 1 if latest is not None and was_too_early(latest) else 0
    if latest is not None and generation:
        # A replay may withhold more than the settings do, and that must stay withheld.
        options = latest.options or options
    identity = job_id(complete.case, complete.manifest, options, generation)
    if identity in complete.open_jobs or (latest is not None and generation == 0):
        return IntakeResult.KNOWN
    return DefaceJob(
        job_id=identity,
        case=complete.case,
        manifest=complete.manifest,
        generation=generation,
        submitted_at=_after_all(complete.history, now),
        options=options,
    )


def _after_all(history: Sequence[JobRecord], now: datetime) -> datetime:
    """Return a time after all earlier jobs, even if the clocks disagree.

    A job that counts as older than its case's published output would not replace it.
    """
    last = max((job.created_at for job in history), default="")
    return max(now, datetime.fromisoformat(last) + timedelta(milliseconds=1)) if last else now
