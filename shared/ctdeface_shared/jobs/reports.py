"""The reader of `report.json`.

Only the worker reads more of a report, with its own model. Reports are written by workers of this
and other versions, so unknown fields are ignored and only the fields below are required.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from ctdeface_shared.jobs.manifest import Covers, Manifest
from ctdeface_shared.jobs.moments import read_moment
from ctdeface_shared.jobs.states import JobState
from ctdeface_shared.storage.bounded import LARGEST_REPORT_BYTES, parse_json, read_bounded
from ctdeface_shared.storage.checksum import FileDigest

REPORT: Final = "report.json"
REPEAT: Final = "repeat.json"
"""Report of a repetition of a published job that was refused or is not published yet.

The report of the published output stays in `report.json`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedFile:
    """One file of a case.

    Attributes:
        file: name relative to the case's folder.
        size: bytes of the input.
        sha256: of the input, hexadecimal.
        output_sha256: of the released file; empty if it was not released.
    """

    file: str
    size: int
    sha256: str
    output_sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedResult:
    """The outcome of a job.

    Attributes:
        code: code of the refusal; empty for a released case.
        reason: the refusal as a sentence.
        files: every file of the case; empty if the job was refused before its files were read.
    """

    code: str
    reason: str = ""
    files: tuple[ReportedFile, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedManifest:
    """The fingerprint of the job's case.

    Attributes:
        digest: `Manifest.digest`.
        files: number of files.
        covers: what the digest covers; reports of release 0.1.0 do not say it.
    """

    digest: str
    files: int = 0
    covers: Covers = Covers.TIMES


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSummary:
    """The fields of a report that are read here.

    Attributes:
        state: one of the states that reports record.
        generation: 0 for a drop, higher for a replay.
        created_at: when the job was submitted, ISO 8601 as written in the report.
        manifest: fingerprint of the case.
        result: outcome.
        staged: name of the staging folder until the job is done.
        options: as `DefaceOptions.as_plain` wrote them, unchecked; None if absent.
        owner: user id of who dropped the case; None if unknown.
    """

    state: JobState
    generation: int
    created_at: str
    manifest: ReportedManifest
    result: ReportedResult
    staged: str = ""
    options: Mapping[str, Any] | None = field(default=None)
    owner: int | None = None

    @property
    def content_digest(self) -> str:
        """Return the digest of the case's content.

        For a report of release 0.1.0 it is made of the listed files. If it does not list all of
        them, the digest that it has is returned, which no case's content has.
        """
        listed = self.result.files
        if self.manifest.covers is Covers.CONTENT or len(listed) != self.manifest.files:
            return self.manifest.digest
        return Manifest.of(FileDigest(one.file, one.size, one.sha256) for one in listed).digest


_READER = TypeAdapter(ReportSummary)


def parse_report(content: bytes) -> ReportSummary:
    """Read and validate a report.

    Raises:
        ValueError: the content is not a report, its state is unknown, or its time is outside the
            years 2000 to 2099.
    """
    report = _READER.validate_python(parse_json(content))
    if not (report.state.has_ended or report.state.is_publishing):
        raise ValueError(f"a report cannot have the state {report.state}")
    read_moment(report.created_at)
    return report


def read_report(path: Path) -> ReportSummary | None:
    """Return a report, or None without a valid one.

    Raises:
        OSError: the file exists and cannot be read.
    """
    try:
        return parse_report(read_bounded(path, LARGEST_REPORT_BYTES))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
