"""Taking of complete cases out of the inbox.

A case is renamed into a private folder before its content is looked at. What the service does not
move, because it must not or cannot, is copied from there by the examination.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from ctdeface_shared.errors import UnsafeDrop
from ctdeface_shared.jobs.taken import TakenCase, new_record
from ctdeface_shared.storage.private_tree import opened, shown
from ctdeface_shared.storage.spool import ServiceSpool

UNMOVABLE = frozenset({errno.EACCES, errno.EPERM, errno.EXDEV, errno.EBUSY, errno.EROFS})
"""The entry belongs to another user, or is a mount point: no later attempt can move it."""


def is_zip_name(name: str) -> bool:
    """Return True for a file that is dropped as a zip file."""
    return name.lower().endswith(".zip")


@contextmanager
def entry_folder(inbox: Path, entry: str) -> Iterator[tuple[int, str]]:
    """Open the folder that holds an entry of the inbox, without following links.

    Args:
        inbox: the inbox.
        entry: name of the entry relative to the inbox, parts joined by `/`.

    Yields:
        Descriptor of the folder, and the entry's name in it.

    Raises:
        UnsafeDrop: a folder on the way was replaced by a link.
        OSError: a folder cannot be opened.
    """
    *parents, leaf = entry.split("/")
    with ExitStack() as stack:
        # The operator may have made the inbox itself a link.
        folder = stack.enter_context(opened(inbox.resolve()))
        for parent in parents:
            folder = stack.enter_context(opened(parent, folder=folder))
        yield folder, leaf


def take(
    spool: ServiceSpool, entry: str, seen_at: float, inode: int = 0, *, moves: bool
) -> TakenCase:
    """Take a case or zip file out of the inbox.

    Args:
        spool: the folders of the service.
        entry: its name, relative to the inbox.
        seen_at: when it was first seen, seconds since the epoch.
        inode: of what was judged to be complete; 0 if anything may be taken.
        moves: whether the service moves dropped files; otherwise they stay in the inbox.

    Returns:
        Its folder in `taken`. The record says whether it was left in the inbox.

    Raises:
        UnsafeDrop: it was replaced by a file, or a folder on the way by a link.
        OSError: it cannot be taken now; nothing has changed.
    """
    with entry_folder(spool.inbox, entry) as (folder, leaf):
        status = os.stat(leaf, dir_fd=folder, follow_symlinks=False)
        is_zip = not stat.S_ISDIR(status.st_mode)
        if is_zip and not is_zip_name(leaf):
            raise UnsafeDrop(f"{shown(entry)} was replaced by a file: drop the case again")
        record = replace(
            new_record(entry, entry[: -len(".zip")] if is_zip else entry),
            is_zip=is_zip,
            left_in_inbox=not moves,
            owner=status.st_uid,
            seen_at=seen_at,
            inode=inode,
        )
        taken = TakenCase.create(spool, record)
        if not moves:
            return taken
        try:
            with opened(taken.folder) as target:
                os.rename(leaf, taken.drop.name, src_dir_fd=folder, dst_dir_fd=target)
                os.fsync(target)
            os.fsync(folder)
        except OSError as error:
            if error.errno == errno.ENOENT and os.path.lexists(taken.drop):
                return taken  # a network file system repeated a rename that had succeeded
            if error.errno not in UNMOVABLE:
                taken.remove()
                raise
            taken.write_record(replace(record, left_in_inbox=True))
    return taken
