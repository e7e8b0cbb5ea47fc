"""The watcher's last scan: `watcher.json` in the state folder.

It holds names of cases and files as they are in the spool, so only the owner may read it, like the
rest of the state folder.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ctdeface_shared.jobs.moments import read_moment
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.bounded import LARGEST_STATE_BYTES, parse_json, read_bounded
from ctdeface_shared.storage.skipped import Skipped

WATCHER_STATE = "watcher.json"
UNFINISHED_JOBS = "unfinished jobs"
DISK = "disk"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatcherState:
    """One scan of the watcher.

    Attributes:
        looked_at: time of the scan, UTC, ISO 8601.
        cases: number of case folders in the inbox.
        waiting: cases and zip files that are not complete, or wait for their turn.
        never_settled: cases and zip files that never became complete, with the seconds waited.
        kept: cases and zip files that stay in the inbox and were processed as they are.
        notes: drops that did not become the case of their name, each with a sentence.
        strays: names of loose files and links above the case level.
        unusable: cases that cannot be published, each with the reason as a sentence.
        paused: why nothing is published now, such as "unfinished jobs" or "disk"; None if it is.
        open_jobs: number of published jobs that have not ended.
        oldest_open_at: when the oldest of them was published, seconds since the epoch; None if
            there are none.
        skipped: what the scan left out because of an error.
    """

    looked_at: str
    cases: int = 0
    waiting: tuple[str, ...] = ()
    never_settled: Mapping[str, float] = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    strays: tuple[str, ...] = ()
    unusable: Mapping[str, str] = field(default_factory=dict)
    paused: str | None = None
    open_jobs: int = 0
    oldest_open_at: float | None = None
    skipped: tuple[Skipped, ...] = ()


def write_watcher_state(path: Path, state: WatcherState) -> None:
    """Atomically replace the file, without an fsync: it may be lost in a power cut.

    Raises:
        OSError: storage failed.
    """
    atomic.write_file(path, json.dumps(asdict(state), indent=1).encode("ascii"), is_durable=False)


def read_watcher_state(path: Path) -> WatcherState | None:
    """Return the last scan, or None if it is missing or not valid.

    Raises:
        OSError: the file exists and cannot be read.
    """
    try:
        content = parse_json(read_bounded(path, LARGEST_STATE_BYTES))
        state = TypeAdapter(WatcherState).validate_python(content)
        read_moment(state.looked_at)
        if not isfinite(state.oldest_open_at or 0.0):
            return None
    except (FileNotFoundError, ValueError, ValidationError):
        return None
    return state
