"""A walk through folders of any depth.

`os.walk` and `Path.rglob` call themselves for each level and fail at a depth of about 1000.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def walk_tree(
    root: Path,
    on_error: Callable[[OSError], None],
    *,
    enters: Callable[[str], bool] = lambda _folder: True,
) -> Iterator[tuple[str, "list[os.DirEntry[str]]"]]:
    """Yield each folder with its entries in name order, parents first.

    Links are not followed. Paths are text because `Path` is slow.

    Args:
        root: folder to start from.
        on_error: called with the error of each folder that cannot be listed, such as one whose
            path is longer than the system allows; it may raise.
        enters: tells by its path whether to enter a folder.
    """
    waiting = [str(root)]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
            below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            on_error(error)
            continue
        yield folder, entries
        waiting.extend(path for path in reversed(below) if enters(path))
