"""One entry of a chain: how a case ended, in one line of JSON that names the entry before it by digest.

An entry names jobs and digests only. Case and file names, UIDs and header values go into the
digests, and nowhere else.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import cache
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

VERSION = 1
NOTHING_BEFORE = "0" * 64
"""What the first entry of a chain names as the digest of the one before it."""
UNSIGNED = "unsigned"
_PURPOSE = b"ctdeface audit entry\n"
_JOURNAL = ("state", "staged", "originals_left")
"""Fields of a report that still change after its case has ended."""


class Outcome(StrEnum):
    """How a case ended."""

    RELEASED = "released"
    QUARANTINED = "quarantined"
    REJECTED = "rejected"
    """Refused without a quarantine: by the batch command, which leaves the input where it is."""
    SUPERSEDED = "superseded"
    """Proven, but a newer job of the case was released before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseEnd:
    """How one submission of a job ended.

    Attributes:
        job_id: which job.
        submitted_at: which submission of it; UTC, ISO 8601, as the report's `created_at`.
        outcome: how it ended.
        code: why it was refused, else empty.
        files: how many were released.
        inputs: SHA-256 over the names and contents of the case's files (`digest_of`); empty when it
            was broken off before they were read.
        outputs: the same of what was released; empty when nothing was.
        report: SHA-256 of the report (`digest_of_report`).
        segmenter: what made the masks.
        model: SHA-256 of its model or rules; empty when it did not come to that.
        program: version of this program.
        replaces: jobs of the same case whose output this one replaced.
    """

    job_id: str
    submitted_at: str
    outcome: Outcome
    code: str = ""
    files: int = 0
    inputs: str = ""
    outputs: str = ""
    report: str
    segmenter: str = ""
    model: str = ""
    program: str
    replaces: tuple[str, ...] = ()

    @property
    def submission(self) -> tuple[str, str]:
        """What it is about; one submission ends once."""
        return (self.job_id, self.submitted_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a chain.

    Attributes:
        version: of this form.
        chain: name of the chain.
        seq: number in the chain, from 1.
        prev: SHA-256 of the line before, without its line end.
        torn: SHA-256 of unfinished lines that a killed writer left between the two, line ends
            included; else empty.
        at: when it was written; UTC, ISO 8601.
        pid: process that wrote it.
        end: what it says.
        key: name of the key that signed it, or `unsigned`.
        signature: base64 of the Ed25519 signature, else empty.
    """

    version: int = VERSION
    chain: str
    seq: int
    prev: str
    torn: str = ""
    at: str
    pid: int
    end: CaseEnd
    key: str = UNSIGNED
    signature: str = ""

    @property
    def line(self) -> bytes:
        """The entry as it stands in the file, without line end."""
        return canonical(asdict(self))

    @property
    def digest(self) -> str:
        """SHA-256 of its line."""
        return hashlib.sha256(self.line).hexdigest()

    @property
    def signed_content(self) -> bytes:
        """What is signed: the line without its signature, after words that say what it is."""
        return _PURPOSE + canonical(asdict(replace(self, signature="")))

    def with_signature(self, signature: bytes) -> Self:
        """Return the same entry, signed."""
        return replace(self, signature=base64.b64encode(signature).decode())

    @property
    def raw_signature(self) -> bytes:
        """The signature's bytes; empty when it is none."""
        try:
            return base64.b64decode(self.signature, validate=True)
        except ValueError:
            return b""

    @staticmethod
    def from_line(line: bytes) -> "Entry":
        """Read a line without its line end.

        Raises:
            ValueError: it is no entry of this version, or not written exactly as entries are.
        """
        try:
            entry = _reader().validate_json(line)
        except ValidationError:
            raise ValueError("no entry") from None
        if entry.version != VERSION or entry.line != line:
            raise ValueError("not written as entries are")
        return entry


@cache
def _reader() -> TypeAdapter[Entry]:
    return TypeAdapter(Entry)


def canonical(content: object) -> bytes:
    """Write JSON in the one way that digests and signatures are taken of."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode(
        "ascii"
    )


def digest_of(case: str, files: Mapping[str, str]) -> str:
    """Return one digest for a case's name and its files.

    Args:
        case: its name.
        files: SHA-256 of each file's content, by its name in the case.
    """
    return hashlib.sha256(canonical([case, sorted(files.items())])).hexdigest()


def digest_of_report(content: bytes) -> str:
    """Return the digest of a report, however far its journal came: everything but `state` and `staged`.

    Args:
        content: report.json.

    Raises:
        ValueError: it is no JSON object.
    """
    plain: Any = json.loads(content, parse_int=float)  # 1 and 1.0 are the same figure
    if not isinstance(plain, dict):
        message = "no report"
        raise ValueError(message)
    return hashlib.sha256(
        canonical({name: value for name, value in plain.items() if name not in _JOURNAL})
    ).hexdigest()
