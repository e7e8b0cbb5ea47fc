"""Dropped files after the end of their job.

Every step can be repeated after a crash.
"""

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
from ctdeface_worker.report.model import CaseReport

Rename: TypeAlias = Callable[[Path, Path], None]

_UNMOVABLE = frozenset({errno.EACCES, errno.EPERM, errno.EXDEV, errno.EBUSY, errno.EROFS})
"""The folder belongs to another user or is a mount point; no later attempt can move it."""

_log = logs.logger(__name__)


def archive(
    spool: ServiceSpool, report: CaseReport, rule: Originals, rename: Rename = os.rename
) -> bool:
    """Archive, delete or keep the originals of a released job.

    Originals that this user cannot move stay in the inbox.

    Args:
        spool: the folders of the service.
        report: of the job.
        rule: what happens to dropped files.
        rename: moves a folder atomically.

    Returns:
        Whether originals are still in the inbox because they could not be moved.

    Raises:
        OSError: storage failed; nothing is lost, and the call can be repeated.
    """
    if rule is Originals.KEEP:
        return False
    place = case_path(spool.archive / "originals", report.case) / report.job_id
    with _left_if_unmovable() as left:
        place = _move(case_path(spool.inbox, report.case), place, report, rename)
        if rule is Originals.DELETE and place.exists():
            shutil.rmtree(place)
    return bool(left)


def move(spool: ServiceSpool, report: CaseReport, place: Path, rename: Rename = os.rename) -> bool:
    """Move a job's originals from inbox to folder.

    Returns:
        Whether they are still in the inbox because they could not be moved.

    Raises:
        OSError: storage failed; nothing is lost, and the call can be repeated.
    """
    with _left_if_unmovable() as left:
        _move(case_path(spool.inbox, report.case), place, report, rename)
    return bool(left)


@contextmanager
def _left_if_unmovable() -> Iterator[list[str]]:
    """Leave originals in the inbox that this user cannot move.

    The outcome is safe, and waiting would not change the permissions.

    Yields:
        A list that receives the name of the error.
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
    """Move a job's files atomically and return their folder.

    Late files and a new drop under the same name stay in the inbox. The same drop, when it comes
    again, is put beside the earlier one with a number.
    """
    last, free = _numbered(place)
    if _must_move(source, report, again=last.exists()):
        atomic.make_folder(free.parent, mode=PRIVATE)
        rename(source, free)
        atomic.sync_folder(free.parent)
        atomic.sync_folder(source.parent)
        last = free
    _return_strays(last, source, report)
    return last


def _numbered(place: Path) -> tuple[Path, Path]:
    """Return the last place in use and the next free one.

    When no place is in use, both are the first.
    """
    last, free, number = place, place, 1
    while free.exists():
        number += 1
        last, free = free, place.with_name(f"{place.name}-{number}")
    return last, free


def _must_move(source: Path, report: CaseReport, *, again: bool) -> bool:
    if source.is_symlink() or not source.is_dir():
        return False
    return Manifest.scan(source) == report.manifest or (
        not again and bool(_files_of(source, report))
    )


def _return_strays(place: Path, source: Path, report: CaseReport) -> None:
    """Return late files to the inbox.

    They arrived after the job was described.

    A crash between the move and this step is repaired by the next call.
    """
    if not place.is_dir() or Manifest.scan(place) == report.manifest:
        return
    expected = _files_of(place, report)
    # The mode of the drop, so that a copy in progress can go on.
    mode = stat.S_IMODE(place.stat().st_mode)
    for path in sorted(path for path in place.rglob("*") if not path.is_dir()):
        name = path.relative_to(place).as_posix()
        if name not in expected and not (source / name).exists():
            atomic.make_folder((source / name).parent, mode=mode)
            path.rename(source / name)
            atomic.sync_folder((source / name).parent)


def _files_of(folder: Path, report: CaseReport) -> frozenset[str]:
    """Return the files whose content is in the report."""
    return frozenset(
        file.file for file in report.result.files if _has_content(folder / file.file, file)
    )


def _has_content(path: Path, file: FileResult) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size != file.size:
        return False
    return sha256_of(path) == file.sha256
