"""When a dropped case is complete: a pure rule over what scans have seen of it.

A case settles when nothing about it has changed for the quiet period over at least two scans, or at
once when its marker file is there. Names that copying tools use for files in progress keep it
waiting. One that never settles is given up after the longest wait.
"""

from dataclasses import dataclass, replace
from enum import Enum


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What one scan saw of a case.

    Attributes:
        files: how many, marker and ignored ones not counted.
        bytes: all together.
        newest_ns: newest time of modification, nanoseconds since the epoch.
        copying: whether a name says that a file is still being copied.
        marked: whether the marker file is there.
    """

    files: int
    bytes: int
    newest_ns: int
    copying: bool = False
    marked: bool = False


class Verdict(Enum):
    """What follows for a case."""

    WAITING = "waiting"
    SETTLED = "settled"
    GIVEN_UP = "given up"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleTimes:
    """How long to wait, seconds.

    Attributes:
        quiet: without any change before a case is complete.
        longest: for a case that never settles.
        marker_only: whether nothing but the marker file makes a case complete.
    """

    quiet: float
    longest: float
    marker_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenCase:
    """A case as the watcher remembers it; clocks are monotonic seconds.

    Attributes:
        snapshot: the last one.
        first_seen: when the case was first seen.
        unchanged_since: when the last snapshot was first seen as it is.
        scans: how many scans in a row saw the last snapshot.
    """

    snapshot: Snapshot
    first_seen: float
    unchanged_since: float
    scans: int = 1


def look(before: SeenCase | None, snapshot: Snapshot, now: float) -> SeenCase:
    """Return what is remembered after one more scan."""
    if before is None:
        return SeenCase(snapshot=snapshot, first_seen=now, unchanged_since=now)
    if snapshot != before.snapshot:
        return SeenCase(snapshot=snapshot, first_seen=before.first_seen, unchanged_since=now)
    return replace(before, scans=before.scans + 1)


def judge(watched: SeenCase, patience: SettleTimes, now: float) -> Verdict:
    """Say whether a case is complete."""
    if watched.snapshot.marked and watched.snapshot.files > 0 and not watched.snapshot.copying:
        return Verdict.SETTLED
    quiet = watched.scans >= 2 and now - watched.unchanged_since >= patience.quiet
    if (
        quiet
        and watched.snapshot.files > 0
        and not watched.snapshot.copying
        and not patience.marker_only
    ):
        return Verdict.SETTLED
    return Verdict.GIVEN_UP if now - watched.first_seen >= patience.longest else Verdict.WAITING
