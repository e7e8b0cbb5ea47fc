"""The report of one job: its content, its JSON and the JSON Schema of that."""

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
from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_shared.jobs.states import JobState
from ctdeface_worker.imaging.domain import Fate
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
    """How far a job came; the journal of its publication (DESIGN section 7)."""

    REFUSED = JobState.REFUSED.value
    PREPARED = JobState.PREPARED.value
    PUBLISHED = JobState.PUBLISHED.value
    DONE = JobState.DONE.value
    SUPERSEDED = JobState.SUPERSEDED.value


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseReport:
    """All that is known about one job.

    Attributes:
        job_id: the same drop with the same options has the same.
        case: its name, relative to the root; may identify a patient.
        generation: raised by every replay.
        state: how far the job came.
        created_at: UTC, ISO 8601.
        manifest: what the case consisted of when the job began.
        options: what was asked for.
        result: every series and file with its fate, the checks and the seconds per stage.
        staged: name of the staging folder, until the job is done.
        versions: of this program, of Python and of the libraries that touched the pixels.
        inputs_digest: SHA-256 over the case's name, and names and contents of all its files; empty
            when it was broken off before.
        outputs_digest: the same of the released files; empty when there are none.
        originals_left: the dropped files are still in the inbox, because the service may not move
            them.
        schema_version: of this document.
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
    originals_left: bool = False
    schema_version: int = SCHEMA_VERSION

    @property
    def outputs(self) -> dict[str, str]:
        """SHA-256 of every released file, by its name in the case."""
        return {file.file: file.output_sha256 for file in self.result.files if file.output_sha256}

    @property
    def is_published(self) -> bool:
        """Whether the job's output came to be visible."""
        return self.state in {State.PUBLISHED, State.DONE}

    @property
    def is_partial(self) -> bool:
        """Return whether the case was released without its failed series or files."""
        fates = {one.fate for one in self.result.series} | {one.fate for one in self.result.files}
        return self.is_published and Fate.FAILED in fates

    @property
    def parts(self) -> str:
        """The extent of a partial release, such as `33 of 188 files; 3 series failed`."""
        failed_series = sum(one.fate is Fate.FAILED for one in self.result.series)
        files = f"{len(self.outputs)} of {len(self.result.files)} files"
        return f"{files}; {failed_series} series failed" if failed_series else files

    def at(self, state: State) -> Self:
        """Return the same report one state further."""
        return replace(self, state=state)

    def to_json(self) -> bytes:
        """Write as indented JSON; bytes in names of files that are no UTF-8 appear as escapes."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False).encode(
            "utf-8", "backslashreplace"
        )

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: it is no report of this schema version.
        """
        return cls.from_plain(json.loads(content))

    @classmethod
    def from_plain(cls, content: object) -> Self:
        """Read what `to_json` wrote, parsed.

        Raises:
            ValueError: it is no report of this schema version.
        """
        report: Self = TypeAdapter(cls).validate_python(content)
        if report.schema_version != SCHEMA_VERSION:
            raise ValueError(
                f"report of schema version {report.schema_version}, expected {SCHEMA_VERSION}"
            )
        return report


def describe(
    job_id: str, case: str, manifest: Manifest, options: DefaceOptions, result: CaseResult
) -> CaseReport:
    """Make the report of a job that has just been worked on."""
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
    """Return the result of a case whose processing broke off; none of its files has a fate yet."""
    return CaseResult(released=False, code=error.code, reason=str(error))


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of report.json; the committed copy is tested to be equal."""
    schema = TypeAdapter(CaseReport).json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def encoded_schema() -> str:
    """Return the text of the committed JSON Schema."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def _versions() -> dict[str, str]:
    found = {"python": python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
