"""Cases between the inbox and their end: taken, queued or being processed."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from ctdeface_shared.jobs.history import JobRecord, instant
from ctdeface_shared.jobs.messages import DefaceJob
from ctdeface_shared.jobs.taken import RECORD, DropRecord, TakenCase, taken_cases
from ctdeface_shared.storage.bounded import DamagedFile
from ctdeface_shared.storage.case_folders import GONE
from ctdeface_shared.storage.skipped import Skipped, attempt
from ctdeface_shared.storage.spool import ServiceSpool

_PLACE = "taken"


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """A case that was taken, or whose job has begun, and that has not ended.

    Attributes:
        case: name of the case; may identify a patient.
        job_id: id of the job; empty before the case has one.
        attempt: number of the present attempt, or of the last one if it failed; 0 before the first.
        has_failed: whether that attempt failed and will be repeated.
        code: why the latest failed attempt failed; empty if none did.
    """

    case: str
    job_id: str
    attempt: int
    has_failed: bool
    code: str

    @property
    def is_prepared(self) -> bool:
        """Return whether the case is being examined, or its replay prepared."""
        return not self.job_id

    @property
    def is_queued(self) -> bool:
        """Return whether the job waits for its first attempt."""
        return bool(self.job_id) and not self.attempt


class TakenJob(NamedTuple):
    """One taken folder, with the time of its last change in nanoseconds."""

    changed_ns: int
    record: DropRecord
    job: DefaceJob | None


class TakenReader:
    """Reader of all taken folders, used repeatedly; it reads only what changed.

    Attributes:
        skipped: folders that the last `read` left out.
    """

    def __init__(self, spool: ServiceSpool) -> None:
        """Begin with an empty cache."""
        self._spool = spool
        self._read: dict[str, TakenJob] = {}
        self.skipped: tuple[Skipped, ...] = ()

    def read(self) -> tuple[TakenJob, ...]:
        """Return every taken case that can be read.

        Raises:
            OSError: the folder cannot be listed.
        """
        found: dict[str, TakenJob] = {}
        skipped = []
        for taken in taken_cases(self._spool):
            one = attempt(_PLACE, taken.taken_id, partial(self._read_one, taken))
            if isinstance(one, Skipped):
                skipped.append(one)
            elif one is not None:
                found[taken.taken_id] = one
        self._read, self.skipped = found, tuple(skipped)
        return tuple(found.values())

    def _read_one(self, taken: TakenCase) -> TakenJob | None:
        """Read a folder; one that is being removed counts no more."""
        try:
            changed_ns = taken.folder.stat().st_mtime_ns
        except OSError as error:
            if error.errno in GONE:
                return None
            raise
        known = self._read.get(taken.taken_id)
        if known is not None and known.changed_ns == changed_ns:
            return known
        record = taken.record()
        if record is not None:
            return TakenJob(changed_ns, record, taken.job())
        if os.path.lexists(taken.folder / RECORD):
            raise DamagedFile(
                f"its {RECORD} cannot be read: restore it from a backup, or move the folder away"
            )
        return None


def cases_in_flight(
    records: Iterable[JobRecord], taken: Iterable[TakenJob]
) -> tuple[InFlight, ...]:
    """Return the cases in flight, by name.

    Args:
        records: all jobs.
        taken: all taken cases, read before the jobs.
    """
    known = {one.job_id: one for one in records}
    begun = {one.job_id: one for one in known.values() if one.is_begun or one.is_publishing}
    found = [
        InFlight(
            case=one.case,
            job_id=one.job_id,
            attempt=one.attempts,
            has_failed=one.attempt_failed,
            code=one.attempt_code,
        )
        for one in begun.values()
    ]
    found.extend(_not_begun(known, taken))
    return tuple(sorted(found, key=lambda one: (one.case, one.job_id)))


def _not_begun(known: dict[str, JobRecord], taken: Iterable[TakenJob]) -> Iterator[InFlight]:
    for one in taken:
        job = one.job
        record = None if job is None else known.get(job.job_id)
        if record is not None and (record.is_begun or record.is_publishing):
            continue
        if job is not None and record is not None and _has_ended(record, job):
            continue
        yield InFlight(
            case=one.record.case,
            job_id=job.job_id if job else "",
            attempt=0,
            has_failed=False,
            code="",
        )


def _has_ended(record: JobRecord, job: DefaceJob) -> bool:
    """Return whether this submission of a job has ended, and not only an earlier one."""
    return record.ended and record.created_at >= instant(job.submitted_at)
