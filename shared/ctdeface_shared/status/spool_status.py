"""The state of every case in a spool, read from its folders without queue or ledger.

A case is waiting while it is in the inbox, unless it stays there and was taken as it is. From then
on it is in flight until its job has ended, also between two attempts.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, TypeVar

from ctdeface_shared.jobs.history import JobReader, JobRecord, gone_is_no_error
from ctdeface_shared.jobs.states import JobState
from ctdeface_shared.status.in_flight import InFlight, TakenJob, TakenReader, cases_in_flight
from ctdeface_shared.storage.case_folders import GONE, PathKind, is_hidden, is_ignored, walk
from ctdeface_shared.storage.skipped import Skipped, attempt
from ctdeface_shared.storage.spool import ServiceSpool, case_path
from ctdeface_shared.storage.tree import walk_tree

Result = TypeVar("Result")

HOUR_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A case whose newest job was refused and is still in the quarantine.

    Attributes:
        case: name of the case; may identify a patient.
        job_id: id of the job.
        code: code of the refusal.
        reason: the refusal as a sentence.
        ended_at: seconds since the epoch.
        quarantine: folder of its originals and reports.
        report: report for a person, in that folder.
    """

    case: str
    job_id: str
    code: str
    reason: str
    ended_at: float
    quarantine: str
    report: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolStatus:
    """The state of all cases at one moment.

    Attributes:
        at: that moment, seconds since the epoch.
        waiting: names of cases and zip files in the inbox that were not taken.
        empty: names of folders in the inbox that hold no file; they do not count as cases.
        in_flight: cases that were taken and have not ended, by name.
        released: number of cases in the outbox.
        refused: refused cases, newest first.
        oldest_waiting_seconds: age of the case that waits longest; None if none waits.
        ended_last_hour: number of jobs that ended in the last hour.
        skipped: what could not be examined; the rest of the status does not include it.
    """

    at: float
    waiting: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    in_flight: tuple[InFlight, ...] = ()
    released: int = 0
    refused: tuple[Refused, ...] = ()
    oldest_waiting_seconds: float | None = None
    ended_last_hour: int = 0
    skipped: tuple[Skipped, ...] = ()

    @property
    def is_idle(self) -> bool:
        """Return whether nothing is waiting and nothing in flight, as far as can be seen."""
        has_unseen_folder = any(not one.name for one in self.skipped)
        return not self.waiting and not self.in_flight and not has_unseen_folder

    @property
    def refused_codes(self) -> dict[str, int]:
        """Return the number of refused cases by code, most frequent first."""
        counts: dict[str, int] = {}
        for one in self.refused:
            counts[one.code] = counts.get(one.code, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def as_plain(self) -> dict[str, Any]:
        """Return plain values for JSON: numbers, and cases by name."""
        return {
            "at": self.at,
            "waiting": len(self.waiting),
            "empty": list(self.empty),
            "in_flight": len(self.in_flight),
            "in_flight_cases": [asdict(one) for one in self.in_flight],
            "released": self.released,
            "refused": len(self.refused),
            "refused_codes": self.refused_codes,
            "refused_cases": [asdict(one) for one in self.refused],
            "oldest_waiting_seconds": self.oldest_waiting_seconds,
            "ended_last_hour": self.ended_last_hour,
            "skipped": [asdict(one) for one in self.skipped],
            "is_idle": self.is_idle,
        }


@dataclass(frozen=True, slots=True)
class _Skips:
    """What one look leaves out."""

    found: list[Skipped] = field(default_factory=list)

    def attempt(
        self, place: str, name: str, work: Callable[[], Result], otherwise: Result
    ) -> Result:
        """Return the result of a task, or another one if it failed."""
        result = attempt(place, name, work)
        if isinstance(result, Skipped):
            self.found.append(result)
            return otherwise
        return result


class SpoolScanner:
    """Scans one spool repeatedly and reads only what changed."""

    def __init__(
        self, spool: ServiceSpool, *, case_depth: int = 1, ignore: Sequence[str] = ()
    ) -> None:
        """Begin with an empty cache.

        Args:
            spool: the spool to scan.
            case_depth: level of the case folders below the inbox.
            ignore: patterns of names that do not count.
        """
        self._spool, self._depth, self._ignore = spool, case_depth, tuple(ignore)
        self._jobs = JobReader(spool.reports)
        self._taken = TakenReader(spool)

    def look(self, now: float, kept: Collection[str] = ()) -> SpoolStatus:
        """Scan the spool; leave out what vanishes meanwhile or cannot be examined.

        Args:
            now: seconds since the epoch.
            kept: names of cases and zip files that stay in the inbox and were taken as they are.
        """
        skips = _Skips()
        # In the order of a case's way: one that moves on meanwhile is seen twice instead of lost.
        inbox = skips.attempt("inbox", "", self._inbox, dict[str, Path]())
        taken = skips.attempt("taken", "", self._taken.read, tuple[TakenJob, ...]())
        records = skips.attempt("reports", "", self._jobs.read, tuple[JobRecord, ...]())
        skips.found.extend((*self._taken.skipped, *self._jobs.skipped))
        in_flight = cases_in_flight(records, taken)
        left = {one.record.entry for one in taken if one.record.left_in_inbox}
        present = {name: path for name, path in inbox.items() if name not in {*kept, *left}}
        in_inbox = self._in_inbox(present, now, skips)
        waiting = {name: since for name, since in in_inbox.items() if since is not None}
        oldest = min(waiting.values(), default=None)
        elsewhere = waiting.keys() | {one.case for one in in_flight}
        return SpoolStatus(
            at=now,
            waiting=tuple(sorted(waiting)),
            empty=tuple(sorted(in_inbox.keys() - waiting.keys())),
            in_flight=in_flight,
            released=skips.attempt("outbox", "", self._count_released, 0),
            refused=self._refused(records, elsewhere, skips),
            oldest_waiting_seconds=None if oldest is None else max(now - oldest, 0.0),
            ended_last_hour=sum(
                one.ended and now - HOUR_SECONDS < one.reported_at <= now for one in records
            ),
            skipped=tuple(skips.found),
        )

    def _inbox(self) -> dict[str, Path]:
        return dict(
            _entries_of_cases(self._spool.inbox, self._depth, self._ignore, with_unreadable=True)
        )

    def _count_released(self) -> int:
        return sum(path.is_dir() for _, path in _entries_of_cases(self._spool.outbox, self._depth))

    def _in_inbox(
        self, inbox: Mapping[str, Path], now: float, skips: _Skips
    ) -> dict[str, float | None]:
        """Return since when each case and zip file waits, None for an empty folder.

        A case that cannot be examined waits, too.
        """
        found: dict[str, float | None] = {}

        def add(name: str, path: Path) -> bool:
            with gone_is_no_error():
                status = path.stat(follow_symlinks=False)
                if S_ISREG(status.st_mode) and path.suffix.lower() == ".zip":
                    found[name] = status.st_ctime
                if S_ISDIR(status.st_mode):
                    found[name] = status.st_ctime if self._holds_a_file(path) else None
            return True

        for name, path in inbox.items():
            if not skips.attempt("inbox", name, partial(add, name, path), otherwise=False):
                found[name] = now
        return found

    def _holds_a_file(self, folder: Path) -> bool:
        """Return whether a case holds a file; a folder that cannot be read may hold one."""
        errors: list[OSError] = []
        found = any(
            not entry.is_dir(follow_symlinks=False) and not is_ignored(entry.name, self._ignore)
            for _, entries in walk_tree(folder, errors.append)
            for entry in entries
        )
        return found or any(error.errno not in GONE for error in errors)

    def _refused(
        self, records: Iterable[JobRecord], elsewhere: set[str], skips: _Skips
    ) -> tuple[Refused, ...]:
        found = []
        newest = newest_of(one for one in records if one.state is not JobState.ORDERED)
        for one in newest.values():
            if one.state is JobState.REFUSED and one.case not in elsewhere:
                work = partial(self._refused_case, one)
                refused = skips.attempt("quarantine", f"{one.case}/{one.job_id}", work, None)
                found.extend([refused] if refused else [])
        return tuple(sorted(found, key=lambda one: (-one.ended_at, one.case)))

    def _refused_case(self, job: JobRecord) -> Refused | None:
        folder = case_path(self._spool.quarantine, job.case) / job.job_id
        if not folder.is_dir():
            return None
        return Refused(
            case=job.case,
            job_id=job.job_id,
            code=job.code,
            reason=job.reason,
            ended_at=job.reported_at,
            quarantine=str(folder),
            report=str(report_file(folder)),
        )


def report_file(folder: Path) -> Path:
    """Return the report in a folder that a person should open.

    Drops that the watcher refuses have no page, only `report.json`.
    """
    page = folder / "report.html"
    return page if page.exists() else folder / "report.json"


def newest_of(records: Iterable[JobRecord]) -> dict[str, JobRecord]:
    """Return the newest reported or requested job of each case."""
    return {
        record.case: record
        for record in sorted((one for one in records if one.state), key=lambda one: one.age_key)
    }


def _entries_of_cases(
    root: Path, depth: int, ignore: Sequence[str] = (), *, with_unreadable: bool = False
) -> Iterator[tuple[str, Path]]:
    """Yield name and path of each entry at the case level.

    Args:
        root: folder to start from; none if it does not exist.
        depth: level of the cases.
        ignore: patterns of names that do not count; hidden names never do.
        with_unreadable: also yield folders above the case level that this user may not read.

    Raises:
        OSError: a folder cannot be read.
    """

    def skips(name: str) -> bool:
        return is_hidden(name) or is_ignored(name, ignore)

    with gone_is_no_error():
        for found in walk(root, depth, skips=skips):
            is_unreadable = found.kind is PathKind.UNREADABLE
            if found.level == depth or (is_unreadable and with_unreadable):
                yield found.path.relative_to(root).as_posix(), found.path
