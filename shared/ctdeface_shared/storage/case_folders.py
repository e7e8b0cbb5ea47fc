"""Find the case folders below an inbox, an outbox or a batch root.

Cases are the folders a fixed number of levels below the root. Every part of the program that looks
for cases uses this walk, so they agree on hidden names, links and folders that cannot be read.
"""

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatch
from pathlib import Path

UNFINISHED_SUFFIXES = (".part", ".tmp", ".partial", ".filepart", ".crdownload")
"""Suffixes that copying tools give to files in progress."""
GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})
"""Error numbers of a file or folder that was removed while it was being read."""


class PathKind(Enum):
    """Kind of an entry at or above the case level."""

    CASE = "case"
    """A folder at the case level."""
    PARENT = "parent"
    """A folder above the case level that can be listed."""
    OTHER = "other"
    """A file, a link or a device; links are never followed."""
    UNREADABLE = "unreadable"
    """A folder above the case level, or an entry in it, that cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPath:
    """One entry of the walk.

    Attributes:
        path: the entry.
        level: levels below the root; entries directly in the root have level 1.
        kind: what the entry is.
        problem: why it cannot be read, as the system says; empty if it can.
    """

    path: Path
    level: int
    kind: PathKind
    problem: str = ""


def is_hidden(name: str) -> bool:
    """Return True if the name starts with a dot."""
    return name.startswith(".")


def is_unfinished(name: str) -> bool:
    """Return True if the name marks a copy in progress."""
    return is_hidden(name) or name.lower().endswith(UNFINISHED_SUFFIXES)


def is_ignored(name: str, patterns: Iterable[str]) -> bool:
    """Return True if the name matches a shell pattern, such as `Thumbs.db`."""
    return any(fnmatch(name, pattern) for pattern in patterns)


def walk(
    root: Path,
    depth: int,
    *,
    skips: Callable[[str], bool],
    is_case: Callable[[Path], bool] = lambda _folder: False,
) -> Iterator[FoundPath]:
    """Yield the entries down to the case level, in name order.

    An entry that is removed during the walk is left out. One that cannot be read, because of its
    mode or because its storage failed, does not end the walk.

    Args:
        root: folder to start from; not yielded itself.
        depth: level of the cases; 1 for the folders directly in the root.
        skips: tells by the name which entries do not count.
        is_case: tells whether a folder above the case level is already a case.

    Raises:
        OSError: the root cannot be listed.
    """
    if depth > 0:
        yield from _walk(_entries(root, skips), depth, skips, is_case)


def parent_folders(root: Path, depth: int) -> Iterator[Path]:
    """Yield the root and the folders that hold cases or folders of cases.

    Hidden folders are included, because a rename may show them at any moment. Cases themselves are
    not listed, so the cost does not grow with their number.

    Raises:
        OSError: the root cannot be listed.
    """
    yield root
    for found in walk(root, depth - 1, skips=lambda _name: False):
        if found.kind in {PathKind.CASE, PathKind.PARENT}:
            yield found.path


def _walk(
    entries: "list[os.DirEntry[str]]",
    depth: int,
    skips: Callable[[str], bool],
    is_case: Callable[[Path], bool],
    level: int = 1,
) -> Iterator[FoundPath]:
    for entry in entries:
        path, below, problem = Path(entry.path), [], ""
        try:
            if not entry.is_dir(follow_symlinks=False):
                kind = PathKind.OTHER
            elif level == depth or is_case(path):
                kind = PathKind.CASE
            else:
                kind, below = PathKind.PARENT, _entries(path, skips)
        except OSError as error:
            if error.errno in GONE:
                continue
            kind, problem = PathKind.UNREADABLE, error.strerror or str(error)
        yield FoundPath(path=path, level=level, kind=kind, problem=problem)
        yield from _walk(below, depth, skips, is_case, level + 1)


def _entries(folder: Path, skips: Callable[[str], bool]) -> "list[os.DirEntry[str]]":
    """List a folder in name order.

    Raises:
        OSError: it cannot be listed, or its entries cannot be examined.
    """
    if not os.access(folder, os.R_OK | os.X_OK) and folder.is_dir():
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    with os.scandir(folder) as entries:
        return sorted(
            (entry for entry in entries if not skips(entry.name)), key=lambda entry: entry.name
        )
