"""The history of every job, read from the report folders.

`reports/<case>/<job>/` holds `report.json` (how far the job came), `repeat.json` (a repetition that
was not published), `attempts.log` (its attempts) and `order.json` (a requested replay). They are
the truth about every job that was requested, began or ended. Unchanged files are not read again.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import time

from ctdeface_shared.errors import LateFiles, UnsafeArchive, UnsafeDrop
from ctdeface_shared.jobs import attempt_log
from ctdeface_shared.jobs.attempt_log import ATTEMPTS
from ctdeface_shared.jobs.messages import read_options
from ctdeface_shared.jobs.moments import read_moment
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
from ctdeface_shared.storage.bounded import (
    LARGEST_REPORT_BYTES,
    LARGEST_STATE_BYTES,
    DamagedFile,
    read_bounded,
)
from ctdeface_shared.storage.case_folders import GONE
from ctdeface_shared.storage.locks import UNFINISHED, is_claimed
from ctdeface_shared.storage.skipped import Skipped, attempt, skipped
from ctdeface_shared.storage.spool import Spool, case_path
from ctdeface_shared.storage.tree import walk_tree

DROP_REFUSALS = frozenset({error.__name__ for error in (LateFiles, UnsafeArchive, UnsafeDrop)})
"""Codes of drops that the watcher refused itself; they do not describe the case of that name."""
_PLACE = "reports"


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
        owner: user id of who dropped the case; None if unknown.
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
    owner: int | None = None

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


_Stamps = dict[str, tuple[int, ...]]
"""Inode, times of modification and of status in nanoseconds, and size of a job's files."""


@dataclass(frozen=True, slots=True)
class _ReadJob:
    """A job as it was read, and its files that could not be read."""

    stamps: _Stamps
    record: JobRecord
    skipped: tuple[Skipped, ...] = ()


class JobReader:
    """Reader of all jobs of a spool.

    It is used repeatedly and reads only what changed, so a damaged file is read once.
    What it remembers is a cache that can be lost at any time.

    Attributes:
        skipped: what the last `read` left out: damaged or unreadable files and folders.
    """

    def __init__(self, reports: Path) -> None:
        """Begin with an empty cache."""
        self._reports = reports
        self._read: dict[str, _ReadJob] = {}
        self.skipped: tuple[Skipped, ...] = ()

    def read(self) -> tuple[JobRecord, ...]:
        """Return every job; folders that vanish meanwhile are left out.

        A job whose report is damaged is returned without a state.

        Raises:
            OSError: the reports cannot be listed, for another reason than that they are gone.
        """
        jobs: dict[str, _ReadJob] = {}
        unlisted: list[Skipped] = []
        for folder, stamps in self._job_folders(self._reports, unlisted):
            known = self._read.get(folder)
            if known is None or known.stamps != stamps:
                known = self._job(Path(folder), stamps)
            jobs[folder] = known
        self._read = jobs
        found = (one for job in jobs.values() for one in job.skipped)
        self.skipped = (*unlisted, *found)
        return tuple(job.record for job in jobs.values())

    def of_case(self, case: str) -> tuple[JobRecord, ...]:
        """Return every job of one case, without the cache.

        Raises:
            EscapingPath: the name leads out of the reports.
            OSError: the folder of the case cannot be listed, for another reason than that it is
                gone.
        """
        found = self._job_folders(case_path(self._reports, case), [])
        records = (self._job(Path(folder), stamps).record for folder, stamps in found)
        return tuple(record for record in records if record.case == case)

    def _job_folders(self, root: Path, unlisted: list[Skipped]) -> Iterator[tuple[str, _Stamps]]:
        """Yield each job folder with its files, at any depth.

        Args:
            root: the reports, or those of one case.
            unlisted: receives the folders that cannot be listed.

        Raises:
            OSError: the root cannot be listed.
        """
        above, jobs = len(str(self._reports)), set[str]()

        def note(error: OSError) -> None:
            if error.errno in GONE:
                return
            if error.filename == str(root):
                raise error
            unlisted.append(skipped(_PLACE, str(error.filename)[above + 1 :], error))

        for folder, entries in walk_tree(
            root, note, enters=lambda path: path.rpartition("/")[0] not in jobs
        ):
            stamps = _stamps(entries) if folder.count("/", above) > 1 else {}
            if stamps:
                jobs.add(folder)
                yield folder, stamps

    def _job(self, folder: Path, stamps: _Stamps) -> _ReadJob:
        """Read a job, each of its files by itself."""
        name = folder.relative_to(self._reports)
        record = JobRecord(case=name.parent.as_posix(), job_id=folder.name)
        left_out = []
        for file, read in _READERS.items():
            if file in stamps:
                change = partial(_unless_gone, read, record, folder / file)
                changed = attempt(_PLACE, (name / file).as_posix(), change)
                if isinstance(changed, Skipped):
                    left_out.append(changed)
                else:
                    record = changed
        reported = [stamps[name][1] for name in (REPORT, REPEAT) if name in stamps]
        if reported:
            record = replace(record, reported_at=max(reported) / 1e9)
        if record.is_begun:  # the log holds no report of this attempt
            is_begun = stamps[ATTEMPTS][1] > max(reported, default=0)
            record = replace(record, is_begun=is_begun)
        return _ReadJob(stamps, record, tuple(left_out))


