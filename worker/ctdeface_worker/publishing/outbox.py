"""Modes, group and content of released cases in the outbox."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.checksum import sha256_of
from ctdeface_shared.storage.tree import walk_tree
from ctdeface_worker.report.model import CaseReport


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRules:
    """Rules for the files of released cases.

    Attributes:
        folder_mode: mode of released folders.
        file_mode: mode of released files.
        group: owning group by name, None for the group of the process.
        stale_seconds: age after which an untouched lock or folder of another machine counts as
            abandoned.
        before_done: called when the output is visible, before the job is done, for example to move
            the originals; can be repeated. The staging folder named in the report exists until the
            job is done.
    """

    stale_seconds: float
    folder_mode: int = 0o750
    file_mode: int = 0o640
    group: str | None = None
    before_done: Callable[[CaseReport], None] = lambda _: None


def apply_modes(folder: Path, rules: OutputRules) -> None:
    """Give a staged case the modes and group of the outbox.

    Raises:
        ConfigurationError: the group cannot be given.
    """
    for parent, entries in walk_tree(folder, _raise):
        _own(Path(parent), rules.folder_mode, rules.group)
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                _own(Path(entry.path), rules.file_mode, rules.group)


def make_parents(folder: Path, rules: OutputRules) -> None:
    """Create the folders above a nested case.

    They get the modes and group of the outbox.

    Raises:
        ConfigurationError: the group cannot be given.
    """
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    atomic.make_folder(folder, mode=rules.folder_mode)
    for parent in missing:
        _own(parent, rules.folder_mode, rules.group)


def holds(folder: Path, report: CaseReport) -> bool:
    """Return whether a folder holds exactly the report's outputs."""
    outputs = report.outputs
    if not outputs or not folder.is_dir():
        return False
    present = {
        Path(entry.path).relative_to(folder).as_posix(): entry
        for _, entries in walk_tree(folder, _raise)
        for entry in entries
        if not entry.is_dir(follow_symlinks=False)
    }
    return present.keys() == outputs.keys() and all(
        entry.is_file(follow_symlinks=False) and sha256_of(Path(entry.path)) == outputs[name]
        for name, entry in present.items()
    )


def _raise(error: OSError) -> None:
    raise error


def _own(path: Path, mode: int, group: str | None) -> None:
    path.chmod(mode)
    if group is not None:
        try:
            shutil.chown(path, group=group)
        except (LookupError, PermissionError) as error:
            raise ConfigurationError(
                f"outbox_group {group} cannot be given to files: {error}"
            ) from error
