"""The history of every job, read from the report folders.

`reports/<case>/<job>/` holds `report.json` (how far the job came), `repeat.json` (a repetition that
was not published), `attempts.log` (its attempts) and `order.json` (a requested replay). They are
the truth about every job that was requested, began or ended. Unchanged files are not read again.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import time

from ctdeface_shared.errors import LateFiles, PermanentError, UnsafeArchive, UnsafeDrop
from ctdeface_shared.jobs import attempt_log
from ctdeface_shared.jobs.attempt_log import ATTEMPTS
from ctdeface_shared.jobs.messages import read_options
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_shared.jobs.replay_requests import ORDER, ReplayRequest, parse_order, pending_orders
from ctdeface_shared.jobs.reports import (
    REPEAT,
    REPORT,
    ReportedFile,
    ReportSummary,
    parse_report,
    read_report,
)
from ctdeface_shared.jobs.states import JobState
from ctdeface_shared.storage.case_folders import GONE
from ctdeface_shared.storage.locks import UNFINISHED, is_claimed
from ctdeface_shared.storage.spool import Spool, case_path

DROP_REFUSALS = frozenset({error.__name__ for error in (LateFiles, UnsafeArchive, UnsafeDrop)})
"""Codes of drops that the watcher refused itself; they do not describe the case of that name."""
_JOB_FILES = frozenset({REPORT, REPEAT, ATTEMPTS, ORDER})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """One job of a case.

    Attributes:
        case: name of the case.
        job_id: id of the job.
        state: None if only attempts are known.
        code: code of the refusal; empty if it was not refused.
        reason: the refusal as a sentence.
        digest: digest of the manifest that the job was made for.
        generation: 0 for a drop, higher for a replay.
        created_at: when the job was submitted; UTC, ISO 8601.
        options: what was requested; None if unknown.
        reported_at: when the report was written; seconds since the epoch, by the clock of the file
            system.
        is_begun: whether an attempt began that has neither ended in a report nor been handed back.
        attempts: number of attempts that were not handed back.
        attempt_failed: whether the last attempt failed and will be repeated.
        attempt_code: why the latest failed attempt failed; empty if none did.
    """

    case: str
    job_id: str
    state: JobState | None = None
    code: str = ""
    reason: str = ""
    digest: str = ""
    generation: int = 0
    created_at: str = ""
    options: DefaceOptions | None = None
    reported_at: float = 0.0
    is_begun: bool = False
    attempts: int = 0
    attempt_failed: bool = False
    attempt_code: str = ""

    @property
    def ended(self) -> bool:
        """Return whether nothing more happens to the job."""
        return self.state is not None and self.state.has_ended and not self.is_begun

    @property
    def is_publishing(self) -> bool:
        """Return whether the job's output is being published."""
        return self.state is not None and self.state.is_publishing

    @property
    def age_key(self) -> tuple[str, int]:
        """Return a sort key by age, newest last."""
        return (self.created_at, self.generation)


_Stamps = dict[str, tuple[int, int, int]]
"""Inode, modification time in nanoseconds and size of a job's files by name."""


class JobReader:
    """Reader of all jobs of a spool.

    It is used repeatedly and reads only what changed.
    What it remembers is a cache that can be lost at any time.
    """

    def __init__(self, reports: Path) -> None:
        """Begin with an empty cache."""
        self._reports = reports
        self._read: dict[str, tuple[_Stamps, JobRecord]] = {}

    def read(self) -> tuple[JobRecord, ...]:
        """Return every readable job; folders that vanish meanwhile are left out.

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
        """Return every job of one case, without the cache.

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
        case = folder.parent.relative_to(self._reports).as_posix()
        record = JobRecord(case=case, job_id=folder.name)
        reported_ns = max(
            (stamps[name][1] for name in (REPORT, REPEAT) if name in stamps), default=0
        )
        if ORDER in stamps:
            with suppress(PermanentError):  # not a request of this version
                record = _of_order(record, parse_order((folder / ORDER).read_bytes()))
        for name in (REPORT, REPEAT):
            if name in stamps:
                with suppress(ValueError):  # not a report of this version
                    record = _of_report(record, parse_report((folder / name).read_bytes()))
                record = replace(record, reported_at=reported_ns / 1e9)
        if ATTEMPTS not in stamps:
            return record
        attempts = attempt_log.read(folder)
        is_begun = attempts.is_open and stamps[ATTEMPTS][1] > reported_ns
        return replace(
            record,
            is_begun=is_begun,
            attempts=attempts.count,
            attempt_failed=attempts.has_failed,
            attempt_code=attempts.code,
        )


