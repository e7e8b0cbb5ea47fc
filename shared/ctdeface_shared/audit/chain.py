"""How a chain lies on the disk: a folder of numbered segments, each a file of JSON lines that is only ever appended to."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ctdeface_shared.audit.entry import NOTHING_BEFORE, Entry

SEGMENT = re.compile(r"[0-9]{6}\.jsonl")
SEGMENT_BYTES = 1_000_000
"""A segment that is larger gets a successor; whoever looks for one job reads whole segments."""


def segments(chain: Path) -> list[Path]:
    """Return the files of a chain in their order; a copy that somebody left beside them is none."""
    return sorted(path for path in chain.glob("*.jsonl") if SEGMENT.fullmatch(path.name))


def segment_name(number: int) -> str:
    """Name the segment of a number, which begins at 1."""
    return f"{number:06d}.jsonl"


TORN = b" torn\n"
"""Ends a line that a killed writer left unfinished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """Where the next entry of a chain goes, and what it goes on from.

    Attributes:
        seq: of the last entry, 0 before the first one.
        digest: of the last entry.
        segment: number of the last segment.
        offset: where its last entry ends, in bytes.
        torn: unfinished lines behind that, which a killed writer left.
    """

    seq: int = 0
    digest: str = NOTHING_BEFORE
    segment: int = 1
    offset: int = 0
    torn: bytes = b""

    @classmethod
    def of(cls, chain: Path) -> Self:
        """Find the end of a chain.

        Raises:
            OSError: it cannot be read.
        """
        tail = cls()
        for file in segments(chain):
            tail = cls(seq=tail.seq, digest=tail.digest, segment=int(file.stem)).over(
                file.read_bytes()
            )
        return tail

    def over(self, content: bytes) -> Self:
        """Go on over what stands in the segment behind the last known entry."""
        seq, digest, read, good = self.seq, self.digest, 0, 0
        for line in content.splitlines(keepends=True):
            read += len(line)
            with suppress(ValueError):
                if line.endswith(b"\n"):
                    entry = Entry.from_line(line[:-1])
                    seq, digest, good = entry.seq, entry.digest, read
        return type(self)(
            seq=seq,
            digest=digest,
            segment=self.segment,
            offset=self.offset + good,
            torn=content[good:],
        )

    @property
    def closed(self) -> bytes:
        """The unfinished lines with an end, so that the next entry gets a line of its own, and no whole entry comes of them by that."""
        return self.torn if not self.torn or self.torn.endswith(b"\n") else self.torn + TORN

    @property
    def torn_digest(self) -> str:
        """SHA-256 of that; empty when nothing is torn."""
        return hashlib.sha256(self.closed).hexdigest() if self.torn else ""


def chains(folder: Path) -> list[Path]:
    """Return the folder of each chain, by name."""
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def entries_of(chain: Path, job_id: str, *, since: float) -> Iterator[Entry]:
    """Yield what a chain says about a job, read quickly: whole lines are looked at only when they name it.

    Args:
        chain: folder of the chain.
        job_id: which job.
        since: segments that were last written before this moment are left out; seconds since the
            epoch.

    Raises:
        OSError: it cannot be read.
    """
    named = job_id.encode()
    for file in segments(chain):
        content = file.read_bytes() if file.stat().st_mtime >= since else b""
        if named not in content:
            continue
        for line in content.splitlines(keepends=True):
            if named in line and line.endswith(b"\n"):
                with suppress(ValueError):
                    entry = Entry.from_line(line[:-1])
                    if entry.end.job_id == job_id:
                        yield entry
