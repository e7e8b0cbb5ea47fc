"""Removal of folders of any depth.

`shutil.rmtree` calls itself for each level and fails at a depth of about 1000. Here, descriptors
replace paths, so neither the depth nor the length of a path has a limit.
"""

import os
from contextlib import suppress
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(folder: Path) -> None:
    """Remove a folder with everything in it; links are removed and not followed.

    Others must not be able to rename folders in it meanwhile.

    Args:
        folder: may be gone already.

    Raises:
        OSError: something cannot be removed; the rest may be gone.
    """
    with suppress(FileNotFoundError):
        _remove_content(folder)
        folder.rmdir()


def _remove_content(folder: Path) -> None:
    """Go down and up again with one open descriptor and the names above it."""
    here = os.open(folder, _FOLDER)
    above: list[tuple[str, list[str], tuple[int, int]]] = []
    try:
        waiting = _remove_files(here)
        while waiting or above:
            if waiting:
                name = waiting.pop()
                above.append((name, waiting, _identity(here)))
                here = _replaced(here, name)
                waiting = _remove_files(here)
            else:
                name, waiting, parent = above.pop()
                here = _replaced(here, "..")
                if _identity(here) != parent:
                    raise OSError("a folder was moved while it was being removed")
                os.rmdir(name, dir_fd=here)
    finally:
        os.close(here)


def _replaced(here: int, name: str) -> int:
    """Open a folder relative to another one, which is closed."""
    there = os.open(name, _FOLDER, dir_fd=here)
    os.close(here)
    return there


def _remove_files(here: int) -> list[str]:
    """Remove all but the folders, whose names are returned."""
    folders = []
    with os.scandir(here) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=here)
    return folders


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
