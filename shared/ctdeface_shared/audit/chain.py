"""The files of a chain: numbered, append-only segments.

They are in one folder; each is a file of JSON lines.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ctdeface_shared.audit.entry import NOTHING_BEFORE, Entry
from ctdeface_shared.storage.bounded import LARGEST_STATE_BYTES, read_bounded

SEGMENT = re.compile(r"[0-9]{6}\.jsonl")
SEGMENT_BYTES = 1_000_000
"""Size in bytes above which a new segment begins.

A search for one job reads whole segments, so they stay small.
"""


def segments(chain: Path) -> list[Path]:
    """Return the segments of a chain, in order."""
    return sorted(path for path in chain.glob("*.jsonl") if SEGMENT.fullmatch(path.name))


def read_segment(file: Path) -> bytes:
    """Return the content of a segment.

    Raises:
        DamagedFile: it is not a regular file, or too large.
        OSError: it cannot be read.
    """
    return read_bounded(file, LARGEST_STATE_BYTES)


def segment_name(number: int) -> str:
    """Return a segment's file name; segments count from 1."""
    return f"{number:06d}.jsonl"


TORN = b" torn\n"
"""Ending that is added to a line that a killed writer left unfinished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """The end of a chain, where the next entry goes.

    Attributes:
        seq: number of the last entry, 0 before the first one.
        digest: digest of the last entry.
        segment: number of the last segment.
        offset: position in bytes in that segment at which its last entry ends.
        torn: unfinished lines after it, which a killed writer left.
    """

    seq: int = 0
    digest: str = NOTHING_BEFORE
    segment: int = 1
    offset: int = 0
    torn: bytes = b""

    @classmethod
    def of(cls, chain: Path) -> Self:
        """Return the end of a chain.

        Raises:
            DamagedFile: a segment is not a regular file, or too large.
            OSError: the chain cannot be read.
        """
        tail = cls()
        for file in segments(chain):
            start = cls(seq=tail.seq, digest=tail.digest, segment=int(file.stem))
            tail = start.over(read_segment(file))
        return tail

    def over(self, content: bytes) -> Self:
        """Return the end after further content of the segment.

        Args:
            content: everything after the last known entry.
        """
        seq, digest, read, complete = self.seq, self.digest, 0, 0
        for line in content.splitlines(keepends=True):
            read += len(line)
            with suppress(ValueError):
                if line.endswith(b"\n"):
                    entry = Entry.from_line(line[:-1])
                    seq, digest, complete = entry.seq, entry.digest, read
        return type(self)(
            seq=seq,
            digest=digest,
            segment=self.segment,
            offset=self.offset + complete,
            torn=content[complete:],
        )

    @property
    def closed(self) -> bytes:
        """Return the unfinished lines, closed with `TORN`.

        The next entry then has its own line, and the unfinished one cannot become a valid entry.
        """
        return self.torn if not self.torn or self.torn.endswith(b"\n") else self.torn + TORN

    @property
    def torn_digest(self) -> str:
        """Return the SHA-256 of `closed`; empty without unfinished lines."""
        return hashlib.sha256(self.closed).hexdigest() if self.torn else ""


def chains(folder: Path) -> list[Path]:
    """Return the folder of each chain, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def entries_of(chain: Path, job_id: str, *, since: float) -> Iterator[Entry]:
    """Yield the entries of one job.

    Only lines that contain its name are parsed.

    Args:
        chain: folder of the chain.
        job_id: name of the job.
        since: skip segments that were last written before this time, in seconds since the epoch.

    Raises:
        DamagedFile: a segment is not a regular file, or too large.
        OSError: the chain cannot be read.
    """
    named = job_id.encode()
    for file in segments(chain):
        content = read_segment(file) if file.lstat().st_mtime >= since else b""
        if named not in content:
            continue
        for line in content.splitlines(keepends=True):
            if named in line and line.endswith(b"\n"):
                with suppress(ValueError):
                    entry = Entry.from_line(line[:-1])
                    if entry.end.job_id == job_id:
                        yield entry
