"""The scan of the inbox: cases, zip files and strays.

Links are never followed.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctdeface_shared.storage.case_folders import PathKind, is_ignored, is_unfinished, walk
from ctdeface_watcher.inbox.stability import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxRules:
    """Which names in the inbox count.

    Attributes:
        case_depth: level of the case folders; 1 for the folders directly in the inbox.
        marker: name of the file that declares a case complete; None for no such file.
        ignore: patterns of names that do not count, such as `Thumbs.db`.
    """

    case_depth: int = 1
    marker: str | None = None
    ignore: Sequence[str] = ()

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


def snapshot_of_case(case: Path, rules: InboxRules) -> Snapshot:
    """Take a snapshot of a case folder.

    Raises:
        OSError: the case cannot be read, or changes while it is read.
        RecursionError: its folders are nested too deeply.
    """
    files = size = newest = 0
    is_copying = is_marked = False
    for entry, is_hidden in _entries(case):
        if entry.name == rules.marker:
            is_marked = True
        elif rules.counts(entry.name):
            status = entry.stat(follow_symlinks=False)
            files, size, newest = files + 1, size + status.st_size, max(newest, status.st_mtime_ns)
            is_copying |= is_hidden or is_unfinished(entry.name)
    return Snapshot(files=files, bytes=size, newest_ns=newest, copying=is_copying, marked=is_marked)


def snapshot_of_zip(archive: Path) -> Snapshot:
    """Take a snapshot of a zip file.

    Raises:
        OSError: the file is gone or cannot be read.
    """
    status = archive.stat(follow_symlinks=False)
    return Snapshot(files=1, bytes=status.st_size, newest_ns=status.st_mtime_ns)


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip" and not path.is_symlink()


def _entries(folder: Path, *, hidden: bool = False) -> Iterator[tuple["os.DirEntry[str]", bool]]:
    """Yield every file, and whether its folder is being copied."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(Path(entry.path), hidden=hidden or is_unfinished(entry.name))
            else:
                yield entry, hidden
