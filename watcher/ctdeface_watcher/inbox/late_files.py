"""Late files: files that come after their case was done.

The watcher reads no DICOM, so names and content decide. A drop under the name of an earlier case
consists of *late files* if it lacks some of that case's files and contradicts none of them: every
file that both have is the same, byte for byte. Any other drop stands alone.
"""

import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from filecmp import cmp
from pathlib import Path

from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.case_folders import is_unfinished, parent_folders
from ctdeface_shared.storage.checksum import sha256_of
from ctdeface_watcher.inbox.scan import InboxRules

_TOGETHER = ".together"


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierCase:
    """The files of an earlier job of a case.

    Attributes:
        files: size and SHA-256 by name; -1 and empty where `folder` holds the files themselves.
        folder: folder that holds the files; None if they are gone.
    """

    files: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    folder: Path | None = None

    @classmethod
    def in_folder(cls, folder: Path) -> "EarlierCase":
        """Return the earlier case whose files are still in a folder."""
        return cls(files=dict.fromkeys(_names(folder), (-1, "")), folder=folder)


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
    """Return True if a folder holds late files of an earlier case.

    Raises:
        OSError: a file cannot be read.
    """
    dropped = frozenset(name for name in _names(drop) if _counts(name, rules))
    known = frozenset(name for name in earlier.files if _counts(name, rules))
    return is_late(dropped, known, lambda name: _is_same(drop / name, earlier, name))


def gather(drop: Path, earlier: Path | None) -> None:
    """Combine late files with an earlier case's files in a dropped folder.

    Both are collected in a hidden folder, which then replaces the dropped one by a rename. The
    earlier files are copied, so that nothing written into the inbox can change the archive. Late
    files are moved one by one; after a crash each of them is in one of the two folders, and the
    next call continues.

    Args:
        drop: folder with the late files.
        earlier: folder with the earlier files; None if there are none.

    Raises:
        OSError: storage failed, or files are being added; the call can be repeated.
    """
    together = gathering_folder(drop)
    mode = stat.S_IMODE(drop.stat().st_mode) if drop.exists() else 0o750
    atomic.make_folder(together, mode=mode)
    if earlier is not None:
        for name in sorted(_names(earlier)):
            if not (together / name).exists() and not (drop / name).exists():
                _copy(earlier / name, together / name, mode)
    if drop.exists():
        for name in sorted(_names(drop)):
            atomic.make_folder((together / name).parent, mode=mode)
            (drop / name).replace(together / name)
        for folder in sorted((path for path in drop.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()
    atomic.sync_tree(together)
    together.rename(drop)  # atomic: the target is missing or empty
    atomic.sync_folder(drop.parent)


def unfinished_gatherings(inbox: Path, case_depth: int) -> tuple[Path, ...]:
    """Return the cases whose gathering was interrupted.

    Raises:
        OSError: the inbox cannot be read.
    """
    found = []
    for parent in parent_folders(inbox, case_depth):
        for together in sorted(parent.glob(f".*{_TOGETHER}")):
            name = together.name[1:].removesuffix(_TOGETHER)
            if name and not is_unfinished(name):  # otherwise it is not a gathering folder
                found.append(together.with_name(name))
    return tuple(found)


def gathering_folder(drop: Path) -> Path:
    """Return the hidden folder in which a case is gathered."""
    return drop.with_name(f".{drop.name}{_TOGETHER}")


def _names(folder: Path) -> Iterator[str]:
    return (
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    )


def _counts(name: str, rules: InboxRules) -> bool:
    return rules.counts(name.rpartition("/")[2])


def _is_same(path: Path, earlier: EarlierCase, name: str) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    if earlier.folder is not None:
        other = earlier.folder / name
        return not other.is_symlink() and other.is_file() and cmp(path, other, shallow=False)
    size, digest = earlier.files[name]
    return path.stat().st_size == size and sha256_of(path) == digest


def _copy(source: Path, target: Path, mode: int) -> None:
    atomic.make_folder(target.parent, mode=mode)
    beside = target.with_name(f".{target.name}.part")
    shutil.copy2(source, beside, follow_symlinks=False)
    beside.rename(target)
