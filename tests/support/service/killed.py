"""Ends this process's work at its n-th change of the file system, as a kill does.

An audit hook of Python sees every such call. From the chosen one on all of them fail, so that
nothing that runs on the way out can tidy up.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_CHANGES = frozenset(
    {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.utime"}
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Killed(BaseException):
    """No code under test catches it."""


@dataclass(slots=True)
class Kill:
    """When to end.

    Attributes:
        left: number of changes that still succeed; negative when the work was ended.
    """

    left: int


_armed: list[Kill] = []
"""Hooks stay until the interpreter ends, so they look here."""


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if not _armed:
        return
    is_change = event in _CHANGES
    if event == "open" and len(arguments) == 3 and isinstance(arguments[2], int):
        is_change = bool(arguments[2] & _WRITES)
    if is_change:
        _armed[0].left -= 1
        if _armed[0].left < 0:
            raise Killed


sys.addaudithook(_hook)


@contextmanager
def killed_after(changes: int) -> Iterator[Kill]:
    """End the block after a number of changes; `left` is negative if it was ended."""
    kill = Kill(changes)
    _armed.append(kill)
    try:
        yield kill
    except Killed:
        pass
    finally:
        _armed.clear()
