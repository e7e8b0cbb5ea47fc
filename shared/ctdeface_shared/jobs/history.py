"""What the report folders say about every job that was ordered, began or ended; the truth, read again cheaply.

`reports/<case>/<job>/` holds `report.json` (how far the job came), `repeat.json` (a repetition that
came to nothing), `attempts.log` (when it was begun) and `order.json` (a replay that was asked for).
A file that did not change is not read again.
"""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctdeface_shared.errors import LateFiles, UnsafeArchive
from ctdeface_shared.jobs import attempt_log
from ctdeface_shared.jobs.attempt_log import ATTEMPTS
from ctdeface_shared.storage.spool import case_path

REPORT, REPEAT, ORDER = "report.json", "repeat.json", "order.json"
FINAL = frozenset({"done", "refused", "superseded"})
"""States of a job that has ended."""
ORDERED = "ordered"
"""State of a replay that nobody has reported about."""
NO_JOBS = frozenset({LateFiles.__name__, UnsafeArchive.__name__})
"""Codes of drops that the watcher refused itself; they say nothing about the case of that name."""
_TELLING = frozenset({REPORT, REPEAT, ATTEMPTS, ORDER})
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """One job of a case, as far as its folder tells.

    Attributes:
        case: name of the case.
        job_id: which.
        state: prepared, published, done, refused, superseded; `ordered` for a replay without a
            report; empty where only attempts are known.
        code: why it was refused.
        reason: the same for a person.
        digest: of the manifest that it was made for.
        generation: 0 for a drop, higher for a replay.
        created_at: UTC, ISO 8601.
        reported_at: when that was written; seconds since the epoch, by the clock of the file
            system.
        is_begun: whether an attempt began and neither ended in a report nor was handed back.
        attempts: how many attempts began and were not handed back.
        attempt_code: why the last attempt failed, if it will be repeated.
    """

    case: str
    job_id: str
    state: str = ""
    code: str = ""
    reason: str = ""
    digest: str = ""
    generation: int = 0
    created_at: str = ""
    reported_at: float = 0.0
    is_begun: bool = False
    attempts: int = 0
    attempt_code: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in FINAL and not self.is_begun

    @property
    def age_key(self) -> tuple[str, int]:
        """Sorts the jobs of a case by age; the last one is the newest."""
        return (self.created_at, self.generation)


_Stamps = dict[str, tuple[int, int, int]]
"""Inode, time of change in nanoseconds and size of a job's files by name: whether they are still the same ones."""


class JobReader:
    """Reads all jobs of a spool again and again; remembers what it read, and can be thrown away at any time."""

    def __init__(self, reports: Path) -> None:
        """Begin without having read anything."""
        self._reports = reports
        self._read: dict[str, tuple[_Stamps, JobRecord]] = {}

    def read(self) -> tuple[JobRecord, ...]:
        """Return every job that can be read now; a folder that vanishes meanwhile is left out.

        Raises:
            OSError: the reports cannot be read, for another reason than that something is gone.
        """
        records: dict[str, tuple[_Stamps, JobRecord]] = {}
        for folder, stamps in _job_folders(str(self._reports), 0):
            known = self._read.get(folder)
            if known is not None and known[0] == stamps:
                records[folder] = known
            else:
                with gone_is_no_error():
                    records[folder] = (stamps, self._record(Path(folder), stamps))
        self._read = records
        return tuple(record for _, record in records.values())

    def of_case(self, case: str) -> tuple[JobRecord, ...]:
        """Return every job of one case, read afresh.

        Raises:
            EscapingPath: the name leads out of the reports.
            OSError: the reports cannot be read, for another reason than that something is gone.
        """
        records = []
        for folder, stamps in _job_folders(str(case_path(self._reports, case)), 1):
            with gone_is_no_error():
                records.append(self._record(Path(folder), stamps))
        return tuple(record for record in records if record.case == case)

    def _record(self, folder: Path, stamps: _Stamps) -> JobRecord:
        record = JobRecord(
            case=folder.parent.relative_to(self._reports).as_posix(), job_id=folder.name
        )
        told = max((stamps[name][1] for name in (REPORT, REPEAT) if name in stamps), default=0)
        if ORDER in stamps:
            record = _ordered(record, _json(folder / ORDER))
        for name in (REPORT, REPEAT):
            if name in stamps:
                record = replace(_reported(record, _json(folder / name)), reported_at=told / 1e9)
        if ATTEMPTS not in stamps:
            return record
        attempts = attempt_log.read(folder)
        is_begun = attempts.is_open and stamps[ATTEMPTS][1] > told
        return replace(
            record, is_begun=is_begun, attempts=attempts.count, attempt_code=attempts.code
        )


def instant(moment: datetime) -> str:
    """Write a moment as reports do, so that moments sort as text.

    Args:
        moment: with its time zone.
    """
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


@contextmanager
def gone_is_no_error() -> Iterator[None]:
    """Leave the block when what it looks at is gone; workers and people move things while somebody looks.

    Raises:
        OSError: whatever else is wrong.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _GONE:
            raise


def _job_folders(folder: str, level: int) -> Iterator[tuple[str, _Stamps]]:
    """Yield each folder that tells of a job, at any depth below a case's, with its telling files; text, as paths are slow."""
    folders: list[str] = []
    stamps: _Stamps = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name in _TELLING:
                    status = entry.stat(follow_symlinks=False)
                    stamps[entry.name] = (status.st_ino, status.st_mtime_ns, status.st_size)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
    except OSError as error:
        if error.errno not in _GONE:
            raise
        return
    if stamps and level > 1:
        yield folder, stamps
        return
    for path in folders:
        yield from _job_folders(path, level + 1)


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except ValueError:
        return None


def _reported(record: JobRecord, report: Any) -> JobRecord:
    try:
        return replace(
            record,
            state=str(report["state"]),
            code=str(report["result"]["code"]),
            reason=str(report["result"]["reason"]),
            digest=str(report["manifest"]["digest"]),
            generation=int(report["generation"]),
            created_at=str(report["created_at"]),
        )
    except (KeyError, TypeError, ValueError):
        return record  # no report of ours, or of another version: it proves nothing


def _ordered(record: JobRecord, order: Any) -> JobRecord:
    try:
        return replace(
            record,
            state=ORDERED,
            digest=str(order["manifest"]["digest"]),
            generation=int(order["generation"]),
            created_at=instant(datetime.fromisoformat(order["submitted_at"])),
        )
    except (KeyError, TypeError, ValueError):
        return record
