"""The messages on the wire: jobs, and events about their ends.

They are JSON in UTF-8, validated with pydantic. Unknown fields are ignored, so a newer sender may
add some. An unknown version is refused, and so is an unknown *option*, because ignoring one could
release more than was requested.
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from ctdeface_shared.errors import InvalidMessage, UnknownVersion
from ctdeface_shared.jobs.manifest import Covers, Manifest
from ctdeface_shared.jobs.moments import in_bounds, is_too_late
from ctdeface_shared.jobs.options import (
    DefaceOptions,
    FillRule,
    HeaderPolicy,
    OnSeriesFailure,
    Profile,
)
from ctdeface_shared.storage.spool import case_path

SCHEMA_VERSION = 2
"""Version of the contract that is written; version 1 is read as well."""
EVENT_VERSION = 1
_READ_VERSIONS = range(1, SCHEMA_VERSION + 1)
LARGEST_BYTES = 65_536
"""Maximum size of a message; a normal one has a few hundred bytes."""
_LONGEST_CASE = 1_024
"""Maximum characters of a case name; paths on Linux have at most 4096 bytes."""
_LONGEST_NAME_BYTES = 255
"""Maximum length of a folder name on common file systems."""
_LARGEST_COUNT = 2**63 - 1

JobId = Annotated[
    str, Field(pattern="^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
]
SeriesName = Annotated[str, Field(pattern=r"^[0-9.]{1,64}(-[0-9]{1,4})?$")]
Count = Annotated[int, Field(ge=0, le=_LARGEST_COUNT)]
Moment = Annotated[AwareDatetime, AfterValidator(in_bounds)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaceJob:
    """One case to deface.

    Attributes:
        job_id: from `manifest.job_id`; identifies the job in logs, events and folders.
        case: name of the case, parts joined by `/`.
        manifest: fingerprint of the case's files.
        taken: id of the folder in `taken` that holds the files; empty in a message of version 1,
            whose files were in the inbox.
        left_in_inbox: whether the dropped files are still in the inbox, so that these are a copy.
        owner: user id of the dropped folder's owner; None if unknown.
        generation: 0 for a drop, higher for each replay.
        submitted_at: when it was published, with its time zone.
        options: what to do with the case.
    """

    job_id: str
    case: str
    manifest: Manifest
    generation: int = 0
    submitted_at: datetime
    options: DefaceOptions
    taken: str = ""
    left_in_inbox: bool = False
    owner: int | None = None


class EventKind(StrEnum):
    """How a job ended; the routing key of the event."""

    RELEASED = "case.released"
    REFUSED = "case.refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseEvent:
    """The end of a job.

    It does not contain the case's name, which may identify a patient.

    Attributes:
        kind: how it ended.
        job_id: id of the job.
        code: code of the refusal; None for a released case.
        finished_at: when, with its time zone.
    """

    kind: EventKind
    job_id: str
    code: str | None = None
    finished_at: datetime


class _Wire(BaseModel):
    """The base of all messages."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class _WireManifest(_Wire):
    """The manifest of a case."""

    files: Count = Field(description="Number of files.")
    bytes: Count = Field(description="Bytes of all files together.")
    digest: str = Field(
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 over the sorted (relative path, size, SHA-256 of the content).",
    )


class _WireOptions(_Wire):
    """The options of a job, without unknown fields."""

    model_config = ConfigDict(extra="forbid")

    profile: Profile
    ears: Annotated[bool, Field(strict=True)]
    fill: str = Field(description="air, p10 or a whole number of HU up to -800.")
    headers: HeaderPolicy
    on_series_failure: OnSeriesFailure
    segmenter: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$")
    withhold: tuple[SeriesName, ...] = Field(
        (),
        max_length=500,
        description="SeriesInstanceUIDs that shall not be released; left out if none.",
    )

    @field_validator("fill")
    @classmethod
    def _readable(cls, given: str) -> str:
        return str(FillRule.parse(given))


class JobMessage(_Wire):
    """A job, as sent to the queue `ctdeface.v1.jobs`."""

    schema_version: Literal[1, 2] = Field(
        description="Version of this contract; 1 has no taken, and its digest covers times."
    )
    job_id: JobId = Field(
        description="UUIDv5 of case, manifest digest, options digest and generation."
    )
    case: str = Field(
        min_length=1,
        max_length=_LONGEST_CASE,
        description="Name of the case: a relative folder; never absolute, never `..`.",
    )
    taken: str = Field(
        "",
        pattern="^([0-9a-f]{32})?$",
        description="Folder in the spool's taken that holds the files of the case.",
    )
    left_in_inbox: bool = Field(
        default=False, description="Whether the dropped files are still in the inbox."
    )
    owner: int | None = Field(
        None, ge=0, le=2**32 - 1, description="User id of the dropped folder's owner."
    )
    manifest: _WireManifest
    generation: Count = Field(0, description="0 for a drop, higher for each replay.")
    submitted_at: Moment
    options: _WireOptions