def history_of(spool: Spool, case: str) -> tuple[JobRecord, ...]:
    """Return the jobs of a case, oldest first.

    They are published, refused, requested or abandoned. Repetitions of a published job that were
    not published (`repeat.json`) are left out.

    Raises:
        OSError: a report cannot be read right now.
    """
    records = []
    for path in case_path(spool.reports, case).glob(f"*/{REPORT}"):
        report = read_report(path)
        if report is not None:
            record = _of_report(JobRecord(case=case, job_id=path.parent.name), report)
            if record.is_publishing and not _will_be_published(spool, record.job_id, report.staged):
                record = replace(record, state=JobState.ABANDONED)
            records.append(record)
    records.extend(
        _of_order(JobRecord(case=case, job_id=order.job.job_id), order)
        for order in pending_orders(spool, case)
    )
    return tuple(sorted(records, key=lambda record: record.created_at))


def reported_files(spool: Spool, case: str, job_id: str) -> dict[str, ReportedFile]:
    """Return the files that a job's report lists, by name.

    Raises:
        OSError: the report cannot be read right now.
    """
    report = read_report(case_path(spool.reports, case) / job_id / REPORT)
    return {} if report is None else {file.file: file for file in report.result.files}


def is_worked_on(spool: Spool, case: str, job_id: str, *, longest_seconds: float) -> bool:
    """Return whether a worker has a job, or may still have it.

    Args:
        spool: holds claims and reports.
        case: name of the case.
        job_id: id of the job.
        longest_seconds: an attempt that began longer ago has ended, regardless of its log.

    Raises:
        OSError: locks or reports cannot be read right now.
    """
    if is_claimed(spool.locks, job_id):
        return True
    folder = case_path(spool.reports, case) / job_id
    try:
        begun_at = (folder / ATTEMPTS).stat().st_mtime
    except FileNotFoundError:
        return False
    return attempt_log.read(folder).is_open and time() - begun_at < longest_seconds


def instant(moment: datetime) -> str:
    """Return a time as sortable text, as in reports.

    Args:
        moment: with its time zone.
    """
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


@contextmanager
def gone_is_no_error() -> Iterator[None]:
    """Ignore that a file or folder has vanished.

    Workers and users move files while they are being looked at.

    Raises:
        OSError: any other error.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in GONE:
            raise


def _will_be_published(spool: Spool, job_id: str, staged: str) -> bool:
    """Return whether a publication goes on.

    A worker is publishing the job, or the next one to start will. After a restore from a backup
    neither is the case.
    """
    if is_claimed(spool.locks, job_id):
        return True
    return bool(staged) and (spool.staging / Path(staged).name / UNFINISHED).exists()


def _job_folders(folder: str, level: int) -> Iterator[tuple[str, _Stamps]]:
    """Yield each job folder with its files, at any depth.

    Paths are text because `Path` is slow.
    """
    folders: list[str] = []
    stamps: _Stamps = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name in _JOB_FILES:
                    status = entry.stat(follow_symlinks=False)
                    stamps[entry.name] = (status.st_ino, status.st_mtime_ns, status.st_size)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
    except OSError as error:
        if error.errno not in GONE:
            raise
        return
    if stamps and level > 1:
        yield folder, stamps
        return
    for path in folders:
        yield from _job_folders(path, level + 1)


def _of_report(record: JobRecord, report: ReportSummary) -> JobRecord:
    return replace(
        record,
        state=report.state,
        code=report.result.code,
        reason=report.result.reason,
        digest=report.content_digest,
        generation=report.generation,
        created_at=instant(datetime.fromisoformat(report.created_at)),
        options=_options(report),
    )


def _of_order(record: JobRecord, order: ReplayRequest) -> JobRecord:
    return replace(
        record,
        state=JobState.ORDERED,
        digest=order.job.manifest.digest,
        generation=order.job.generation,
        created_at=instant(order.job.submitted_at),
        options=order.job.options,
    )


def _options(report: ReportSummary) -> DefaceOptions | None:
    try:
        return read_options(report.options)
    except ValueError:
        return None  # of another version
