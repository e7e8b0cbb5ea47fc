"""How released cases lie in the outbox: their modes and group, and whether a folder holds exactly what a report released."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.checksum import sha256_of
from ctdeface_worker.report.model import CaseReport


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRules:
    """How released cases lie on the disk.

    Attributes:
        folder_mode: of released folders.
        file_mode: of released files.
        group: owning group by name, None for the process's own.
        stale_seconds: after which a lock or folder of another machine that nobody touched counts as
            abandoned.
        before_done: what must happen between the visible output and the end of the job, such as
            putting the originals away; repeatable. The report names the staging folder, which is
            there until the job is done. True: the originals could not be put away.
    """

    stale_seconds: float
    folder_mode: int = 0o750
    file_mode: int = 0o640
    group: str | None = None
    before_done: Callable[[CaseReport], bool | None] = lambda _: None


def apply_modes(folder: Path, rules: OutputRules) -> None:
    """Give a staged case the modes and group of the outbox.

    Raises:
        ConfigurationError: the group cannot be given.
    """
    for parent, _, names in os.walk(folder):
        _own(Path(parent), rules.folder_mode, rules.group)
        for name in names:
            _own(Path(parent) / name, rules.file_mode, rules.group)


def make_parents(folder: Path, rules: OutputRules) -> None:
    """Create the folders above a nested case, with the modes and group of the outbox.

    Raises:
        ConfigurationError: the group cannot be given.
    """
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    atomic.make_folder(folder, mode=rules.folder_mode)
    for parent in missing:
        _own(parent, rules.folder_mode, rules.group)


def holds(folder: Path, report: CaseReport) -> bool:
    """Whether a folder holds exactly the released files of a report, by content."""
    outputs = report.outputs
    if not outputs or not folder.is_dir():
        return False
    present = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()
    }
    return present.keys() == outputs.keys() and all(
        sha256_of(path) == outputs[name] for name, path in present.items()
    )


def _own(path: Path, mode: int, group: str | None) -> None:
    path.chmod(mode)
    if group is not None:
        try:
            shutil.chown(path, group=group)
        except (LookupError, PermissionError) as error:
            raise ConfigurationError(
                f"outbox_group {group} cannot be given to files: {error}"
            ) from error
