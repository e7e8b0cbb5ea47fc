"""What lies in the inbox: cases, zips to unpack, and what is no case. Links are never followed."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctdeface_shared.storage.case_folders import PathKind, is_ignored, is_unfinished, walk
from ctdeface_watcher.inbox.stability import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxRules:
    """How the inbox is read.

    Attributes:
        case_depth: cases are the folders so many levels below the inbox.
        marker: name of the file that says a case is complete, None for none.
        ignore: patterns of names that do not count, such as `Thumbs.db`.
    """

    case_depth: int = 1
    marker: str | None = None
    ignore: Sequence[str] = ()

    def skips(self, name: str) -> bool:
        """Return True for a name that is not a case yet, or never."""
        return is_unfinished(name) or is_ignored(name, self.ignore)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbox:
    """One look at the inbox.

    Attributes:
        cases: folders by the name of the case, parts joined by `/`.
        zips: zip files lying where cases lie.
        strays: other files and links above the cases; they are reported, not processed.
        unreadable: folders above the case level that this user may not read.
    """

    cases: dict[str, Path]
    zips: tuple[Path, ...]
    strays: tuple[Path, ...]
    unreadable: tuple[Path, ...] = ()


def read_inbox(root: Path, rules: InboxRules) -> Inbox:
    """List the inbox.

    Raises:
        OSError: it is not there or cannot be read.
    """
    cases: dict[str, Path] = {}
    zips: list[Path] = []
    strays: list[Path] = []
    unreadable: list[Path] = []
    for found in walk(root, rules.case_depth, skips=rules.skips):
        if found.kind is PathKind.CASE:
            cases[found.path.relative_to(root).as_posix()] = found.path
        elif found.kind is PathKind.UNREADABLE:
            unreadable.append(found.path)
        elif found.kind is PathKind.OTHER:
            is_zip = found.level == rules.case_depth and _is_zip(found.path)
            (zips if is_zip else strays).append(found.path)
    return Inbox(cases=cases, zips=tuple(zips), strays=tuple(strays), unreadable=tuple(unreadable))


def take_snapshot(case: Path, rules: InboxRules) -> Snapshot:
    """See how a case looks now.

    Raises:
        OSError: it changes while it is read; the next scan sees it anew.
    """
    files = size = newest = 0
    copying = marked = False
    for entry, hidden in _entries(case):
        if entry.name == rules.marker:
            marked = True
        elif is_ignored(entry.name, rules.ignore):
            continue
        else:
            status = entry.stat(follow_symlinks=False)
            files, size, newest = files + 1, size + status.st_size, max(newest, status.st_mtime_ns)
            copying |= hidden or is_unfinished(entry.name)
    return Snapshot(files=files, bytes=size, newest_ns=newest, copying=copying, marked=marked)


def snapshot_of_file(path: Path) -> Snapshot:
    """See how a zip file looks now.

    Raises:
        OSError: it is gone or cannot be read.
    """
    status = path.stat(follow_symlinks=False)
    return Snapshot(files=1, bytes=status.st_size, newest_ns=status.st_mtime_ns)


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip" and not path.is_symlink()


def _entries(folder: Path, *, hidden: bool = False) -> Iterator[tuple["os.DirEntry[str]", bool]]:
    """Yield every file, and whether a folder above it says that it is still being copied."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(Path(entry.path), hidden=hidden or is_unfinished(entry.name))
            else:
                yield entry, hidden
