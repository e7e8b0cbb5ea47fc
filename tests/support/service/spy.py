"""Read everything that a user can read, over and over, and report files with certain bytes.

    python -m tests.support.service.spy NEEDLE FOLDER … [--except FOLDER …]

Each found path is one line of standard output. It ends by a signal.
"""

import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PAUSE_SECONDS = 0.01


def main() -> None:
    """Look until killed; every path is reported once."""
    needle, *places = sys.argv[1:]
    cut = places.index("--except") if "--except" in places else len(places)
    shunned = frozenset(places[cut + 1 :])
    found: set[str] = set()
    while True:
        for place in places[:cut]:
            for path in _files(place, shunned):
                if path not in found and needle.encode() in _content(path):
                    found.add(path)
                    print(path, flush=True)
        time.sleep(_PAUSE_SECONDS)


def _files(folder: str, shunned: frozenset[str]) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if f"{parent}/{name}" not in shunned]
        yield from (f"{parent}/{name}" for name in names)


def _content(path: str) -> bytes:
    with suppress(OSError):
        if stat.S_ISREG(Path(path).lstat().st_mode):
            return Path(path).read_bytes()
    return b""


if __name__ == "__main__":
    main()
