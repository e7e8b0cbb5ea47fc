"""Where every case of a spool is, read from inbox, reports, outbox and quarantine alone; no queue and no ledger is asked.

A case is waiting when it lies in the inbox and no ended job was for exactly these files; a folder
that is still being copied waits as well. It is in flight when a job of it has begun and not ended,
also between two attempts.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, NamedTuple

from ctdeface_shared.errors import UnsafeArchive
from ctdeface_shared.jobs.history import DROP_REFUSALS, JobReader, JobRecord, gone_is_no_error
from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.repeats import was_too_early
from ctdeface_shared.jobs.states import JobState
from ctdeface_shared.storage.case_folders import PathKind, is_hidden, is_ignored, walk
from ctdeface_shared.storage.spool import ServiceSpool, case_path

HOUR_SECONDS = 3600.0
DIGEST_SECONDS = 30.0
"""The files of a case that has ended and lies in the inbox are looked at again after this time, or when its folder changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A case whose newest job was refused and is still in the quarantine.

    Attributes:
        case: its name; may identify a patient.
        job_id: which job.
        code: why.
        reason: the same for a person.
        ended_at: seconds since the epoch.
    """

    case: str
    job_id: str
    code: str
    reason: str
    ended_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolStatus:
    """Where the cases are at one moment.

    Attributes:
        at: that moment, seconds since the epoch.
        waiting: names of cases in the inbox that have not begun, and of zip files.
        in_flight: names of cases that have begun and not ended.
        released: how many lie in the outbox.
        refused: newest first.
        oldest_waiting_seconds: since when the case that waits the longest lies as it is; None when
            none waits.
        ended_last_hour: jobs that ended in the hour before.
    """

    at: float
    waiting: tuple[str, ...] = ()
    in_flight: tuple[str, ...] = ()
    released: int = 0
    refused: tuple[Refused, ...] = ()
    oldest_waiting_seconds: float | None = None
    ended_last_hour: int = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing is waiting and nothing in flight."""
        return not self.waiting and not self.in_flight

    @property
    def refused_codes(self) -> dict[str, int]:
        """How many cases were refused for what, the most frequent first."""
        counts: dict[str, int] = {}
        for one in self.refused:
            counts[one.code] = counts.get(one.code, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def as_plain(self) -> dict[str, Any]:
        """Plain values for JSON: numbers, and the refused cases by name."""
        return {
            "at": self.at,
            "waiting": len(self.waiting),
            "in_flight": len(self.in_flight),
            "released": self.released,
            "refused": len(self.refused),
            "refused_codes": self.refused_codes,
            "refused_cases": [asdict(one) for one in self.refused],
            "oldest_waiting_seconds": self.oldest_waiting_seconds,
            "ended_last_hour": self.ended_last_hour,
            "is_idle": self.is_idle,
        }


class _Taken(NamedTuple):
    """A fingerprint of a case, and when it was taken of what."""

    folder_ns: int
    at: float
    digest: str


class SpoolScanner:
    """Surveys one spool again and again, and reads only what changed."""

    def __init__(
        self, spool: ServiceSpool, *, case_depth: int = 1, ignore: Sequence[str] = ()
    ) -> None:
        """Begin without having looked.

        Args:
            spool: which spool.
            case_depth: cases are the folders so many levels below the inbox.
            ignore: patterns of names that do not count.
        """
        self._spool, self._depth, self._ignore = spool, case_depth, tuple(ignore)
        self._jobs = JobReader(spool.reports)
        self._digests: dict[str, _Taken] = {}

    def look(self, now: float) -> SpoolStatus:
        """Scan the spool; leave out what vanishes meanwhile.

        Args:
            now: seconds since the epoch.

        Raises:
            OSError: a folder cannot be read, for another reason than that it is gone.
        """
        inbox = dict(
            _entries_of_cases(self._spool.inbox, self._depth, self._ignore, with_unreadable=True)
        )  # before the reports: what ends meanwhile is seen twice, not lost
        records = self._jobs.read()
        known = [one for one in records if one.state is not JobState.ORDERED or one.case in inbox]
        newest, jobs = (
            newest_of(known),
            newest_of(one for one in known if one.code not in DROP_REFUSALS),
        )
        zips = {(one.case, one.digest) for one in known if one.code == UnsafeArchive.__name__}
        in_flight = {one.case for one in records if one.is_begun or one.is_publishing}
        waiting = {
            case: since
            for case, path in inbox.items()
            if case not in in_flight
            for since in self._waits(case, path, jobs, now)
        }
        waiting |= {
            name: since for name, path in inbox.items() for since in _zip_waits(name, path, zips)
        }
        self._digests = {case: taken for case, taken in self._digests.items() if case in inbox}
        return SpoolStatus(
            at=now,
            waiting=tuple(sorted(waiting)),
            in_flight=tuple(sorted(in_flight)),
            released=sum(
                path.is_dir() for _, path in _entries_of_cases(self._spool.outbox, self._depth)
            ),
            refused=self._refused(newest, waiting.keys() | in_flight),
            oldest_waiting_seconds=max(
                (max(now - since, 0.0) for since in waiting.values()), default=None
            ),
            ended_last_hour=sum(
                one.ended and now - HOUR_SECONDS < one.reported_at <= now for one in records
            ),
        )

    def _waits(
        self, case: str, path: Path, jobs: Mapping[str, JobRecord], now: float
    ) -> Iterator[float]:
        """Yield since when a case waits, or nothing when it does not."""
        with gone_is_no_error():
            status = path.stat(follow_symlinks=False)
            if not S_ISDIR(status.st_mode):
                return
            latest = jobs.get(case)
            over = latest is not None and latest.ended and not was_too_early(latest)
            if (
                latest is not None
                and over
                and latest.digest == self._digest(case, path, status.st_mtime_ns, now)
            ):
                return
            if self._holds_a_file(path):
                yield status.st_ctime

    def _digest(self, case: str, path: Path, folder_ns: int, now: float) -> str:
        taken = self._digests.get(case)
        if (
            taken is None
            or taken.folder_ns != folder_ns
            or not 0 <= now - taken.at < DIGEST_SECONDS
        ):
            taken = _Taken(
                folder_ns, now, ""
            )  # files that vanish while they are read: it is just changing
            with gone_is_no_error(), suppress(PermissionError):
                taken = _Taken(folder_ns, now, Manifest.scan(path).digest)
            self._digests[case] = taken
        return taken.digest

    def _holds_a_file(self, folder: Path) -> bool:
        """Whether something lies in a case that counts; in a folder that may not be read there may be anything."""
        errors: list[OSError] = []
        names = (name for _, _, names in os.walk(folder, onerror=errors.append) for name in names)
        found = any(not is_ignored(name, self._ignore) for name in names)
        return found or any(isinstance(error, PermissionError) for error in errors)

    def _refused(self, newest: Mapping[str, JobRecord], elsewhere: set[str]) -> tuple[Refused, ...]:
        found = [
            Refused(
                case=one.case,
                job_id=one.job_id,
                code=one.code,
                reason=one.reason,
                ended_at=one.reported_at,
            )
            for one in newest.values()
            if one.state is JobState.REFUSED
            and one.case not in elsewhere
            and (case_path(self._spool.quarantine, one.case) / one.job_id).is_dir()
        ]
        return tuple(sorted(found, key=lambda one: (-one.ended_at, one.case)))


def _zip_waits(name: str, path: Path, refused: set[tuple[str, str]]) -> Iterator[float]:
    """Yield since when a zip file waits; one that was unpacked or refused, and is kept, does not."""
    with gone_is_no_error():
        status = path.stat(follow_symlinks=False)
        if (
            path.suffix.lower() != ".zip"
            or not S_ISREG(status.st_mode)
            or path.with_suffix("").is_dir()
        ):
            return
        if (name.removesuffix(path.suffix), Manifest.of_file(path).digest) not in refused:
            yield status.st_ctime


def newest_of(records: Iterable[JobRecord]) -> dict[str, JobRecord]:
    """Return the newest job of each case, of those that are reported or ordered."""
    return {
        record.case: record
        for record in sorted((one for one in records if one.state), key=lambda one: one.age_key)
    }


def lines(spool_status: SpoolStatus, limit: int = 10) -> tuple[str, ...]:
    """Describe a survey for a person, one thing per line; of the refused cases the newest so many."""
    oldest = (
        ""
        if spool_status.oldest_waiting_seconds is None
        else f", the oldest for {duration(spool_status.oldest_waiting_seconds)}"
    )
    codes = ", ".join(f"{count} {code}" for code, count in spool_status.refused_codes.items())
    shown = spool_status.refused[:limit]
    width = max((len(one.case) for one in shown), default=0)
    more = len(spool_status.refused) - len(shown)
    return (
        f"waiting    {len(spool_status.waiting):>6}{oldest}",
        f"in flight  {len(spool_status.in_flight):>6}",
        f"released   {spool_status.released:>6}, {spool_status.ended_last_hour} jobs ended in the last hour",
        f"refused    {len(spool_status.refused):>6}" + (f": {codes}" if codes else ""),
        *(f"  {one.case:<{width}}  {one.code}: {one.reason}" for one in shown),
        *([f"  and {more} more"] if more > 0 else []),
    )


def duration(seconds: float) -> str:
    """Write a time span in its two largest units."""
    whole = round(seconds)
    for size, unit, smaller, small in (
        (86_400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {small}"
    return f"{whole} s"


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
