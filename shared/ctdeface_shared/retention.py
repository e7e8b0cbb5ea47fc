"""Removes what was kept long enough: archived originals and outputs, quarantined cases, reports of cases that are gone."""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ctdeface_shared.settings import SpoolSection
from ctdeface_shared.spool import ServiceSpool

DAY_SECONDS = 86_400.0
_JOB = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(-[0-9]+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """How many job folders were removed from each place."""

    archive: int = 0
    quarantine: int = 0
    reports: int = 0


def remove_expired(spool: ServiceSpool, rules: SpoolSection, *, now: float) -> Removed:
    """Remove every job's folder that is older than its place allows.

    A report stays as long as its case lies in inbox, outbox or quarantine: it is what says that the case is done, or why not.

    Args:
        spool: where to look.
        rules: how many days each place keeps; None keeps for ever.
        now: seconds since the epoch.
    """
    return Removed(
        archive=_remove(spool.archive, rules.archive_days, now),
        quarantine=_remove(spool.quarantine, rules.quarantine_days, now),
        reports=_remove(spool.reports, rules.reports_days, now, unless_below=(spool.inbox, spool.outbox, spool.quarantine)),
    )


def _remove(root: Path, days: float | None, now: float, unless_below: tuple[Path, ...] = ()) -> int:
    if days is None:
        return 0
    expired = [
        folder
        for folder in _job_folders(root)
        if now - _put_there(folder) > days * DAY_SECONDS
        and not any((other / folder.parent.relative_to(root)).exists() for other in unless_below)
    ]
    for folder in expired:
        shutil.rmtree(folder)
        _remove_empty(folder.parent, root)
    return len(expired)


def _job_folders(root: Path) -> Iterator[Path]:
    """Yield the folders that are named after a job, at any depth."""
    for parent, names, _ in os.walk(root):
        jobs = [name for name in names if _JOB.fullmatch(name)]
        yield from (Path(parent) / name for name in jobs)
        names[:] = sorted(set(names) - set(jobs))


def _put_there(folder: Path) -> float:
    """When a folder was moved to its place: a rename changes the status, not the content."""
    status = folder.stat()
    return max(status.st_mtime, status.st_ctime)


def _remove_empty(folder: Path, root: Path) -> None:
    while folder != root and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
