"""What the watcher tells while it works, to whoever counts; it knows nobody who does."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from ctdeface_shared.status.watcher_state import WatcherState


class WatchEvent(StrEnum):
    """What happened to a case in the inbox."""

    DROPPED = "dropped"
    """It was seen for the first time, or anew after it had been dealt with."""
    PUBLISHED = "published"
    KNOWN = "known"
    """Its last job was for exactly these files, so it needs none."""
    NEVER_SETTLED = "never_settled"
    """It did not become complete within the longest wait, and is left alone."""
    UNUSABLE = "unusable"
    """It cannot be read, or no job can be made of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observer:
    """Callbacks that never raise; nobody listens unless they are given.

    Attributes:
        happened: something happened to a case.
        settled: a job was published so many seconds after its case was first seen.
        looked: a look ended: what was seen, None when not even that can be said; and the code of
            its error when it failed.
    """

    happened: Callable[[WatchEvent], None] = lambda _happening: None
    settled: Callable[[float], None] = lambda _seconds: None
    looked: Callable[[WatcherState | None, str | None], None] = lambda _state, _failed: None


NO_OBSERVER = Observer()
