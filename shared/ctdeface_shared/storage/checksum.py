"""Reading of whole files: their SHA-256, or a bounded content."""

import errno
import os
from hashlib import file_digest
from pathlib import Path
from stat import S_ISREG

LARGEST_BYTES = 1 << 20
"""Largest file that `read_bounded` reads by default."""


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def read_bounded(path: Path, largest: int = LARGEST_BYTES) -> bytes:
    """Return the content of a regular file.

    Anything else is not opened for reading, so that a pipe does not block.

    Args:
        path: the file; a link is not followed.
        largest: maximum size in bytes.

    Raises:
        ValueError: it is not a regular file, or is larger.
        OSError: it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO, errno.EISDIR}:
            raise ValueError(f"not a regular file: {error.strerror}") from error
        raise
    try:
        status = os.fstat(descriptor)
        if not S_ISREG(status.st_mode) or status.st_size > largest:
            raise ValueError(f"not a regular file of at most {largest} bytes")
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            return stream.read(largest)
    finally:
        os.close(descriptor)
