"""One entry of a chain: how a case ended.

An entry is one line of JSON that contains the digest of the entry before it. It names jobs and
digests only. Case and file names, UIDs and header values enter the digests and appear nowhere
else.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import cache
from typing import Self

from pydantic import TypeAdapter, ValidationError

VERSION = 1
NOTHING_BEFORE = "0" * 64
"""Digest of the previous entry in the first entry of a chain."""
UNSIGNED = "unsigned"
_PURPOSE = b"ctdeface audit entry\n"
_JOURNAL = ("state", "staged", "taken", "originals_left")
"""Fields of a report that still change after its case has ended, so its digest omits them."""


class Outcome(StrEnum):
    """How a case ended."""

    RELEASED = "released"
    QUARANTINED = "quarantined"
    REJECTED = "rejected"
    """Refused by the batch command, which leaves the input in place."""
    SUPERSEDED = "superseded"
    """Verified, but a newer job of the case was released before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseEnd:
    """How one submission of a job ended.

    Attributes:
        job_id: name of the job.
        submitted_at: time of its submission, the report's `created_at`; UTC, ISO 8601.
        outcome: outcome of the case.
        code: code of the refusal, or empty.
        files: number of released files.
        inputs: SHA-256 over the names and contents of the case's files (`digest_of`); empty if it
            ended before they were read.
        outputs: the same over the released files; empty if none was released.
        report: SHA-256 of the report (`digest_of_report`).
        segmenter: name of the segmenter.
        model: SHA-256 of its model or rules; empty if the case ended before they were loaded.
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
        """Return job and time, which identify the submission."""
        return (self.job_id, self.submitted_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a chain.

    Attributes:
        version: version of the format.
        chain: name of the chain.
        seq: number in the chain, from 1.
        prev: SHA-256 of the line before, without its line end.
        torn: SHA-256 of unfinished lines that a killed writer left between the two, line ends
            included; otherwise empty.
        at: time of writing; UTC, ISO 8601.
        pid: process that wrote it.
        end: how the submission ended.
        key: name of the key that signed it, or `unsigned`.
        signature: Ed25519 signature in base64, or empty.
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
        """Return the entry's line, without line end."""
        return canonical(asdict(self))

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the line."""
        return hashlib.sha256(self.line).hexdigest()

    @property
    def signed_content(self) -> bytes:
        """Return the signed bytes.

        They are a fixed prefix and the line without its signature. The prefix states their
        purpose, so that the signature is not valid for anything else.
        """
        return _PURPOSE + canonical(asdict(replace(self, signature="")))

    def with_signature(self, signature: bytes) -> Self:
        """Return the same entry, signed."""
        return replace(self, signature=base64.b64encode(signature).decode())

    @property
    def raw_signature(self) -> bytes:
        """Return the signature's bytes; empty if not valid base64."""
        try:
            return base64.b64decode(self.signature, validate=True)
        except ValueError:
            return b""

    @staticmethod
    def from_line(line: bytes) -> "Entry":
        """Parse a line without its line end.

        Raises:
            ValueError: it is not an entry of this version in its canonical form.
        """
        try:
            entry = _reader().validate_json(line)
        except ValidationError:
            raise ValueError("the line is not an entry") from None
        if entry.version != VERSION or entry.line != line:
            raise ValueError("the entry is not in canonical form, or of another version")
        return entry


@cache
def _reader() -> TypeAdapter[Entry]:
    return TypeAdapter(Entry)


def canonical(content: object) -> bytes:
    """Return the canonical JSON that digests and signatures use."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode("ascii")


def digest_of(case: str, files: Mapping[str, str]) -> str:
    """Return one digest for a case's name and its files.

    Args:
        case: name of the case.
        files: SHA-256 of each file's content, by its name in the case.
    """
    return hashlib.sha256(canonical([case, sorted(files.items())])).hexdigest()


def digest_of_report(content: bytes) -> str:
    """Return the digest of a report without its journal fields.

    Args:
        content: report.json.

    Raises:
        ValueError: it is not a JSON object.
    """
    match json.loads(content, parse_int=float):  # 1 and 1.0 are the same number
        case {**fields}:
            kept = {name: value for name, value in fields.items() if name not in _JOURNAL}
        case _:
            raise ValueError("the report is not a JSON object")
    return hashlib.sha256(canonical(kept)).hexdigest()
