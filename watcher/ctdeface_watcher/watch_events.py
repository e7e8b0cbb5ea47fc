"""Events of the watcher for metrics and other hooks."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from ctdeface_shared.status.watcher_state import WatcherState


class EventKind(StrEnum):
    """Kind of an event.

    All but the first and the last two are results of a case.
    """

    DROPPED = "dropped"
    """A case was seen for the first time, or changed after it had been processed."""
    PUBLISHED = "published"
    """A job was published for the case."""
    KNOWN = "known"
    """The last job of the case was for exactly these files, so it needs none."""
    NEVER_SETTLED = "never_settled"
    """The case did not become complete within the longest wait."""
    UNUSABLE = "unusable"
    """No job can be made of the case."""
    SKIPPED = "skipped"
    """A case, report or folder was left out because of an error."""
    LOOKED = "looked"
    """A look at the inbox ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchEvent:
    """One event.

    Attributes:
        kind: kind of the event.
        settle_seconds: from the first sight of the case to its published job; `PUBLISHED` only.
        state: result of the look; `LOOKED` only, None if the ledger could not be read.
        failed: code of the error that ended the look, or that left something out; `LOOKED` and
            `SKIPPED` only.
    """

    kind: EventKind
    settle_seconds: float = 0.0
    state: WatcherState | None = None
    failed: str | None = None


WatchHook: TypeAlias = Callable[[WatchEvent], None]
"""A function that receives every event."""
