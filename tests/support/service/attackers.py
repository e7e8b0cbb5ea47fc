"""What people who may drop do to a service; run as their user until killed.

python -m tests.support.service.attackers ATTACK INBOX ARGUMENT …
"""

import ctypes
import fcntl
import os
import random
import struct
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from tests.support.service.patients import ADAMS

_IN_CLOSE_NOWRITE, _IN_ISDIR = 0x10, 0x40000000
_FOLDERS_HELD = 20
_SHARE = 0.3
"""Share of the entries that are disturbed in one round."""


def replace(pattern: str, target: str) -> None:
    """Replace each folder of this name by a link as soon as it appears."""
    while True:
        for entry in Path().iterdir():
            if fnmatch(entry.name, pattern) and not entry.is_symlink():
                _swap(entry, target)


def follow(case: str, target: str) -> None:
    """Add a file to a folder after it was moved away, and put a link in its old place."""
    held = os.open(case, os.O_RDONLY)
    while os.path.lexists(case):
        continue
    Path(case).symlink_to(target)
    _write(held, "late.dcm", os.O_CREAT)
    time.sleep(3600)


def after_scan(case: str, target: str, sign: str) -> None:
    """Replace a folder by a link when it was listed after a sign had appeared."""
    library = ctypes.CDLL(None, use_errno=True)
    events = library.inotify_init()
    library.inotify_add_watch(events, os.fsencode(case), _IN_CLOSE_NOWRITE)
    while True:
        read = os.read(events, 65536)
        masks = [mask for _, mask, _, _ in struct.iter_unpack("iIII", read[: len(read) // 16 * 16])]
        if any(mask & _IN_ISDIR for mask in masks) and os.path.lexists(sign):
            _swap(Path(case), target)
            time.sleep(3600)


def lease(case: str) -> None:
    """Hold a lease on every file of a folder, so that each opening waits for 45 seconds."""
    held = [os.open(file, os.O_RDWR) for file in sorted(Path(case).iterdir())]
    for file in held:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    print("held", flush=True)
    time.sleep(3600)


def flicker(name: str, *targets: str) -> None:
    """Replace a folder by links in turns, thousands of times."""
    while True:
        for target in targets:
            with suppress(OSError):
                _link_for_a_moment(Path(name), target)


def disturb(seed: str, *targets: str) -> None:
    """Swap, link, rename and delete at random in the inbox, and inside folders that are gone."""
    chance, held = random.Random(seed), list[int]()
    while True:
        for entry in _entries():
            with suppress(OSError):
                held.append(os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW))
            if chance.random() < _SHARE:
                with suppress(OSError):
                    chance.choice(_OUTSIDE)(entry, chance.choice(targets))
        for folder in held:
            with suppress(OSError):
                name = chance.choice([file.name for file in os.scandir(folder)] or ["new.dcm"])
                chance.choice(_INSIDE)(folder, name, chance.choice(targets))
        while len(held) > _FOLDERS_HELD:
            os.close(held.pop(0))
        time.sleep(chance.uniform(0, 0.01))


def _entries() -> list[Path]:
    with suppress(OSError):
        return [entry for entry in Path().iterdir() if not entry.name.startswith(".")]
    return []


def _link_for_a_moment(entry: Path, target: str) -> None:
    away = entry.rename(f".{entry}.away")
    entry.symlink_to(target)
    time.sleep(random.uniform(0, 0.002))
    entry.unlink()
    away.rename(entry)


def _hide_for_a_moment(entry: Path, _target: str) -> None:
    entry.rename(f"{entry}.part").rename(entry)


def _guess_a_name(entry: Path, target: str) -> None:
    kind = random.choice(("together", "unpacking", "replay", "part", "files"))
    Path(f".{entry}.{kind}").symlink_to(target)


def _link_hard(entry: Path, _target: str) -> None:
    Path(f".{entry}.hard").hardlink_to(entry)


def _swap(entry: Path, target: str) -> None:
    with suppress(OSError):
        entry.rename(f".{entry}.{time.monotonic_ns()}.stolen")
        entry.symlink_to(target)


def _link_inside(folder: int, name: str, target: str) -> None:
    os.unlink(name, dir_fd=folder)
    os.symlink(target, name, dir_fd=folder)


def _fifo_inside(folder: int, name: str, _target: str) -> None:
    os.unlink(name, dir_fd=folder)
    os.mkfifo(name, dir_fd=folder)


def _new_inside(folder: int, _name: str, _target: str) -> None:
    _write(folder, f"new{random.randrange(5)}.dcm", os.O_CREAT)


def _write_inside(folder: int, name: str, _target: str) -> None:
    _write(folder, name, 0)


def _rename_inside(folder: int, name: str, _target: str) -> None:
    os.rename(name, f"other{random.randrange(5)}.dcm", src_dir_fd=folder, dst_dir_fd=folder)


def _link_hard_inside(folder: int, name: str, _target: str) -> None:
    os.link(name, f"hard{random.randrange(5)}.dcm", src_dir_fd=folder, dst_dir_fd=folder)


def _folder_inside(folder: int, _name: str, _target: str) -> None:
    os.mkdir(f"sub{random.randrange(5)}", dir_fd=folder)


def _delete_inside(folder: int, name: str, _target: str) -> None:
    os.unlink(name, dir_fd=folder)


def _write(folder: int, name: str, flags: int) -> None:
    flags |= os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW
    with os.fdopen(os.open(name, flags, 0o660, dir_fd=folder), "wb") as file:
        file.write(ADAMS.image(random.randrange(1000)))


_OUTSIDE = (_link_for_a_moment, _hide_for_a_moment, _guess_a_name, _link_hard)
_INSIDE = (
    _link_inside,
    _fifo_inside,
    _new_inside,
    _write_inside,
    _rename_inside,
    _link_hard_inside,
    _folder_inside,
    _delete_inside,
)
ATTACKS: Mapping[str, Callable[..., None]] = {
    "replace": replace,
    "follow": follow,
    "after-scan": after_scan,
    "lease": lease,
    "flicker": flicker,
    "disturb": disturb,
}


def main() -> None:
    """Attack until killed."""
    attack, inbox, *arguments = sys.argv[1:]
    os.chdir(inbox)
    os.umask(0o002)
    print("ready", flush=True)
    ATTACKS[attack](*arguments)


if __name__ == "__main__":
    main()
