"""Files that come after their case was done: together with the originals they make the whole case again.

The watcher reads no DICOM, so names and content decide. A drop under the name of an earlier case is
*late* when it lacks some of that case's files and contradicts none of them: every file that both
have is the same, byte for byte. Anything else stands alone.
"""

import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from filecmp import cmp
from fnmatch import fnmatch
from pathlib import Path

from ctdeface_shared.errors import MixedPatients
from ctdeface_shared.jobs.history import (
    DROP_REFUSALS,
    JobRecord,
    history_of,
    reported_files,
)
from ctdeface_shared.jobs.states import JobState
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.case_folders import is_unfinished
from ctdeface_shared.storage.checksum import sha256_of
from ctdeface_shared.storage.spool import ServiceSpool, case_path
from ctdeface_watcher.inbox.scan import InboxRules

TOGETHER = ".together"


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What an earlier job of the case consisted of.

    Attributes:
        files: size and SHA-256 by name; both are unknown (-1 and empty) where the files themselves
            are there.
        folder: where they lie; None when they are gone.
    """

    files: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    folder: Path | None = None


def is_late(drop: frozenset[str], base: frozenset[str], same: Callable[[str], bool]) -> bool:
    """Whether a drop adds to an earlier case: it lacks some of its files and contradicts none.

    Args:
        drop: names of the dropped files.
        base: names of the earlier case's files.
        same: whether a file that both have has the same content; not asked where names alone
            decide.
    """
    return not base <= drop and all(same(name) for name in sorted(drop & base))


def find_base(spool: ServiceSpool, case: str, history: Sequence[JobRecord]) -> Base | None:
    """Return what the newest job of a case that tells it consisted of; None when there was none, or nothing can be added to it.

    Raises:
        OSError: storage failed.
    """
    for job in reversed(history):
        if not job.ended or job.code in DROP_REFUSALS:
            continue
        if job.code == MixedPatients.__name__:
            return None
        for folder in (
            case_path(spool.archive / "originals", case) / job.job_id,
            case_path(spool.quarantine, case) / job.job_id / "originals",
        ):
            if folder.is_dir():
                return Base(files=dict.fromkeys(_names(folder), (-1, "")), folder=folder)
        files = reported_files(spool, case, job.job_id) if job.state is not JobState.REFUSED else {}
        if files:
            return Base(files={name: (known.size, known.sha256) for name, known in files.items()})
    return None


def adds_to(drop: Path, base: Base, rules: InboxRules) -> bool:
    """Whether the files in a folder are late files of an earlier case.

    Raises:
        OSError: a file cannot be read.
    """
    counted = frozenset(name for name in _names(drop) if not _is_ignored(name, rules))
    known = frozenset(name for name in base.files if not _is_ignored(name, rules))
    return is_late(counted, known, lambda name: _is_same(drop / name, base, name))


def gather(drop: Path, base: Path | None) -> None:
    """Put an earlier case's files and its late ones together in a hidden folder, and show it in place of the late ones by a rename.

    The earlier files are copied, so that nobody who writes into the inbox can change what is
    archived. Late files are moved, one by one; a crash leaves each of them either here or there,
    and the next call goes on.

    Raises:
        OSError: storage failed, or something is just being added; it can be repeated.
    """
    together = together_of(drop)
    mode = stat.S_IMODE(drop.stat().st_mode) if drop.exists() else 0o750
    atomic.make_folder(together, mode=mode)
    if base is not None:
        for name in sorted(_names(base)):
            if not (together / name).exists() and not (drop / name).exists():
                _copy(base / name, together / name, mode)
    if drop.exists():
        for name in sorted(_names(drop)):
            atomic.make_folder((together / name).parent, mode=mode)
            (drop / name).replace(together / name)
        for folder in sorted((path for path in drop.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()
    atomic.sync_tree(together)
    together.rename(drop)  # onto an empty folder, or none: at once
    atomic.sync_folder(drop.parent)


def gather_what_was_begun(spool: ServiceSpool, rules: InboxRules) -> dict[str, OSError | None]:
    """Go on where a watcher was killed while it put cases together; return what stands in the way of each, None where nothing does."""
    outcomes: dict[str, OSError | None] = {}
    for together in sorted(spool.inbox.glob("*/" * (rules.case_depth - 1) + f".*{TOGETHER}")):
        name = together.name[1:].removesuffix(TOGETHER)
        if not name or is_unfinished(name):
            continue  # of no case, so none of ours
        drop = together.with_name(name)
        case = drop.relative_to(spool.inbox).as_posix()
        outcomes[case] = None
        try:
            base = find_base(spool, case, history_of(spool, case))
            gather(drop, base.folder if base else None)
        except OSError as error:
            outcomes[case] = error
    return outcomes


def together_of(drop: Path) -> Path:
    """Where a case is put together."""
    return drop.with_name(f".{drop.name}{TOGETHER}")


def _names(folder: Path) -> Iterator[str]:
    return (
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    )


def _is_ignored(name: str, rules: InboxRules) -> bool:
    last = name.rpartition("/")[2]
    return last == rules.marker or any(fnmatch(last, pattern) for pattern in rules.ignore)


def _is_same(path: Path, base: Base, name: str) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    if base.folder is not None:
        other = base.folder / name
        return not other.is_symlink() and other.is_file() and cmp(path, other, shallow=False)
    size, digest = base.files[name]
    if path.stat().st_size != size:
        return False
    return sha256_of(path) == digest


def _copy(source: Path, target: Path, mode: int) -> None:
    atomic.make_folder(target.parent, mode=mode)
    beside = target.with_name(f".{target.name}.part")
    shutil.copy2(source, beside, follow_symlinks=False)
    beside.rename(target)
