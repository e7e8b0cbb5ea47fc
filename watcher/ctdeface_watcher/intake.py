"""From a settled case to its job: whether it is new, waits, or is done already. A pure rule over manifest and history."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from ctdeface_shared.manifest import Manifest, job_id
from ctdeface_shared.messages import DefaceJob
from ctdeface_shared.options import DefaceOptions
from ctdeface_watcher.history import PastJob


class Answer(Enum):
    """Why a settled case makes no new job."""

    KNOWN = "known"
    """The last job of the case was for exactly these files, or one is on its way; `ctdeface replay` repeats one."""
    HELD = "held"
    """A job of this case is just being published, and its originals are being put away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A case that is complete.

    Attributes:
        case: its name.
        manifest: what it consists of.
        history: jobs that began, from their reports, oldest first.
        published: ids of jobs that were published and have not ended.
    """

    case: str
    manifest: Manifest
    history: Sequence[PastJob]
    published: frozenset[str]


def take_in(settled: Settled, options: DefaceOptions, now: datetime) -> DefaceJob | Answer:
    """Make the job of a settled case, or say why there is none to make."""
    identity = job_id(settled.case, settled.manifest, options)
    if any(job.state in {"prepared", "published"} for job in settled.history):
        return Answer.HELD
    latest = settled.history[-1] if settled.history else None
    if identity in settled.published or (latest is not None and latest.digest == settled.manifest.digest):
        return Answer.KNOWN
    return DefaceJob(job_id=identity, case=settled.case, manifest=settled.manifest, submitted_at=now, options=options)
