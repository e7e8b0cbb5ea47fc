"""Bounded reading of files that a fault or an attack may have replaced.

Only a regular file of limited size is read. A FIFO, a device, a link, a folder or a sparse file
of many gigabytes under the expected name cannot block the reader or use up its memory.
"""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

LARGEST_OWNER_BYTES = 4_096
"""Owner files of locks and folders have about 250 bytes."""
LARGEST_STATE_BYTES = 64_000_000
"""States, indexes and audit segments; the largest known ones have about 10 MB."""
LARGEST_REPORT_BYTES = 256_000_000
"""Reports; one of a case with 100 000 files has about 60 MB."""
_CAREFUL = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC"))
"""Flags of `os.open`; Windows has none of them."""
_NOT_REGULAR = frozenset({errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.EOPNOTSUPP, errno.ENODEV})
"""Error numbers of opening a link, a FIFO or socket without a partner, or a folder."""


class DamagedFile(ValueError):
    """A file that is not regular, is too large, or does not hold the expected content."""


def open_regular(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a regular file without waiting and without following a link; return the descriptor.

    Args:
        path: the file.
        flags: as for `os.open`.
        mode: mode of a created file.

    Raises:
        DamagedFile: something else has that name.
        OSError: the file cannot be opened.
    """
    try:
        descriptor = os.open(path, flags | _CAREFUL, mode)
    except OSError as error:
        if error.errno in _NOT_REGULAR:
            raise DamagedFile(f"{path.name} is not a regular file: remove it") from None
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise DamagedFile(f"{path.name} is not a regular file: remove it")


def read_bounded(path: Path, largest_bytes: int) -> bytes:
    """Read a whole regular file of limited size.

    Args:
        path: the file; a link in its place is not followed.
        largest_bytes: maximum size.

    Raises:
        DamagedFile: it is not a regular file, or larger.
        OSError: it does not exist or cannot be read.
    """
    descriptor = open_regular(path, os.O_RDONLY)
    with os.fdopen(descriptor, "rb") as stream:
        size = os.fstat(descriptor).st_size
        if size <= largest_bytes:
            content = stream.read(largest_bytes + 1)
            size = len(content)
        if size > largest_bytes:
            raise DamagedFile(
                f"{path.name} has {size} bytes or more, at most {largest_bytes} are expected: "
                "remove it"
            )
    return content


def parse_json(content: bytes) -> Any:
    """Decode JSON in UTF-8.

    Raises:
        DamagedFile: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise DamagedFile("the JSON is nested too deeply") from None
    except ValueError as error:
        raise DamagedFile("the content is not JSON in UTF-8") from error
