"""States of a job."""

from enum import StrEnum


class JobState(StrEnum):
    """State of a job; report.json records the first five."""

    PREPARED = "prepared"
    PUBLISHED = "published"
    DONE = "done"
    REFUSED = "refused"
    SUPERSEDED = "superseded"
    ORDERED = "ordered"
    """A replay was requested, and no report exists yet."""
    ABANDONED = "abandoned"
    """A publication was begun that neither a worker nor a staging folder will finish."""

    @property
    def has_ended(self) -> bool:
        """Return whether nothing more happens to the job."""
        return self in {JobState.DONE, JobState.REFUSED, JobState.SUPERSEDED}

    @property
    def is_publishing(self) -> bool:
        """Return whether the job's output is being published."""
        return self in {JobState.PREPARED, JobState.PUBLISHED}
