"""What lies in the inbox: cases, zips to unpack, and what is no case. Links are never followed."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from ctdeface_watcher.inbox.stability import Snapshot, is_unfinished


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbox:
    """One look at the inbox.

    Attributes:
        cases: folders by the name of the case, parts joined by `/`.
        zips: zip files lying where cases lie.
        strays: other files and links above the cases; they are reported, not processed.
        shut: what may not be looked into or at above the cases; whether cases lie there, nobody can
            say.
    """

    cases: dict[str, Path]
    zips: tuple[Path, ...]
    strays: tuple[Path, ...]
    shut: tuple[Path, ...] = ()


def read_inbox(root: Path, rules: InboxRules) -> Inbox:
    """List the inbox.

    Raises:
        OSError: it is not there or cannot be read.
    """
    cases: dict[str, Path] = {}
    zips: list[Path] = []
    strays: list[Path] = []
    shut: list[Path] = []
    for path, level in _above_cases(root, rules):
        try:
            if path.is_symlink() or not path.is_dir():
                (
                    zips
                    if level == rules.case_depth
                    and path.suffix.lower() == ".zip"
                    and not path.is_symlink()
                    else strays
                ).append(path)
            elif level == rules.case_depth:
                cases[path.relative_to(root).as_posix()] = path
            else:
                shut.append(path)
        except PermissionError:
            shut.append(path)
    return Inbox(cases=cases, zips=tuple(zips), strays=tuple(strays), shut=tuple(shut))


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
        elif any(fnmatch(entry.name, pattern) for pattern in rules.ignore):
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


def _above_cases(root: Path, rules: InboxRules, level: int = 1) -> Iterator[tuple[Path, int]]:
    """Yield what lies at each level down to the cases', and folders above that which may not be read.

    Hidden and ignored names and files in progress do not count.
    """
    for path in sorted(root.iterdir()):
        if is_unfinished(path.name) or any(fnmatch(path.name, pattern) for pattern in rules.ignore):
            continue
        try:
            if level < rules.case_depth and path.is_dir() and not path.is_symlink():
                yield from _above_cases(path, rules, level + 1)
                continue
        except PermissionError:  # it must not keep the other folders waiting
            pass
        yield path, level


def _entries(folder: Path, *, hidden: bool = False) -> Iterator[tuple["os.DirEntry[str]", bool]]:
    """Yield every file, and whether a folder above it says that it is still being copied."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(Path(entry.path), hidden=hidden or is_unfinished(entry.name))
            else:
                yield entry, hidden
