"""Digests of files and folders."""

import errno
import os
import stat
from collections.abc import Iterable
from hashlib import file_digest, sha256
from pathlib import Path
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


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal.

    Raises:
        OSError: the file cannot be read, or is a pipe, on which reading would wait for ever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return file_digest(stream, "sha256").hexdigest()


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
