"""From a settled case to its job: whether it is new, waits, or is done already. A pure rule over manifest and history."""

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
    """Why a settled case makes no new job."""

    KNOWN = "known"
    """The last job of the case was for exactly these files, or one is on its way; `ctdeface replay` repeats one."""
    BUSY = "held"
    """A job of this case is just being published, and its originals are being put away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteCase:
    """A case that is complete.

    Attributes:
        case: its name.
        manifest: what it consists of.
        history: jobs that began, from their reports, oldest first.
        published: ids of jobs that were published and have not ended.
    """

    case: str
    manifest: Manifest
    history: Sequence[JobRecord]
    published: frozenset[str]


def take_in(
    settled: CompleteCase, options: DefaceOptions, now: datetime
) -> DefaceJob | IntakeResult:
    """Make the job of a settled case, or say why there is none to make."""
    if any(job.is_publishing for job in settled.history):
        return IntakeResult.BUSY
    told = [
        job
        for job in settled.history
        if job.code not in DROP_REFUSALS and job.state is not JobState.ABANDONED
    ]
    latest = told[-1] if told and told[-1].digest == settled.manifest.digest else None
    generation = latest.generation + 1 if latest is not None and was_too_early(latest) else 0
    if (
        latest is not None and generation
    ):  # a replay asked for more than the settings: what it withholds must stay withheld
        options = latest.options or options
    identity = job_id(settled.case, settled.manifest, options, generation)
    if identity in settled.published or (latest is not None and generation == 0):
        return IntakeResult.KNOWN
    return DefaceJob(
        job_id=identity,
        case=settled.case,
        manifest=settled.manifest,
        generation=generation,
        submitted_at=_after_all(settled.history, now),
        options=options,
    )


def _after_all(history: Sequence[JobRecord], now: datetime) -> datetime:
    """Return a moment after all earlier jobs whatever the clocks say: a drop that counts as older than its case's output is not shown."""
    last = max((job.created_at for job in history), default="")
    return max(now, datetime.fromisoformat(last) + timedelta(milliseconds=1)) if last else now
