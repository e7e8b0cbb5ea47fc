"""Digests of files and folders, and bounded reading."""

import errno
import os
from collections.abc import Iterable
from hashlib import file_digest, sha256
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple


class FileDigest(NamedTuple):
    """One file of a case.

    Attributes:
        name: path relative to the case, parts joined by `/`.
        size: bytes.
        sha256: of the content, hexadecimal.
    """

    name: str
    size: int
    sha256: str


_PLAIN_READ = os.O_RDONLY | sum(
    getattr(os, name, 0)  # Windows has none of them
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC")
)
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
        descriptor = os.open(path, _PLAIN_READ)
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


def digest_of_rows(files: Iterable[tuple[str, os.stat_result]]) -> str:
    """Return the digest of `digest_of_stats` for names and statuses."""
    rows = sorted(
        (name, one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns)
        for name, one in files
    )
    return digest_of_text("\0".join(map(str, row)) + "\n" for row in rows)


def digest_of_text(rows: Iterable[str]) -> str:
    """Return the SHA-256 of rows of text, hexadecimal."""
    digest = sha256()
    for row in rows:
        digest.update(row.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
