"""The rule for cases that changed while they were processed."""

from typing import Protocol

from ctdeface_shared.errors import InputChanged

MOST_REPEATS = 3
"""Maximum number of times the watcher publishes a case again that changed meanwhile."""


class EndedJob(Protocol):
    """The part of a job's record that the rule needs."""

    @property
    def state(self) -> str:
        """State of the report."""

    @property
    def code(self) -> str:
        """Code of the refusal."""

    @property
    def generation(self) -> int:
        """Generation of the job, 0 for a drop."""


def was_too_early(job: EndedJob) -> bool:
    """Return whether the watcher will publish the case of this job again.

    It does so when the job failed only because files came or went while it was processed.
    """
    return (
        job.state == "refused"
        and job.code == InputChanged.__name__
        and job.generation < MOST_REPEATS
    )
