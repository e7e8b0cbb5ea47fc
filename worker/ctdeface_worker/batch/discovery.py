"""Discovery of a batch's cases below its root."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.jobs.identity import DICOM_SUFFIXES
from ctdeface_shared.storage.case_folders import PathKind, is_hidden, walk
from ctdeface_worker.dicom.layout import looks_like_bare_data_set

_PREAMBLE_BYTES = 128
_LOOKED_AT_BYTES = 4096
"""Bytes read from the beginning of a file; its first elements are small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case.

    Attributes:
        name: posix path relative to the root; the folder's own name when the root is the case.
        folder: the case's folder.
        stray: a DICOM file directly in the folder that made it a case above the case depth,
            although folders below it hold DICOM as well.
    """

    name: str
    folder: Path
    stray: Path | None = None

    @property
    def stray_warning(self) -> str:
        """The effect of the stray file and the remedy."""
        if self.stray is None:
            return ""
        return (
            f"{self.stray.name} is directly in {self.folder.resolve().name}, so this folder and "
            "all folders below it are one case: if they are several cases, move the file into a "
            "folder of its own and run again"
        )


def find_cases(root: Path, *, depth: int = 1) -> tuple[Case, ...]:
    """Return the cases below a root, sorted by name.

    A folder is a case when it is `depth` levels below the root, or when DICOM is directly in it
    above that depth. Folders without any DICOM are left out. A folder that cannot be read is a
    case, so that it is reported.

    Raises:
        ConfigurationError: the root is missing, is not a folder or cannot be read.
    """
    if not root.is_dir():
        raise ConfigurationError(f"{root} is not a folder")
    if not os.access(root, os.R_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise ConfigurationError(f"{root} cannot be read by this user")
    folders = (folder for folder in _case_folders(root, depth) if _may_hold_dicom(folder))
    return tuple(
        Case(name=_name(folder, root), folder=folder, stray=_stray(folder, root, depth))
        for folder in sorted(folders)
    )


def left_out(root: Path, cases: Iterable[Case]) -> tuple[str, ...]:
    """Return the names of root entries without a case.

    These are folders, links and zip files.

    Hidden entries are ignored.
    """
    found = {case.name.partition("/")[0] for case in cases if case.folder != root}
    if not found:
        return ()
    there = (entry for entry in root.iterdir() if entry.is_dir() or entry.suffix.lower() == ".zip")
    return tuple(
        sorted(
            entry.name
            for entry in there
            if entry.name not in found and not entry.name.startswith(".")
        )
    )


def looks_like_dicom(file: Path) -> bool:
    """Return whether a file has DICOM suffix or content.

    The content is DICM behind the preamble (DICOM PS3.10 section 7.1), or a data set without both.
    """
    if file.suffix.lower() in DICOM_SUFFIXES:
        return True
    with file.open("rb") as stream:
        beginning = stream.read(_LOOKED_AT_BYTES)
    return beginning[_PREAMBLE_BYTES:].startswith(b"DICM") or looks_like_bare_data_set(beginning)


def _case_folders(root: Path, depth: int) -> Iterator[Path]:
    if depth == 0 or _is_case(root):
        yield root
        return
    for found in walk(root, depth, skips=is_hidden, is_case=_is_case):
        if found.kind in {PathKind.CASE, PathKind.UNREADABLE}:
            yield found.path


def _is_case(folder: Path) -> bool:
    """Return whether a folder directly holds DICOM.

    A folder that cannot be read counts as well.
    """
    try:
        return any(entry.is_file() and looks_like_dicom(entry) for entry in folder.iterdir())
    except OSError:
        return True


def _stray(folder: Path, root: Path, depth: int) -> Path | None:
    """Return the file that moved the case boundary up."""
    if len(folder.relative_to(root).parts) >= depth:
        return None
    try:
        entries = sorted(folder.iterdir())
        folders = (entry for entry in entries if entry.is_dir() and not entry.is_symlink())
        if not any(_may_hold_dicom(entry) for entry in folders):
            return None
        return next(entry for entry in entries if entry.is_file() and looks_like_dicom(entry))
    except (OSError, StopIteration):
        return None


def _may_hold_dicom(folder: Path) -> bool:
    try:
        return any(looks_like_dicom(file) for file in _files(folder))
    except OSError:
        return True


def _files(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder.

    Raises:
        OSError: a folder cannot be listed.
    """
    pending = [folder]
    while pending:  # not by recursion, which deep folders would exhaust
        for entry in pending.pop().iterdir():
            if entry.is_dir() and not entry.is_symlink():
                pending.append(entry)
            elif entry.is_file():
                yield entry


def _name(folder: Path, root: Path) -> str:
    return folder.resolve().name if folder == root else folder.relative_to(root).as_posix()
