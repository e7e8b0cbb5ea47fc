"""The fingerprint of a case, and the identity of its job."""

import hashlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ctdeface_shared.jobs.options import DefaceOptions

_JOBS = uuid.UUID("6f0b6a3c-0d1f-5c6e-9a53-5f0c1c1d7a10")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Fingerprint of a case's files by name, size and time; content is not read.

    Attributes:
        files: how many.
        bytes: all together.
        digest: SHA-256 over the sorted (relative path, size, mtime_ns).
    """

    files: int
    bytes: int
    digest: str

    @classmethod
    def scan(cls, folder: Path) -> Self:
        """Take the fingerprint of a folder.

        Raises:
            OSError: the folder cannot be read, or changes while it is.
        """
        rows = sorted(_rows(folder, ""))
        digest = hashlib.sha256()
        for name, size, mtime_ns in rows:
            digest.update(f"{name}\0{size}\0{mtime_ns}\n".encode("utf-8", "surrogateescape"))
        return cls(
            files=len(rows), bytes=sum(size for _, size, _ in rows), digest=digest.hexdigest()
        )

    @classmethod
    def of_file(cls, file: Path) -> Self:
        """Take the fingerprint of a single file, such as a zip file.

        Raises:
            OSError: the file cannot be read.
        """
        status = file.stat(follow_symlinks=False)
        row = f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\n"
        digest = hashlib.sha256(row.encode("utf-8", "surrogateescape")).hexdigest()
        return cls(files=1, bytes=status.st_size, digest=digest)


def job_id(case: str, manifest: Manifest, options: DefaceOptions, generation: int = 0) -> str:
    """Return the id of a job.

    The same drop with the same options is the same job; a replay raises the generation.
    """
    # A name that is not UTF-8 must have an id as well.
    printable = case.encode("utf-8", "backslashreplace").decode()
    return str(uuid.uuid5(_JOBS, f"{printable}\0{manifest.digest}\0{options.digest}\0{generation}"))


def _rows(folder: Path, prefix: str) -> Iterator[tuple[str, int, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _rows(Path(entry.path), f"{prefix}{entry.name}/")
            else:
                status = entry.stat(follow_symlinks=False)
                yield f"{prefix}{entry.name}", status.st_size, status.st_mtime_ns
