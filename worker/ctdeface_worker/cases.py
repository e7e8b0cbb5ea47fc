"""Which folders are cases: the first-level folders of the root, or deeper ones with `--case-depth`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ctdeface_shared.errors import ConfigurationError

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
_PREAMBLE_BYTES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case: its name (posix, relative to the root; the folder's own name when the root is the case) and its folder."""

    name: str
    folder: Path


def find_cases(root: Path, *, depth: int = 1) -> tuple[Case, ...]:
    """Return the cases under a root in the order of their names.

    A folder is a case when it lies `depth` levels down, or when DICOM lies directly in it before that depth is reached.
    Folders that hold nothing that looks like DICOM are left out.

    Raises:
        ConfigurationError: the root is missing or is not a folder.
    """
    if not root.is_dir():
        message = f"{root} is not a folder"
        raise ConfigurationError(message)
    folders = (folder for folder in _case_folders(root, depth) if any(looks_like_dicom(file) for file in _files(folder)))
    return tuple(Case(name=_name(folder, root), folder=folder) for folder in sorted(folders))


def looks_like_dicom(file: Path) -> bool:
    """Tell by the suffix or by the DICM prefix behind the preamble (DICOM PS3.10 section 7.1)."""
    if file.suffix.lower() in DICOM_SUFFIXES:
        return True
    with file.open("rb") as stream:
        return stream.read(_PREAMBLE_BYTES + 4)[_PREAMBLE_BYTES:] == b"DICM"


def _case_folders(folder: Path, depth: int) -> Iterator[Path]:
    entries = list(folder.iterdir())
    if depth == 0 or any(entry.is_file() and looks_like_dicom(entry) for entry in entries):
        yield folder
        return
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("."):
            yield from _case_folders(entry, depth - 1)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _name(folder: Path, root: Path) -> str:
    return folder.resolve().name if folder == root else folder.relative_to(root).as_posix()
