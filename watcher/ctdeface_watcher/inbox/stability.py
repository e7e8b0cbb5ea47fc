"""The rule for when a case is complete.

A case is complete when nothing about it has changed for the quiet period over at least two scans,
or as soon as its marker file is there. Names that copying tools use for files in progress keep it
waiting. A case that is not complete after the longest wait is left alone until it changes.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import Enum

_MARKER_SECONDS = 1.0
"""Longest time between two scans while a marker file may appear."""
_SHORTEST_WAIT_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The size and age of a case in one scan.

    Attributes:
        files: number of files without marker and ignored ones.
        bytes: sum of their sizes.
        newest_ns: newest time of modification, nanoseconds since the epoch.
        changed_ns: newest time of change, which users cannot set: copying tools keep the other.
        copying: whether a name marks a copy in progress.
        marked: whether the marker file is there.
        inode: number of the case's folder or zip file.
    """

    files: int
    bytes: int
    newest_ns: int
    changed_ns: int = 0
    copying: bool = False
    marked: bool = False
    inode: int = 0


class Verdict(Enum):
    """The decision after a scan."""

    WAITING = "waiting"
    COMPLETE = "complete"
    NEVER_SETTLED = "never settled"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleTimes:
    """How long to wait for a case, in seconds.

    Attributes:
        quiet: time without any change after which a case is complete.
        longest: time after which a case that keeps changing is left alone.
        marker_only: whether only the marker file makes a case complete.
    """

    quiet: float
    longest: float
    marker_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenCase:
    """A case that is not complete, or waits for its turn.

    Times are monotonic seconds.

    Attributes:
        snapshot: the last snapshot.
        first_seen: time of the first scan that found the case.
        unchanged_since: time of the first scan that found the last snapshot.
        scans: number of scans in a row that found the last snapshot.
    """

    snapshot: Snapshot
    first_seen: float
    unchanged_since: float
    scans: int = 1


def add_scan(before: SeenCase | None, snapshot: Snapshot, now: float) -> SeenCase:
    """Return the case after one more scan."""
    if before is None:
        return SeenCase(snapshot=snapshot, first_seen=now, unchanged_since=now)
    if snapshot != before.snapshot:
        return SeenCase(snapshot=snapshot, first_seen=before.first_seen, unchanged_since=now)
    return replace(before, scans=before.scans + 1)


def judge(seen: SeenCase, times: SettleTimes, now: float) -> Verdict:
    """Decide whether a case is complete."""
    snapshot = seen.snapshot
    is_quiet = seen.scans >= 2 and now - seen.unchanged_since >= times.quiet
    is_announced = snapshot.marked or (is_quiet and not times.marker_only)
    if is_announced and snapshot.files > 0 and not snapshot.copying:
        return Verdict.COMPLETE
    return Verdict.NEVER_SETTLED if now - seen.first_seen >= times.longest else Verdict.WAITING


def seconds_to_next_scan(
    seen: Collection[SeenCase],
    times: SettleTimes,
    now: float,
    *,
    rescan_seconds: float,
    has_marker: bool,
) -> float:
    """Return the time to the next scan if no event comes.

    Args:
        seen: cases that are not complete.
        times: when they are.
        now: monotonic seconds.
        rescan_seconds: longest time between two scans.
        has_marker: whether a marker file may make a case complete at any moment.
    """
    if not seen:
        return rescan_seconds
    due = [one.unchanged_since + times.quiet - now for one in seen]
    soonest = min((seconds for seconds in due if seconds > 0), default=times.quiet / 2)
    longest = _MARKER_SECONDS if has_marker else rescan_seconds
    return max(min(soonest, times.quiet / 2, longest, rescan_seconds), _SHORTEST_WAIT_SECONDS)
