"""The size of a case's folder, checked before its files are read."""

import os
from pathlib import Path

from ctdeface_shared.console import printable
from ctdeface_shared.errors import TooLarge
from ctdeface_shared.storage.tree_limits import TreeLimits


def require_allowed(folder: Path, limits: TreeLimits) -> None:
    """Check a case's folder against the limits; links are not followed.

    Raises:
        TooLarge: the case holds too much.
        OSError: it cannot be listed.
    """
    files = size = 0
    pending = [("", folder)]
    while pending:
        above, place = pending.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                name = f"{above}{entry.name}"
                _require_short(name, limits)
                if entry.is_dir(follow_symlinks=False):
                    pending.append((f"{name}/", Path(entry.path)))
                    continue
                files, length = files + 1, entry.stat(follow_symlinks=False).st_size
                size += length
                _require_small(name, length, limits)
                _require_few(files, size, limits)


def _require_short(name: str, limits: TreeLimits) -> None:
    length, depth = len(os.fsencode(name)), name.count("/")
    if length > limits.path_bytes:
        raise TooLarge(
            f"a path of the case has {length} bytes, and limits.path_bytes allows "
            f"{limits.path_bytes}: shorten it, or raise the limit"
        )
    if depth > limits.depth:
        raise TooLarge(
            f"folders of the case are nested more than {limits.depth} deep, which limits.depth "
            "allows: move the files up, or raise the limit"
        )


def _require_small(name: str, size: int, limits: TreeLimits) -> None:
    if size > limits.file_bytes:
        raise TooLarge(
            f"{printable(name)} has {size / 1e9:.3g} GB, and limits.file_gb allows "
            f"{limits.file_bytes / 1e9:g} GB for one file: remove it, or raise the limit"
        )


def _require_few(files: int, size: int, limits: TreeLimits) -> None:
    if files > limits.files:
        raise TooLarge(
            f"the case holds more than the {limits.files} files that limits.files allows: split "
            "it, or raise the limit"
        )
    if size > limits.bytes:
        raise TooLarge(
            f"the case holds more than the {limits.bytes / 1e9:g} GB that limits.case_gb allows: "
            "split it, or raise the limit"
        )
