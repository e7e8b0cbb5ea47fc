"""The scan of the inbox: cases, zip files and strays.

Links are never followed.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from stat import S_ISDIR

from ctdeface_shared.storage.case_folders import PathKind, is_ignored, is_unfinished, walk
from ctdeface_shared.storage.private_tree import opened
from ctdeface_watcher.inbox.stability import Snapshot
from ctdeface_watcher.inbox.take import entry_folder, is_zip_name


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxRules:
    """Which names in the inbox count.

    Attributes:
        case_depth: level of the case folders; 1 for the folders directly in the inbox.
        marker: name of the file that declares a case complete; None for no such file.
        ignore: patterns of names that do not count, such as `Thumbs.db`.
        depth: levels of folders that are looked at below a case.
        most: files and folders of a case that are looked at.
    """

    case_depth: int = 1
    marker: str | None = None
    ignore: Sequence[str] = ()
    depth: int = 64
    most: int = 250_000

    def skips(self, name: str) -> bool:
        """Return True for a name that is not a case."""
        return is_unfinished(name) or is_ignored(name, self.ignore)

    def counts(self, file: str) -> bool:
        """Return True for a file that belongs to a case."""
        return file != self.marker and not is_ignored(file, self.ignore)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbox:
    """The result of one scan.

    Names are relative to the inbox, with parts joined by `/`.

    Attributes:
        cases: case folders by name.
        zips: zip files at the case level, by name.
        strays: names of other files and links; they are reported, not processed.
        unreadable: names of folders above the case level that this user may not read.
    """

    cases: dict[str, Path]
    zips: dict[str, Path]
    strays: frozenset[str] = frozenset()
    unreadable: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """Names of everything that is or may become a case."""
        return frozenset((*self.cases, *self.zips, *self.unreadable))


def scan_inbox(root: Path, rules: InboxRules) -> Inbox:
    """List the inbox.

    Raises:
        OSError: the inbox is missing or cannot be read.
    """
    cases: dict[str, Path] = {}
    zips: dict[str, Path] = {}
    strays: set[str] = set()
    unreadable: set[str] = set()
    for found in walk(root, rules.case_depth, skips=rules.skips):
        name = found.path.relative_to(root).as_posix()
        if found.kind is PathKind.CASE:
            cases[name] = found.path
        elif found.kind is PathKind.UNREADABLE:
            unreadable.add(name)
        elif found.kind is PathKind.OTHER:
            if found.level == rules.case_depth and _is_zip(found.path):
                zips[name] = found.path
            else:
                strays.add(name)
    return Inbox(cases=cases, zips=zips, strays=frozenset(strays), unreadable=frozenset(unreadable))


def snapshot_of(inbox: Path, entry: str, rules: InboxRules) -> Snapshot:
    """Take a snapshot of a case folder or zip file.

    Args:
        inbox: the inbox.
        entry: name of the folder or file, relative to the inbox.
        rules: which names count, and how deep folders may be nested.

    Raises:
        UnsafeDrop: it is replaced by a link while it is read.
        RecursionError: its folders are nested too deeply.
        OSError: it cannot be read, or changes while it is read.
    """
    with entry_folder(inbox, entry) as (folder, leaf):
        status = os.stat(leaf, dir_fd=folder, follow_symlinks=False)
        if not S_ISDIR(status.st_mode):
            return Snapshot(
                files=1,
                bytes=status.st_size,
                newest_ns=status.st_mtime_ns,
                changed_ns=status.st_ctime_ns,
                inode=status.st_ino,
            )
        with opened(leaf, folder=folder) as tree:
            return replace(_snapshot_of_tree(tree, rules), inode=os.fstat(tree).st_ino)


def _snapshot_of_tree(tree: int, rules: InboxRules) -> Snapshot:
    files = size = newest = changed = 0
    is_copying = is_marked = False
    # What has more is refused by its examination, so that no look has to count it.
    for name, is_hidden, status in islice(_entries(tree, rules.depth), rules.most):
        if name == rules.marker:
            is_marked = True
        elif not S_ISDIR(status.st_mode) and rules.counts(name):
            files, size, newest = files + 1, size + status.st_size, max(newest, status.st_mtime_ns)
            changed = max(changed, status.st_ctime_ns)
            is_copying |= is_hidden or is_unfinished(name)
    return Snapshot(
        files=files,
        bytes=size,
        newest_ns=newest,
        changed_ns=changed,
        copying=is_copying,
        marked=is_marked,
    )


def _is_zip(path: Path) -> bool:
    return is_zip_name(path.name) and not path.is_symlink()


def _entries(
    folder: int, depth: int, *, hidden: bool = False
) -> Iterator[tuple[str, bool, os.stat_result]]:
    """Yield name and status of every file and folder, and whether its folder is being copied."""
    below = []
    with os.scandir(folder) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if S_ISDIR(status.st_mode):
                below.append(entry.name)
            yield entry.name, hidden, status
    if below and depth == 0:
        raise RecursionError
    for name in below:
        with opened(name, folder=folder) as tree:
            yield from _entries(tree, depth - 1, hidden=hidden or is_unfinished(name))
