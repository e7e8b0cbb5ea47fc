"""Examination of a taken case: its files become private and get their digest.

Every step can be repeated after a crash.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ctdeface_shared.errors import (
    ChangedMeanwhile,
    CtDefaceError,
    StorageUnavailable,
    UnsafeArchive,
    UnsafeDrop,
)
from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.taken import DropRecord, TakenCase
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.case_folders import is_unfinished
from ctdeface_shared.storage.checksum import FileDigest, digest_of_rows
from ctdeface_shared.storage.private_tree import (
    copy_file,
    copy_tree,
    is_own,
    opened,
    remove_tree,
    seal,
    stats_of,
)
from ctdeface_shared.storage.tree_limits import TreeLimits
from ctdeface_watcher.inbox.take import entry_folder
from ctdeface_watcher.inbox.unzip import ZipLimits, unpack, unpacked_sizes

_FILES_PART = "files.part"
_ZIP_PART = "drop.zip.part"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamineRules:
    """What an examination needs to know.

    Attributes:
        inbox: holds what was left there.
        limits: maximum content of a case.
        zips: maximum content of a zip file.
        min_free_gb: space that must stay free, 10⁹ bytes.
    """

    inbox: Path
    limits: TreeLimits
    zips: ZipLimits
    min_free_gb: float


def examine(
    taken: TakenCase,
    record: DropRecord,
    rules: ExamineRules,
    on_file: Callable[[], None] = lambda: None,
) -> DropRecord:
    """Make the files of a taken case private, and read them.

    Args:
        taken: its folder.
        record: its record without a manifest.
        rules: limits.
        on_file: called before each file is read; may raise an error that ends the examination.

    Returns:
        The record with manifest, which was written.

    Raises:
        UnsafeDrop: it holds something else than the files of its owner, or too much.
        UnsafeArchive: the zip file is refused.
        ChangedMeanwhile: it was changed while it was copied.
        StorageUnavailable: the disk is too full for it now.
        OSError: it cannot be read, or storage failed.
    """
    try:
        if taken.files.is_dir():  # a crash came before the record was written
            manifest = Manifest.scan(taken.files)
        elif record.is_zip:
            manifest, record = _unpacked(taken, record, rules, on_file)
        else:
            manifest, record = _private(taken, record, rules, on_file)
    except (OSError, CtDefaceError):
        for name in (_FILES_PART, _ZIP_PART):  # the disk may be full
            remove_tree(taken.folder / name)
        raise
    record = replace(record, manifest=manifest)
    taken.write_record(record)
    if not record.is_zip:
        remove_tree(taken.drop)
    return record


def require_room(folder: Path, size: int, min_free_gb: float) -> None:
    """Check that a disk has room.

    Args:
        folder: on the disk.
        size: bytes that will be written.
        min_free_gb: space that must stay free, 10⁹ bytes.

    Raises:
        StorageUnavailable: it has not.
    """
    free = shutil.disk_usage(folder).free
    if free - size < min_free_gb * 1e9:
        raise StorageUnavailable(
            f"the content of the drop needs {size / 1e9:.1f} GB and {free / 1e9:.1f} GB are free, "
            f"of which min_free_gb ({min_free_gb:g} GB) must stay free: free disk space"
        )


def _private(
    taken: TakenCase, record: DropRecord, rules: ExamineRules, on_file: Callable[[], None]
) -> tuple[Manifest, DropRecord]:
    """Seal a folder of the service's own, or copy any other."""
    part = _new_part(taken)
    with _source(taken, record, rules) as (folder, leaf), opened(leaf, folder=folder) as tree:
        status = os.fstat(tree)
        _require_same(record, status)
        record = replace(record, owner=status.st_uid)
        if not record.left_in_inbox and is_own(tree, rules.limits.depth):
            digests = seal(tree, rules.limits, on_file)
            part = taken.drop
        else:
            stats = stats_of(tree, rules.limits)
            require_room(taken.folder, stats.bytes, rules.min_free_gb)
            digests = copy_tree(tree, part, rules.limits, on_file)
            if stats_of(tree, rules.limits) != stats:
                raise ChangedMeanwhile("the case was changed while it was copied")
            record = replace(record, stats=stats.digest)
            atomic.sync_tree(part)
    return _shown(taken, part, digests), record


def _unpacked(
    taken: TakenCase, record: DropRecord, rules: ExamineRules, on_file: Callable[[], None]
) -> tuple[Manifest, DropRecord]:
    """Unpack a zip file that only the service can change."""
    if is_unfinished(record.case.rpartition("/")[2]):
        raise UnsafeArchive(
            f"the zip file would become a case named {record.case}, and names that start with a "
            "dot or end like a temporary file mark unfinished copies: rename the zip file"
        )
    part = _new_part(taken)
    if record.left_in_inbox or not taken.archive.exists():
        record = _take_archive(taken, record, rules)
    size = sum(unpacked_sizes(taken.archive).values())
    if size <= rules.zips.bytes:
        require_room(taken.folder, size, rules.min_free_gb)
    unpack(taken.archive, part, rules.zips, on_file)
    with opened(part) as tree:
        digests = seal(tree, rules.limits, on_file)
    return _shown(taken, part, digests), record


def _take_archive(taken: TakenCase, record: DropRecord, rules: ExamineRules) -> DropRecord:
    """Copy a zip file to its place, and remove the one that was moved here."""
    part = taken.folder / _ZIP_PART
    part.unlink(missing_ok=True)
    limits = replace(rules.limits, file_bytes=rules.limits.bytes)
    with _source(taken, record, rules) as (folder, leaf):
        status = os.stat(leaf, dir_fd=folder, follow_symlinks=False)
        _require_same(record, status)
        require_room(taken.folder, status.st_size, rules.min_free_gb)
        copy_file(folder, leaf, part, limits, status)
    part.rename(taken.archive)
    atomic.sync_folder(taken.folder)
    remove_tree(taken.drop)
    return replace(record, owner=status.st_uid, stats=digest_of_rows([(leaf, status)]))


@contextmanager
def _source(taken: TakenCase, record: DropRecord, rules: ExamineRules) -> Iterator[tuple[int, str]]:
    """Open the folder that holds the drop, here or in the inbox."""
    if record.left_in_inbox:
        with entry_folder(rules.inbox, record.entry) as place:
            yield place
    else:
        with opened(taken.folder) as folder:
            yield folder, taken.drop.name


def _require_same(record: DropRecord, status: os.stat_result) -> None:
    """Check that a drop is the one that was judged to be complete.

    Raises:
        UnsafeDrop: it was replaced before it was taken.
        ChangedMeanwhile: it was replaced in the inbox, where the next look finds the new one.
    """
    if record.inode not in {0, status.st_ino}:
        if record.left_in_inbox:
            raise ChangedMeanwhile("the drop was replaced by another one before it was copied")
        raise UnsafeDrop("the drop was replaced by another one while it was taken: drop it again")


def _new_part(taken: TakenCase) -> Path:
    """Return where the files are put together; nothing is there."""
    part = taken.folder / _FILES_PART
    remove_tree(part)
    return part


def _shown(taken: TakenCase, part: Path, digests: list[FileDigest]) -> Manifest:
    """Rename the finished files into place."""
    part.rename(taken.files)
    atomic.sync_folder(taken.folder)
    return Manifest.of(digests)
