"""The rule for cases that changed while they were processed."""

from ctdeface_shared.errors import InputChanged
from ctdeface_shared.jobs.history import JobRecord
from ctdeface_shared.jobs.states import JobState

MOST_REPEATS = 3
"""Maximum number of times the watcher publishes a case again that changed meanwhile."""


def was_too_early(job: JobRecord) -> bool:
    """Return whether the watcher will publish the case of this job again.

    It does so when the job failed only because files came or went while it was processed.
    """
    return (
        job.state is JobState.REFUSED
        and job.code == InputChanged.__name__
        and job.generation < MOST_REPEATS
    )
