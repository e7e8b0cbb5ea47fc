"""Removal of what was kept long enough.

Originals and outputs in the archive, quarantined cases, and reports of cases that are gone.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ctdeface_shared.jobs.history import JobReader
from ctdeface_shared.jobs.taken import JOB, RECORD, TakenCase, taken_cases
from ctdeface_shared.settings.sections import SpoolSection
from ctdeface_shared.storage.case_folders import is_hidden
from ctdeface_shared.storage.private_tree import remove_tree
from ctdeface_shared.storage.spool import ServiceSpool

DAY_SECONDS = 86_400.0
_LONGEST_PAUSE_SECONDS = 3600.0
_PAUSE_SHARE = 0.25
"""Longest delay of a removal, as a share of the time that a folder is kept."""
_BEGINNING_SECONDS = 3600.0
"""A folder in `taken` that is older and still has its hidden name was left by a crash."""
_REMOVED = ".removed"
_JOB = re.compile(r"\.?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(-[0-9]+)?(\.removed)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """The number of job folders removed from each place."""

    archive: int = 0
    quarantine: int = 0
    reports: int = 0


def seconds_between_removals(rules: SpoolSection) -> float:
    """Return the time between two removals."""
    days = (rules.archive_days, rules.quarantine_days, rules.reports_days)
    shares = [each * DAY_SECONDS * _PAUSE_SHARE for each in days if each is not None]
    return min([_LONGEST_PAUSE_SECONDS, *shares])


def remove_expired(
    spool: ServiceSpool, rules: SpoolSection, *, now: float, case_depth: int = 1
) -> Removed:
    """Remove the expired job folders of every place.

    A report stays while its case is in inbox, outbox or quarantine, because it shows that the case
    is done, or why not. Nothing is removed of a case that was taken, has a job in progress, or has
    reports that cannot be read. Folders that cannot be removed now are left for the next time.

    Args:
        spool: the folders of the service.
        rules: days that each place keeps a folder; None keeps it forever.
        now: seconds since the epoch.
        case_depth: level of the cases below a place; jobs are one level deeper.

    Raises:
        OSError: the reports cannot be read.
    """
    if rules.archive_days is rules.quarantine_days is rules.reports_days is None:
        return Removed()
    reader = JobReader(spool.reports)
    busy = {job.case for job in reader.read() if not job.ended} | set(_taken_names(spool))
    unknown = {"/".join(one.name.split("/")[:case_depth]) for one in reader.skipped}

    def is_busy(case: str) -> bool:
        return case in busy or any(case == one or case.startswith(f"{one}/") for one in unknown)

    depth = case_depth + 1
    archives = sorted(folder for folder in spool.archive.iterdir() if folder.is_dir())
    return Removed(
        archive=sum(
            _remove(_expired_jobs(root, depth, rules.archive_days, now), is_busy)
            for root in archives
        ),
        quarantine=_remove(
            _expired_jobs(spool.quarantine, depth, rules.quarantine_days, now), is_busy
        ),
        reports=_remove(
            _expired_jobs(spool.reports, depth, rules.reports_days, now),
            lambda case: is_busy(case) or _is_in_spool(spool, case),
        ),
    )


def _taken_names(spool: ServiceSpool) -> Iterator[str]:
    """Yield the names of the taken cases; one that cannot be read keeps none from removal."""
    for taken in taken_cases(spool):
        with suppress(OSError):
            record = taken.record()
            if record is not None:
                yield record.case


def remove_remains(spool: ServiceSpool, now: float) -> None:
    """Remove what is left in `taken` of cases that have ended or were never taken.

    What its owner protects from removal stays until the owner or an administrator removes it.

    Args:
        spool: the folders of the service.
        now: seconds since the epoch.

    Raises:
        OSError: `taken` cannot be read.
    """
    for folder in sorted(spool.taken.iterdir()):
        taken = TakenCase(folder)
        with suppress(OSError):
            if is_hidden(folder.name):
                is_left = now - _moved_at(folder) > _BEGINNING_SECONDS
            else:
                is_left = not any(os.path.lexists(folder / name) for name in (RECORD, JOB))
            if is_left and not taken.files.is_dir():
                remove_tree(folder)


def _is_in_spool(spool: ServiceSpool, case: str) -> bool:
    return any((place / case).exists() for place in (spool.inbox, spool.outbox, spool.quarantine))


@dataclass(frozen=True, slots=True)
class _ExpiredJob:
    """A job's folder that may be removed."""

    folder: Path
    root: Path

    @property
    def case(self) -> str:
        return self.folder.parent.relative_to(self.root).as_posix()


def _expired_jobs(root: Path, depth: int, days: float | None, now: float) -> Iterator[_ExpiredJob]:
    """Yield job folders older than a number of days.

    A case may have a name like a job's, and its originals may hold such names too. Only the depth
    tells them apart.
    """
    if days is None:
        return
    for folder in sorted(root.glob("/".join(["*"] * depth))):
        with suppress(OSError):
            if _JOB.fullmatch(folder.name) and (
                folder.name.endswith(_REMOVED) or now - _moved_at(folder) > days * DAY_SECONDS
            ):
                yield _ExpiredJob(folder, root)


def _remove(jobs: Iterable[_ExpiredJob], is_kept: Callable[[str], bool]) -> int:
    removed = 0
    for job in jobs:
        with suppress(OSError):
            if job.folder.name.endswith(_REMOVED):
                remove_tree(job.folder)  # finishes an interrupted removal
            elif not is_kept(job.case):
                # Renamed first, so that a half-removed folder is not taken for a whole one.
                hidden = job.folder.rename(job.folder.with_name(f".{job.folder.name}{_REMOVED}"))
                removed += 1
                remove_tree(hidden)
            _remove_empty(job.folder.parent, job.root)
    return removed


def _moved_at(folder: Path) -> float:
    """Return when a folder was moved, seconds since the epoch.

    A rename changes the time of status, not the time of modification.
    """
    status = folder.stat(follow_symlinks=False)
    return max(status.st_mtime, status.st_ctime)


def _remove_empty(folder: Path, root: Path) -> None:
    """Remove empty folders up to the root.

    `rmdir` fails if a worker has just put something there.
    """
    while folder != root and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