class EventMessage(_Wire):
    """The end of a job, as sent to the topic exchange `ctdeface.v1.events`."""

    schema_version: Literal[1] = Field(description="Version of this contract.")
    kind: EventKind
    job_id: JobId
    code: str | None = Field(
        None, max_length=100, description="Why the case was refused; null for a released one."
    )
    finished_at: Moment


def encode_job(job: DefaceJob) -> bytes:
    """Write a job as JSON.

    Raises:
        InvalidMessage: the job cannot be encoded, for example because the case's name is not valid
            Unicode.
        EscapingPath: the case would be outside the inbox.
    """
    _check_case(job.case)
    return _written(
        JobMessage,
        {
            "schema_version": SCHEMA_VERSION if job.taken else 1,
            **asdict(job),
            "options": job.options.as_plain(),
        },
    )


def decode_job(body: bytes, *, now: datetime | None = None) -> DefaceJob:
    """Read a job.

    Args:
        body: the message.
        now: refuse a job that was submitted more than a day later; None accepts it.

    Raises:
        InvalidMessage: the body is too large, not JSON, or not valid.
        UnknownVersion: it has another version of the contract.
        EscapingPath: the case would be outside the inbox.
    """
    wire = _read(body)
    if bool(wire.taken) is (wire.schema_version == 1):
        raise InvalidMessage("a message of version 2 needs taken, and one of version 1 has none")
    _check_case(wire.case)
    if now is not None and is_too_late(wire.submitted_at, now):
        raise InvalidMessage(
            "submitted_at is more than a day in the future, and would outdate every later job of "
            "the case: correct the sender's clock, and drop the case again"
        )
    return DefaceJob(
        job_id=wire.job_id,
        case=wire.case,
        manifest=Manifest(
            **wire.manifest.model_dump(), covers=Covers.CONTENT if wire.taken else Covers.TIMES
        ),
        generation=wire.generation,
        submitted_at=wire.submitted_at,
        options=_options(wire.options),
        taken=wire.taken,
        left_in_inbox=wire.left_in_inbox,
        owner=wire.owner,
    )


def read_options(plain: object) -> DefaceOptions:
    """Read and validate options that `DefaceOptions.as_plain` wrote.

    It is the only parser of options: messages, reports and replays use it.

    Raises:
        ValueError: an option is missing, unknown, or has a wrong type or value.
    """
    try:
        return _options(_WireOptions.model_validate(plain))
    except ValidationError as error:
        raise ValueError(_complaint(error)) from None


def _options(wire: _WireOptions) -> DefaceOptions:
    return DefaceOptions(**wire.model_dump() | {"fill": FillRule.parse(wire.fill)})


def encode_event(event: CaseEvent) -> bytes:
    """Write an event as JSON.

    Raises:
        InvalidMessage: it does not follow the contract.
    """
    return _written(EventMessage, {"schema_version": EVENT_VERSION, **asdict(event)})


def schema_of(model: type[JobMessage | EventMessage]) -> dict[str, Any]:
    """Return the JSON Schema of a message, as committed in `schemas/`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model.model_json_schema(mode="serialization"),
    }


def _written(model: type[JobMessage | EventMessage], content: dict[str, Any]) -> bytes:
    try:
        # Unset options are omitted so that older workers accept the message.
        body = model.model_validate(content).model_dump_json(exclude_unset=True).encode()
    except ValidationError as error:
        raise InvalidMessage(f"the message is not valid: {_complaint(error)}") from None
    if len(body) > LARGEST_BYTES:
        raise InvalidMessage(
            f"a message of {len(body)} bytes is larger than the {LARGEST_BYTES} allowed"
        )
    return body


def _read(body: bytes) -> JobMessage:
    if len(body) > LARGEST_BYTES:
        raise InvalidMessage(
            f"a message of {len(body)} bytes is larger than the {LARGEST_BYTES} allowed"
        )
    try:
        content = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise InvalidMessage("the message is not JSON in UTF-8") from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if type(version) is int and version not in _READ_VERSIONS:
        raise UnknownVersion(
            f"the message has version {version} of the contract, and this program reads versions "
            f"1 to {SCHEMA_VERSION}: update the workers"
        )
    if type(version) is not int:
        raise InvalidMessage("the message has no schema_version; a whole number is required")
    try:
        return JobMessage.model_validate(content)
    except ValidationError as error:
        raise InvalidMessage(f"the message is not valid: {_complaint(error)}") from None


def _check_case(case: str) -> None:
    """Check that a case can be a folder below the inbox."""
    case_path(Path("/"), case)
    if any(
        len(part.encode("utf-8", "surrogatepass")) > _LONGEST_NAME_BYTES for part in case.split("/")
    ):
        raise InvalidMessage(
            f"the name of the case has a part of more than {_LONGEST_NAME_BYTES} bytes, "
            "the maximum for a folder"
        )


def _complaint(error: ValidationError) -> str:
    """Return which fields are not valid, without their values.

    A case's name may identify a patient.
    """
    wrong = sorted(
        {
            ".".join(str(part) for part in item["loc"]) + f" ({item['type']})"
            for item in error.errors(include_input=False)
        }
    )
    return ", ".join(wrong[:5])
