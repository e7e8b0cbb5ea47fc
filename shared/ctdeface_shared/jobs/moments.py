"""Times of jobs, within bounds that every calculation with them can rely on."""

from datetime import UTC, datetime, timedelta
from typing import Final

EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""No job is older than this software."""
END: Final = datetime(2100, 1, 1, tzinfo=UTC)
"""Times of jobs are before this one."""
CLOCKS_APART: Final = timedelta(days=1)
"""Clocks of the machines of one service differ by less."""


def in_bounds(moment: datetime) -> datetime:
    """Return a time in UTC.

    Raises:
        ValueError: it has no time zone, or is outside the years 2000 to 2099.
    """
    if moment.tzinfo is None:
        raise ValueError("the time has no time zone, which is required")
    if not EARLIEST <= moment < END:
        raise ValueError("the time is outside the years 2000 to 2099: correct the sender's clock")
    return moment.astimezone(UTC)


def read_moment(text: str) -> datetime:
    """Read a time in ISO 8601, in UTC.

    Raises:
        ValueError: it is not a time, has no time zone, or is outside the years 2000 to 2099.
    """
    return in_bounds(datetime.fromisoformat(text))


def is_too_late(moment: datetime, now: datetime) -> bool:
    """Return whether a time is later than any clock of the service can be.

    A job with such a time would count as newer than every later job of its case.
    """
    return moment > now + CLOCKS_APART
