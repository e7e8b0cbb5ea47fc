"""Removes what was kept long enough: archived originals and outputs, quarantined cases, reports of cases that are gone."""

import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ctdeface_shared.jobs.history import JobReader
from ctdeface_shared.settings.sections import SpoolSection
from ctdeface_shared.storage.spool import ServiceSpool

DAY_SECONDS = 86_400.0
_GOING = ".removed"
_JOB = re.compile(r"\.?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(-[0-9]+)?(\.removed)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """How many job folders were removed from each place."""

    archive: int = 0
    quarantine: int = 0
    reports: int = 0


def remove_expired(
    spool: ServiceSpool, rules: SpoolSection, *, now: float, case_depth: int = 1
) -> Removed:
    """Remove every job's folder that is older than its place allows.

    A report stays as long as its case lies in inbox, outbox or quarantine: it is what says that the
        case is done, or why not. Nothing goes
    of a case that has a job which has not ended. What cannot be removed now is left for the next
    time.

    Args:
        spool: where to look.
        rules: how many days each place keeps; None keeps for ever.
        now: seconds since the epoch.
        case_depth: cases lie so many levels below the inbox, and their jobs one level deeper.

    Raises:
        OSError: the reports cannot be read.
    """
    if rules.archive_days is rules.quarantine_days is rules.reports_days is None:
        return Removed()
    busy = frozenset(job.case for job in JobReader(spool.reports).read() if not job.ended)
    depth = case_depth + 1
    archives = sorted(folder for folder in spool.archive.iterdir() if folder.is_dir())
    return Removed(
        archive=sum(
            _remove(_jobs_before(root, depth, rules.archive_days, now), lambda case: case in busy)
            for root in archives
        ),
        quarantine=_remove(
            _jobs_before(spool.quarantine, depth, rules.quarantine_days, now),
            lambda case: case in busy,
        ),
        reports=_remove(
            _jobs_before(spool.reports, depth, rules.reports_days, now),
            lambda case: case in busy or _is_there(spool, case),
        ),
    )


def _is_there(spool: ServiceSpool, case: str) -> bool:
    return any((place / case).exists() for place in (spool.inbox, spool.outbox, spool.quarantine))


@dataclass(frozen=True, slots=True)
class _Job:
    """A job's folder whose time is over."""

    folder: Path
    root: Path

    @property
    def case(self) -> str:
        return self.folder.parent.relative_to(self.root).as_posix()


def _jobs_before(root: Path, depth: int, days: float | None, now: float) -> Iterator[_Job]:
    """Yield the folders at the depth of jobs that are named after a job and older than so many days; none without days.

    A case may be named like a job, and its originals may hold such names too: only the depth tells
        them apart.
    """
    if days is None:
        return
    for folder in sorted(root.glob("/".join(["*"] * depth))):
        with suppress(OSError):
            if _JOB.fullmatch(folder.name) and (
                folder.name.endswith(_GOING) or now - _put_there(folder) > days * DAY_SECONDS
            ):
                yield _Job(folder, root)


def _remove(jobs: Iterable[_Job], is_kept: Callable[[str], bool]) -> int:
    removed = 0
    for job in jobs:
        with suppress(OSError):
            if job.folder.name.endswith(_GOING):
                shutil.rmtree(job.folder)  # a removal that was interrupted
            elif not is_kept(job.case):
                going = job.folder.rename(
                    job.folder.with_name(f".{job.folder.name}{_GOING}")
                )  # nobody takes half of it for the whole
                removed += 1
                shutil.rmtree(going)
            _remove_empty(job.folder.parent, job.root)
    return removed


def _put_there(folder: Path) -> float:
    """When a folder was moved to its place: a rename changes the status, not the content."""
    status = folder.stat()
    return max(status.st_mtime, status.st_ctime)


def _remove_empty(folder: Path, root: Path) -> None:
    """Remove folders that hold nothing any more; a worker that is just putting something there is faster."""
    while folder != root and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
