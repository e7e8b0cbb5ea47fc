"""Report of one job and its JSON Schema."""

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Any, Self

from pydantic import TypeAdapter

from ctdeface_shared.audit.entry import digest_of
from ctdeface_shared.errors import CtDefaceError
from ctdeface_shared.jobs.manifest import Covers, Manifest
from ctdeface_shared.jobs.moments import read_moment
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_shared.jobs.states import JobState
from ctdeface_shared.storage.bounded import parse_json
from ctdeface_worker.pipeline.result import CaseResult

SCHEMA_VERSION = 1
_LIBRARIES = (
    "ctdeface",
    "numpy",
    "scipy",
    "pydicom",
    "SimpleITK",
    "python-gdcm",
    "torch",
    "nnunetv2",
)


class State(StrEnum):
    """Progress of a job and journal of its publication."""

    REFUSED = JobState.REFUSED.value
    PREPARED = JobState.PREPARED.value
    PUBLISHED = JobState.PUBLISHED.value
    DONE = JobState.DONE.value
    SUPERSEDED = JobState.SUPERSEDED.value


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseReport:
    """Complete record of one job.

    Attributes:
        job_id: equal for the same drop with the same options.
        case: name of the case, relative to the root; may identify a patient.
        generation: 0, raised by every replay.
        state: progress of the job.
        created_at: UTC, ISO 8601.
        manifest: size and digest of the case when the job began.
        options: options of the job.
        result: every series and file with its fate, the checks and the seconds per stage.
        staged: name of the staging folder, until the job is done.
        versions: of this program, of Python and of the imaging libraries.
        inputs_digest: SHA-256 over the case's name, and names and contents of all its files; empty
            if the job ended before they were read.
        outputs_digest: the same over the released files; empty when there are none.
        taken: name of the folder in `taken` that holds the originals until the job has ended.
        owner: user id of who dropped the case; None in a batch.
        originals_left: whether the dropped files are still in the inbox, because the service may
            not move them.
        schema_version: version of this document.
    """

    job_id: str
    case: str
    generation: int = 0
    state: State
    created_at: str
    manifest: Manifest
    options: dict[str, str | bool | list[str]]
    result: CaseResult
    staged: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    inputs_digest: str = ""
    outputs_digest: str = ""
    taken: str = ""
    owner: int | None = None
    originals_left: bool = False
    schema_version: int = SCHEMA_VERSION

    @property
    def outputs(self) -> dict[str, str]:
        """SHA-256 of each released file, by name."""
        return {file.file: file.output_sha256 for file in self.result.files if file.output_sha256}

    @property
    def is_published(self) -> bool:
        """Whether the output of the job is visible."""
        return self.state in {State.PUBLISHED, State.DONE}

    @property
    def is_partial(self) -> bool:
        """Whether the case was released without failed series."""
        return self.is_published and self.result.is_partial

    @property
    def parts(self) -> str:
        """Extent of a release, as `33 of 188 files; 3 series failed`."""
        failed = len(self.result.failed_series)
        files = f"{self.result.released_files} of {len(self.result.files)} files"
        return f"{files}; {failed} series failed" if failed else files

    @property
    def outcome(self) -> str:
        """Outcome, such as "released in part", or the state."""
        if not self.is_published:
            return self.state.value
        return "released in part" if self.is_partial else "released"

    def at(self, state: State) -> Self:
        """Return the same report in another state."""
        return replace(self, state=state)

    def to_json(self) -> bytes:
        """Return indented JSON.

        Bytes of file names that are not UTF-8 appear as escapes.
        """
        content = asdict(self)
        if self.manifest.covers is Covers.TIMES:
            # as release 0.1.0 wrote and attested it
            del content["manifest"]["covers"], content["owner"]
        return json.dumps(content, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace")

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Parse the output of `to_json`.

        Raises:
            ValueError: it is not a report of this schema version.
        """
        return cls.from_plain(parse_json(content))

    @classmethod
    def from_plain(cls, content: object) -> Self:
        """Build a report from decoded JSON.

        Raises:
            ValueError: it is not a report of this schema version, its time is not plausible, or a
                name in it leads out of its folder.
        """
        report: Self = TypeAdapter(cls).validate_python(_with_covers(content))
        read_moment(report.created_at)
        _require_own_folders(report)
        if report.schema_version != SCHEMA_VERSION:
            raise ValueError(
                f"report of schema version {report.schema_version}, expected {SCHEMA_VERSION}"
            )
        return report


def _require_own_folders(report: CaseReport) -> None:
    """Check the names from which paths are made.

    Raises:
        ValueError: one leads out of its folder.
    """
    names = (*report.case.split("/"), report.job_id, report.staged or "none")
    if any(name in {"", ".", ".."} or "\0" in name for name in names):
        raise ValueError("a name in the report leads out of its folder")
    if "/" in report.job_id or "/" in report.staged:
        raise ValueError("a name in the report leads out of its folder")


def describe(
    job_id: str, case: str, manifest: Manifest, options: DefaceOptions, result: CaseResult
) -> CaseReport:
    """Return the report of a new result."""
    released = {file.file: file.output_sha256 for file in result.files if file.output_sha256}
    return CaseReport(
        job_id=job_id,
        case=case,
        state=State.PREPARED if result.released else State.REFUSED,
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        manifest=manifest,
        options=options.as_plain(),
        result=result,
        versions=_versions(),
        inputs_digest=digest_of(case, {file.file: file.sha256 for file in result.files})
        if result.files
        else "",
        outputs_digest=digest_of(case, released) if released else "",
    )


def failed(error: CtDefaceError) -> CaseResult:
    """Return the result of a case that an error ended."""
    return CaseResult(released=False, code=error.code, reason=str(error))


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of report.json."""
    schema = TypeAdapter(CaseReport).json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def encoded_schema() -> str:
    """Return the text of the committed JSON Schema."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def _with_covers(content: object) -> object:
    """Return a decoded report with what its digest covers, which release 0.1.0 did not write."""
    manifest = content.get("manifest") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(manifest, dict):
        return content
    return {**content, "manifest": {"covers": Covers.TIMES, **manifest}}


def _versions() -> dict[str, str]:
    found = {"python": python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
