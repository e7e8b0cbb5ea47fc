"""The rule for new jobs of taken cases."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from ctdeface_shared.jobs.history import DROP_REFUSALS, JobRecord
from ctdeface_shared.jobs.manifest import Manifest, job_id
from ctdeface_shared.jobs.messages import DefaceJob
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_shared.jobs.states import JobState


class IntakeResult(Enum):
    """The result for a taken case."""

    PUBLISHED = "published"
    """A job was published and confirmed by the queue."""
    KNOWN = "known"
    """The last job of the case was for exactly this content; `ctdeface replay` repeats it."""
    REFUSED = "refused"
    """The drop was put into the quarantine, with a report."""
    RENAMED = "renamed"
    """The drop does not belong to the earlier case of its name, and got a name of its own."""
    COMBINED = "combined"
    """Late files were combined with the originals of their case, and are compared anew."""
    BUSY = "busy"
    """Nothing can be done now; the next look tries again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteCase:
    """A case with its earlier jobs.

    Attributes:
        case: name of the case.
        manifest: fingerprint of its files.
        history: its jobs that have a report or a replay request, oldest first.
        taken: id of the folder that holds the files.
        left_in_inbox: whether they are a copy of what is still in the inbox.
        owner: user id of who dropped them.
    """

    case: str
    manifest: Manifest
    history: Sequence[JobRecord]
    taken: str
    left_in_inbox: bool = False
    owner: int | None = None


def latest_of_content(complete: CompleteCase) -> JobRecord | None:
    """Return the last job of a case if it was for exactly this content."""
    counted = [
        job
        for job in complete.history
        if job.code not in DROP_REFUSALS and job.state is not JobState.ABANDONED
    ]
    is_same = bool(counted) and counted[-1].digest == complete.manifest.digest
    return counted[-1] if is_same else None


def make_job(complete: CompleteCase, options: DefaceOptions, now: datetime) -> DefaceJob:
    """Return the job of a case.

    Args:
        complete: the case.
        options: options of the job.
        now: time of submission.
    """
    # A replay that release 0.1.0 began may withhold more than the settings do, and that must stay
    # withheld.
    requested = [job for job in complete.history if job.state is JobState.ORDERED and job.options]
    options = (requested[-1].options if requested else None) or options
    generation = max((job.generation for job in requested), default=-1) + 1
    return DefaceJob(
        job_id=job_id(complete.case, complete.manifest, options, generation),
        case=complete.case,
        manifest=complete.manifest,
        generation=generation,
        submitted_at=_after_all(complete.history, now),
        options=options,
        taken=complete.taken,
        left_in_inbox=complete.left_in_inbox,
        owner=complete.owner,
    )


def _after_all(history: Sequence[JobRecord], now: datetime) -> datetime:
    """Return a time after all earlier jobs, even if the clocks disagree.

    A job that counts as older than its case's published output would not replace it.
    """
    last = max((job.created_at for job in history), default="")
    return max(now, datetime.fromisoformat(last) + timedelta(milliseconds=1)) if last else now
