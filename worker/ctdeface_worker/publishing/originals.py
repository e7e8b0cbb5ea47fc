"""What happens to the dropped files of a job once its outcome is safe on the disk; every step can be repeated after a crash."""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from ctdeface_shared import logs
from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.options import Originals
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.checksum import sha256_of
from ctdeface_shared.storage.spool import PRIVATE, ServiceSpool, case_path
from ctdeface_worker.pipeline.result import FileResult
from ctdeface_worker.publishing.journal import pages
from ctdeface_worker.report.model import CaseReport

Rename: TypeAlias = Callable[[Path, Path], None]

_UNMOVABLE = frozenset({errno.EACCES, errno.EPERM, errno.EXDEV, errno.EBUSY, errno.EROFS})
"""A folder of somebody else, a mount point: no attempt will ever move it."""

_log = logs.logger(__name__)


def archive(
    spool: ServiceSpool, report: CaseReport, rule: Originals, rename: Rename = os.rename
) -> bool:
    """Archive or delete the originals of a released job, or leave them where they are; so are those that this user may not move.

    Args:
        spool: where everything lies.
        report: of the job.
        rule: what happens to dropped files.
        rename: moves a folder at once.

    Returns:
        Whether they are still in the inbox although they should not be.

    Raises:
        OSError: storage failed; nothing is lost, and it can be repeated.
    """
    if rule is Originals.KEEP:
        return False
    place = case_path(spool.archive / "originals", report.case) / report.job_id
    with _left_if_unmovable() as left:
        place = _move(case_path(spool.inbox, report.case), place, report, rename)
        if rule is Originals.DELETE and place.exists():
            shutil.rmtree(place)
    return bool(left)


def quarantine(
    spool: ServiceSpool, report: CaseReport, rule: Originals, rename: Rename = os.rename
) -> bool:
    """Show a refused job in the quarantine: its report, and its originals unless those are kept in the inbox or may not be moved.

    Args:
        spool: where everything lies.
        report: of the job.
        rule: what happens to dropped files.
        rename: moves a folder at once.

    Returns:
        Whether they are still in the inbox although they should not be.

    Raises:
        OSError: storage failed; nothing is lost, and it can be repeated.
    """
    place = show_report(spool, report)
    if rule is Originals.KEEP:
        return False
    with _left_if_unmovable() as left:
        _move(case_path(spool.inbox, report.case), place / "originals", report, rename)
    return bool(left)


def show_report(spool: ServiceSpool, report: CaseReport) -> Path:
    """Copy the recorded report of a refused job into the quarantine, and return where it lies.

    Raises:
        OSError: storage failed; it can be repeated.
    """
    place = case_path(spool.quarantine, report.case) / report.job_id
    atomic.make_folder(place, mode=PRIVATE)
    for page, name in zip(pages(spool, report), ("report.html", "report.json"), strict=True):
        atomic.write_file(place / name, page.read_bytes())
    return place


@contextmanager
def _left_if_unmovable() -> Iterator[list[str]]:
    """Leave originals in the inbox that this user may not move: the outcome is safe, and waiting would not change their permissions.

    Yields:
        Gets the name of the error that they were left for.
    """
    left: list[str] = []
    try:
        yield left
    except OSError as error:
        if error.errno not in _UNMOVABLE:
            raise
        left.append(errno.errorcode[error.errno])
        _log.warning("originals_left_in_inbox", code=errno.errorcode[error.errno])


def _move(source: Path, place: Path, report: CaseReport, rename: Rename) -> Path:
    """Move a job's files at once and return where they are. Late files, and a new drop under the same name, stay in the inbox.

    The very same drop, when it comes again, is put beside the earlier one with a number.
    """
    last, free = _numbered(place)
    if _is_to_move(source, report, again=last.exists()):
        atomic.make_folder(free.parent, mode=PRIVATE)
        rename(source, free)
        atomic.sync_folder(free.parent)
        atomic.sync_folder(source.parent)
        last = free
    _return_strays(last, source, report)
    return last


def _numbered(place: Path) -> tuple[Path, Path]:
    """Return the last of the places that are taken, or the first where none is, and the next free one."""
    last, free, number = place, place, 1
    while free.exists():
        number += 1
        last, free = free, place.with_name(f"{place.name}-{number}")
    return last, free


def _is_to_move(source: Path, report: CaseReport, *, again: bool) -> bool:
    if source.is_symlink() or not source.is_dir():
        return False
    return Manifest.scan(source) == report.manifest or (not again and bool(_ours(source, report)))


def _return_strays(place: Path, source: Path, report: CaseReport) -> None:
    """Put files back into the inbox that came after the job had been described, also those that a crash left behind."""
    if not place.is_dir() or Manifest.scan(place) == report.manifest:
        return
    ours = _ours(place, report)
    mode = stat.S_IMODE(
        place.stat().st_mode
    )  # as it was dropped: whoever still copies must be able to go on
    for path in sorted(path for path in place.rglob("*") if not path.is_dir()):
        name = path.relative_to(place).as_posix()
        if name not in ours and not (source / name).exists():
            atomic.make_folder((source / name).parent, mode=mode)
            path.rename(source / name)
            atomic.sync_folder((source / name).parent)


def _ours(folder: Path, report: CaseReport) -> frozenset[str]:
    """Names of the files in a folder that are those of the report, by content."""
    return frozenset(file.file for file in report.result.files if _is(folder / file.file, file))


def _is(path: Path, file: FileResult) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size != file.size:
        return False
    return sha256_of(path) == file.sha256
