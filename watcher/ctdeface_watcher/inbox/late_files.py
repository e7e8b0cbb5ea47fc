"""Late files: files that come after their case was done.

A drop that belongs to an earlier case consists of *late files* if it lacks some of that case's
files and contradicts none of them: every file that both have is the same, byte for byte. Any other
drop of the same study replaces the earlier one.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from filecmp import cmp
from pathlib import Path

from ctdeface_shared.errors import UnsafeDrop
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.checksum import sha256_of
from ctdeface_shared.storage.private_tree import copy_file, opened
from ctdeface_shared.storage.tree_limits import TreeLimits
from ctdeface_watcher.inbox.examine import require_room
from ctdeface_watcher.inbox.scan import InboxRules


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierCase:
    """The files of an earlier job of a case.

    Attributes:
        files: size and SHA-256 by name; -1 and empty where `folder` holds the files themselves.
        folder: private folder that holds the files; None if they are gone.
        owner: user id of who dropped them; None if unknown.
    """

    files: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    folder: Path | None = None
    owner: int | None = None

    @classmethod
    def in_folder(cls, folder: Path, owner: int | None) -> "EarlierCase":
        """Return the earlier case whose files are still in a folder."""
        files = dict.fromkeys(names_in(folder), (-1, ""))
        return cls(files=files, folder=folder, owner=owner)


def is_late(drop: frozenset[str], earlier: frozenset[str], is_same: Callable[[str], bool]) -> bool:
    """Return True if a drop is part of an earlier case.

    It must lack some of that case's files and contradict none of them.

    Args:
        drop: names of the dropped files.
        earlier: names of the earlier case's files.
        is_same: tells whether a file that both have has the same content; not called where names
            alone decide.
    """
    return not earlier <= drop and all(is_same(name) for name in sorted(drop & earlier))


def adds_to(drop: Path, earlier: EarlierCase, rules: InboxRules) -> bool:
    """Return True if a private folder holds late files of an earlier case.

    Raises:
        OSError: a file cannot be read.
    """
    dropped = frozenset(name for name in names_in(drop) if _counts(name, rules))
    known = frozenset(name for name in earlier.files if _counts(name, rules))
    return is_late(dropped, known, lambda name: _is_same(drop / name, earlier, name))


def add_earlier_files(drop: Path, earlier: Path, limits: TreeLimits) -> None:
    """Copy the files of an earlier case that a drop lacks into it.

    Both folders are private. After a crash the call can be repeated.

    Args:
        drop: receives the files.
        earlier: holds the files.
        limits: of the whole case.

    Raises:
        UnsafeDrop: together they are more than the limits allow.
        StorageUnavailable: the disk is too full for them now.
        OSError: storage failed.
    """
    for part in drop.rglob(".*.part"):  # left by a crash; no complete case holds such names
        part.unlink()
    present = set(names_in(drop))
    lacking = sorted(set(names_in(earlier)) - present)
    size = sum((earlier / name).stat().st_size for name in lacking)
    whole = size + sum((drop / name).stat().st_size for name in present)
    if len(present) + len(lacking) > limits.files or whole > limits.bytes:
        raise UnsafeDrop(
            "together with the earlier files of their case, the late files are more than "
            "limits.files or limits.case_gb allow: raise the limit and drop them again"
        )
    require_room(drop, size, 0.0)
    for name in lacking:
        target = drop / name
        atomic.make_folder(target.parent, mode=0o700)
        part = target.with_name(f".{target.name}.part")
        with opened((earlier / name).parent) as folder:
            copy_file(folder, target.name, part, limits)
        part.rename(target)
    atomic.sync_tree(drop)


def names_in(folder: Path) -> Iterator[str]:
    """Yield the names of all files below a private folder, relative to it."""
    for parent, _, names in os.walk(folder):
        for name in names:
            yield (Path(parent) / name).relative_to(folder).as_posix()


def _counts(name: str, rules: InboxRules) -> bool:
    return rules.counts(name.rpartition("/")[2])


def _is_same(path: Path, earlier: EarlierCase, name: str) -> bool:
    if earlier.folder is not None:
        other = earlier.folder / name
        return not other.is_symlink() and other.is_file() and cmp(path, other, shallow=False)
    size, digest = earlier.files[name]
    return path.stat().st_size == size and sha256_of(path) == digest
