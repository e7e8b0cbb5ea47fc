"""The fingerprint of a case, and the identity of its job."""

import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_shared.storage.checksum import FileDigest, digest_of_rows, digest_of_text, sha256_of

_JOBS = uuid.UUID("6f0b6a3c-0d1f-5c6e-9a53-5f0c1c1d7a10")


class Covers(StrEnum):
    """What the digest of a manifest covers besides names and sizes."""

    CONTENT = "content"
    TIMES = "times"
    """As release 0.1.0 wrote it; two patients' files can have the same names, sizes and times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Fingerprint of a case's files by name, size and content.

    Attributes:
        files: how many.
        bytes: all together.
        digest: SHA-256 over the sorted (relative path, size, SHA-256 of the content).
        covers: what the digest covers.
    """

    files: int
    bytes: int
    digest: str
    covers: Covers = Covers.CONTENT

    @classmethod
    def of(cls, files: Iterable[FileDigest]) -> Self:
        """Return the fingerprint of files whose content was read."""
        rows = sorted(files)
        return cls(
            files=len(rows),
            bytes=sum(row.size for row in rows),
            digest=digest_of_text(f"{name}\0{size}\0{sha256}\n" for name, size, sha256 in rows),
        )

    @classmethod
    def scan(cls, folder: Path) -> Self:
        """Read a private folder and return its fingerprint.

        Raises:
            OSError: the folder cannot be read, or changes while it is.
        """
        return cls.of(
            FileDigest(name, status.st_size, sha256_of(folder / name))
            for name, status in _rows(folder)
        )


def digest_of_times(folder: Path) -> str:
    """Return the digest that release 0.1.0 made: names, sizes and modification times.

    Raises:
        OSError: the folder cannot be read, or changes while it is.
    """
    rows = sorted((name, status.st_size, status.st_mtime_ns) for name, status in _rows(folder))
    return digest_of_text(f"{name}\0{size}\0{mtime_ns}\n" for name, size, mtime_ns in rows)


def digest_of_stats(folder: Path) -> str:
    """Return a digest that changes with every file that is changed, added or replaced.

    It covers name, device, inode, size and both times of each file; the content is not read. Users
    can set the modification time of a file, but not the time of its last change.

    Raises:
        OSError: the folder cannot be read, or changes while it is.
    """
    return digest_of_rows(_rows(folder))


def job_id(case: str, manifest: Manifest, options: DefaceOptions, generation: int = 0) -> str:
    """Return the id of a job.

    The same drop with the same options is the same job; a replay raises the generation.
    """
    # A name that is not UTF-8 must have an id as well.
    printable = case.encode("utf-8", "backslashreplace").decode()
    return str(uuid.uuid5(_JOBS, f"{printable}\0{manifest.digest}\0{options.digest}\0{generation}"))


def _rows(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield name and status of each file below a folder, or of the file itself."""
    if not folder.is_dir():
        yield folder.name, folder.stat(follow_symlinks=False)
        return
    pending = [("", str(folder))]
    while pending:
        prefix, place = pending.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append((f"{prefix}{entry.name}/", entry.path))
                else:
                    yield f"{prefix}{entry.name}", entry.stat(follow_symlinks=False)
