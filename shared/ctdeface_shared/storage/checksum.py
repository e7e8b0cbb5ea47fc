"""Digests of files and folders."""

import os
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
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
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
