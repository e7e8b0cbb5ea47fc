"""Damage to the files and folders of a spool, as faults and attacks leave it.

Every kind takes a path and a source of random numbers. It never follows a link, and a folder in
which nothing else is damaged stays usable.
"""

import json
import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ctdeface_shared.storage.private_tree import remove_tree

DEEP = 3_000
"""Levels of nested folders; Python's own walks end at about 1 000, paths at about 2 000."""
SPARSE_BYTES = 50_000_000_000
STRANGER = 65_534
"""A user id that is not the service's."""
ABSURD: tuple[Any, ...] = (
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59.999999-14:00",
    "yesterday",
    "2026-11-21T08:00:00",
    10**400,
    -1,
    1e308,
    float("nan"),
    True,
    None,
    [],
    {},
    "",
    "\ud800",
    "../../../outside",
    "/",
    "a\0b",
    "x" * 5_000,
    [[[[1]]]],
)

Damage = Callable[[Path, random.Random], None]


def truncate(path: Path, chance: random.Random) -> None:
    """Cut a file anywhere."""
    os.truncate(path, chance.randrange(path.stat().st_size + 1))


def empty(path: Path, _: random.Random) -> None:
    """Leave nothing of a file."""
    os.truncate(path, 0)


def overwrite(path: Path, chance: random.Random) -> None:
    """Replace a file by random bytes."""
    path.write_bytes(chance.randbytes(chance.randrange(1, 4_000)))


def flip(path: Path, chance: random.Random) -> None:
    """Change single bytes of a file."""
    content = bytearray(path.read_bytes())
    for _ in range(5):
        if content:
            content[chance.randrange(len(content))] = chance.randrange(256)
    path.write_bytes(content)


def change_value(path: Path, chance: random.Random) -> None:
    """Give one value in JSON another type or an absurd value; other files are overwritten."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        overwrite(path, chance)
        return
    places = list(_places(content))
    if not places:
        content = chance.choice(ABSURD)
    else:
        holder, key = chance.choice(places)
        holder[key] = chance.choice(ABSURD)
    path.write_bytes(json.dumps(content).encode())


def nest(path: Path, chance: random.Random) -> None:
    """Replace a file by JSON that is nested very deeply."""
    levels = chance.choice([1_001, 5_000, 100_000])
    path.write_bytes(b'{"a":' * levels + b"1" + b"}" * levels)


def become_folder(path: Path, _: random.Random) -> None:
    """Put a folder with a file where the file was."""
    remove_tree(path)
    path.mkdir()
    (path / "inside").write_bytes(b"content")


def become_pipe(path: Path, _: random.Random) -> None:
    """Put a named pipe there; who opens it carelessly waits for ever."""
    remove_tree(path)
    os.mkfifo(path)


def become_loop(path: Path, _: random.Random) -> None:
    """Put a link to itself there."""
    remove_tree(path)
    path.symlink_to(path.name)


def become_link(path: Path, _: random.Random) -> None:
    """Put a link there, to a place outside that must not be made."""
    remove_tree(path)
    path.symlink_to("missing-folder/outside")


def become_sparse(path: Path, _: random.Random) -> None:
    """Make a file huge without using the disk."""
    os.truncate(path, SPARSE_BYTES)


def lock_away(path: Path, _: random.Random) -> None:
    """Take every right away; where the tests run as root, give it to another user as well."""
    path.chmod(0)
    if os.geteuid() == 0:
        os.chown(path, STRANGER, STRANGER)


FILE_DAMAGES: Mapping[str, Damage] = {
    "truncated": truncate,
    "empty": empty,
    "overwritten": overwrite,
    "bytes changed": flip,
    "value changed": change_value,
    "nested": nest,
    "folder": become_folder,
    "pipe": become_pipe,
    "loop": become_loop,
    "link": become_link,
    "sparse": become_sparse,
    "locked away": lock_away,
}


def add_strange_entries(folder: Path) -> None:
    """Put names and kinds into a folder of the spool that do not belong there."""
    (folder / os.fsdecode(b"\xff\xfe-not-utf8")).mkdir()
    (folder / ("n" * 255)).mkdir()
    (folder / "file").write_bytes(b"content")
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    closed = folder / "closed"
    closed.mkdir()
    (closed / "inside").mkdir()
    lock_away(closed, random.Random(0))
    nest_folders(folder / "deep")


def nest_folders(folder: Path, levels: int = DEEP) -> None:
    """Nest folders deeper than any path can say."""
    folder.mkdir()
    here = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


REPLACED = ("folder", "pipe", "loop", "link")
"""Damages that do not look at what was there."""


@contextmanager
def nested_folders(folder: Path) -> Iterator[None]:
    """Nest folders during the block; pytest could not remove them."""
    nest_folders(folder)
    try:
        yield
    finally:
        remove_tree(folder)


def damage_file(path: Path, chance: random.Random, *, is_content: bool = False) -> None:
    """Damage a file in one way.

    Files of cases, and what is not a small regular file any more, are replaced.
    """
    status = path.lstat()
    is_small = stat.S_ISREG(status.st_mode) and status.st_size < 10_000_000 and not is_content
    FILE_DAMAGES[chance.choice(sorted(FILE_DAMAGES) if is_small else REPLACED)](path, chance)


def copy_folder(source: Path, target: Path) -> Path:
    """Copy a folder; return the copy."""
    shutil.copytree(source, target)
    return target


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every holder with a key or index in it."""
    items = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    for key, value in items:
        yield content, key
        yield from _places(value)