def _stamps(entries: "Iterable[os.DirEntry[str]]") -> _Stamps:
    stamps: _Stamps = {}
    for entry in entries:
        if entry.name in _READERS:
            with gone_is_no_error():
                status = entry.stat(follow_symlinks=False)
                times = (status.st_mtime_ns, status.st_ctime_ns)
                stamps[entry.name] = (status.st_ino, *times, status.st_size)
    return stamps


def _unless_gone(read: "_Reader", record: JobRecord, file: Path) -> JobRecord:
    with gone_is_no_error():
        return read(record, file)
    return record


def _with_order(record: JobRecord, file: Path) -> JobRecord:
    return _of_order(record, parse_order(read_bounded(file, LARGEST_STATE_BYTES)))


def _with_report(record: JobRecord, file: Path) -> JobRecord:
    try:
        return _of_report(record, parse_report(read_bounded(file, LARGEST_REPORT_BYTES)))
    except DamagedFile:
        raise
    except ValueError:  # its text quotes the content
        raise DamagedFile(
            "it is not a report that this version can read: restore it from a backup, or remove it"
        ) from None


def _with_attempts(record: JobRecord, file: Path) -> JobRecord:
    attempts = attempt_log.parse(read_bounded(file, LARGEST_STATE_BYTES))
    return replace(
        record,
        is_begun=attempts.is_open,
        attempts=attempts.count,
        attempt_failed=attempts.has_failed,
        attempt_code=attempts.code,
    )


_Reader = Callable[[JobRecord, Path], JobRecord]
_READERS: Mapping[str, _Reader] = {
    ORDER: _with_order,
    REPORT: _with_report,
    REPEAT: _with_report,
    ATTEMPTS: _with_attempts,
}
"""How each file of a job changes what is known of it; later ones override earlier ones."""


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


def require_readable_report(spool: Spool, case: str, job_id: str) -> None:
    """Check that the report of a job, if there is one, can be read.

    Raises:
        DamagedFile: it is not a report that this version can read.
        OSError: it cannot be read right now.
    """
    record = JobRecord(case=case, job_id=job_id)
    _unless_gone(_with_report, record, case_path(spool.reports, case) / job_id / REPORT)


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


def _of_report(record: JobRecord, report: ReportSummary) -> JobRecord:
    return replace(
        record,
        state=report.state,
        code=report.result.code,
        reason=report.result.reason,
        digest=report.content_digest,
        generation=report.generation,
        created_at=instant(read_moment(report.created_at)),
        options=_options(report),
        owner=report.owner,
    )


def _of_order(record: JobRecord, order: ReplayRequest) -> JobRecord:
    return replace(
        record,
        state=JobState.ORDERED,
        digest=order.job.manifest.digest,
        generation=order.job.generation,
        created_at=instant(order.job.submitted_at),
        options=order.job.options,
        owner=order.job.owner,
    )


def _options(report: ReportSummary) -> DefaceOptions | None:
    try:
        return read_options(report.options)
    except ValueError:
        return None  # of another version
