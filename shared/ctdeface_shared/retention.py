"""Removes what was kept long enough: archived originals and outputs, quarantined cases, reports of cases that are gone."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ctdeface_shared.past_jobs import JobReader
from ctdeface_shared.settings import SpoolSection
from ctdeface_shared.spool import ServiceSpool

DAY_SECONDS = 86_400.0
_GOING = ".removed"
_JOB = re.compile(r"\.?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(-[0-9]+)?(\.removed)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """How many job folders were removed from each place."""

    archive: int = 0
    quarantine: int = 0
    reports: int = 0


def remove_expired(spool: ServiceSpool, rules: SpoolSection, *, now: float) -> Removed:
    """Remove every job's folder that is older than its place allows.

    A report stays as long as its case lies in inbox, outbox or quarantine: it is what says that the case is done, or why not. Nothing goes
    of a case that has a job which has not ended. What cannot be removed now is left for the next time.

    Args:
        spool: where to look.
        rules: how many days each place keeps; None keeps for ever.
        now: seconds since the epoch.

    Raises:
        OSError: the reports cannot be read.
    """
    if rules.archive_days is rules.quarantine_days is rules.reports_days is None:
        return Removed()
    busy = frozenset(job.case for job in JobReader(spool.reports).read() if not job.ended)
    archives = sorted(folder for folder in spool.archive.iterdir() if folder.is_dir())
    return Removed(
        archive=sum(_remove(root, rules.archive_days, now, lambda case: case in busy) for root in archives),
        quarantine=_remove(spool.quarantine, rules.quarantine_days, now, lambda case: case in busy),
        reports=_remove(spool.reports, rules.reports_days, now, lambda case: case in busy or _is_there(spool, case)),
    )


def _is_there(spool: ServiceSpool, case: str) -> bool:
    return any((place / case).exists() for place in (spool.inbox, spool.outbox, spool.quarantine))


def _remove(root: Path, days: float | None, now: float, is_kept: Callable[[str], bool]) -> int:
    if days is None:
        return 0
    removed = 0
    for folder in list(_job_folders(root)):
        with suppress(OSError):
            if folder.name.endswith(_GOING):
                shutil.rmtree(folder)  # a removal that was interrupted
            elif now - _put_there(folder) > days * DAY_SECONDS and not is_kept(folder.parent.relative_to(root).as_posix()):
                going = folder.rename(folder.with_name(f".{folder.name}{_GOING}"))  # nobody takes half of it for the whole
                removed += 1
                shutil.rmtree(going)
            _remove_empty(folder.parent, root)
    return removed


def _job_folders(root: Path) -> Iterator[Path]:
    """Yield the folders that are named after a job, at any depth below a case's."""
    for parent, names, _ in os.walk(root):
        if Path(parent) != root:
            jobs = [name for name in names if _JOB.fullmatch(name)]
            yield from (Path(parent) / name for name in jobs)
            names[:] = sorted(set(names) - set(jobs))


def _put_there(folder: Path) -> float:
    """When a folder was moved to its place: a rename changes the status, not the content."""
    status = folder.stat()
    return max(status.st_mtime, status.st_ctime)


def _remove_empty(folder: Path, root: Path) -> None:
    """Remove folders that hold nothing any more; a worker that is just putting something there is faster."""
    while folder != root and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
