"""What the watcher saw at its last look, for whoever asks how it goes: `watcher.json` in the state folder.

Names of cases and files stand in it as they do in the spool; it is for the owner only, like the
rest of the state folder.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

WATCHER_STATE = "watcher.json"
UNFINISHED_JOBS = "unfinished jobs"
DISK = "disk"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatcherState:
    """One look of the watcher.

    Attributes:
        looked_at: when, UTC, ISO 8601.
        cases: how many folders lie where cases lie.
        waiting: cases and zip files that are not complete, or wait for their turn.
        never_settled: seconds that each case or zip file was waited for before it was left alone.
        strays: names of loose files and links above the cases.
        unusable: why a case cannot be published, a sentence for each.
        paused: why nothing is published now: "unfinished jobs", "disk", or None.
        open_jobs: published and not ended.
        oldest_open_at: when the oldest of them was published, seconds since the epoch; None without
            any.
    """

    looked_at: str
    cases: int = 0
    waiting: tuple[str, ...] = ()
    never_settled: Mapping[str, float] = field(default_factory=dict)
    strays: tuple[str, ...] = ()
    unusable: Mapping[str, str] = field(default_factory=dict)
    paused: str | None = None
    open_jobs: int = 0
    oldest_open_at: float | None = None


def write_watcher_state(path: Path, state: WatcherState) -> None:
    """Replace the file at once; it need not outlive a power cut, so the disk is not waited for.

    Raises:
        OSError: storage failed.
    """
    beside = path.with_name(f".{path.name}.part")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        json.dump(asdict(state), stream, indent=1)
    beside.replace(path)


def read_watcher_state(path: Path) -> WatcherState | None:
    """Return what the watcher saw last; None when it has not looked yet, or another version wrote the file.

    Raises:
        OSError: the file is there and cannot be read.
    """
    try:
        return TypeAdapter(WatcherState).validate_python(json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, ValidationError):
        return None
