"""Which folders are cases: the first-level folders of the root, or deeper ones with `--case-depth`."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.storage.case_folders import PathKind, is_hidden, walk
from ctdeface_worker.dicom.layout import DICOM_SUFFIXES, looks_like_bare_data_set

_PREAMBLE_BYTES = 128
_LOOKED_AT_BYTES = 4096
"""From the beginning of a file; its first elements are small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case: its name (posix, relative to the root; the folder's own name when the root is the case) and its folder."""

    name: str
    folder: Path


def find_cases(root: Path, *, depth: int = 1) -> tuple[Case, ...]:
    """Return the cases under a root in the order of their names.

    A folder is a case when it lies `depth` levels down, or when DICOM lies directly in it before
    that depth is reached. Folders that hold nothing that looks like DICOM are left out; one that
    cannot be looked into is a case, so that it is reported.

    Raises:
        ConfigurationError: the root is missing, is not a folder or cannot be read.
    """
    if not root.is_dir():
        raise ConfigurationError(f"{root} is not a folder")
    if not os.access(root, os.R_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise ConfigurationError(f"{root} cannot be read by this user")
    folders = (folder for folder in _case_folders(root, depth) if _may_hold_dicom(folder))
    return tuple(Case(name=_name(folder, root), folder=folder) for folder in sorted(folders))


def left_out(root: Path, cases: Iterable[Case]) -> tuple[str, ...]:
    """Return the names of the folders, links and zip files directly under a root in which no case was found; hidden ones are nobody's."""
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
    """Tell by the suffix, the DICM prefix behind the preamble (DICOM PS3.10 section 7.1), or a data set that lacks both."""
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
    """Return True if DICOM is directly in a folder, or the folder cannot be read."""
    try:
        return any(entry.is_file() and looks_like_dicom(entry) for entry in folder.iterdir())
    except OSError:
        return True


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
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            yield from _files(entry)
        elif entry.is_file():
            yield entry


def _name(folder: Path, root: Path) -> str:
    return folder.resolve().name if folder == root else folder.relative_to(root).as_posix()
