"""The messages on the wire: a job for the workers, and an event about its end for whoever listens.

JSON in UTF-8, checked with pydantic here and nowhere else. Unknown fields are ignored, so a newer
sender may say more; an unknown version is refused, and so is an unknown *option*: ignoring one
could release more than was asked for.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator

from ctdeface_shared.errors import InvalidMessage, UnknownVersion
from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.options import (
    DefaceOptions,
    FillRule,
    HeaderPolicy,
    OnSeriesFailure,
    Profile,
)
from ctdeface_shared.storage.spool import case_path

SCHEMA_VERSION = 1
LARGEST_BYTES = 65_536
"""A message is a few hundred bytes; anything above this is no job."""
_LONGEST_CASE = 1_024
"""Leaves room for the folders around it: Linux takes paths of 4 096 bytes."""
_LONGEST_NAME_BYTES = 255
"""What file systems take for the name of one folder."""
_LARGEST_COUNT = 2**63 - 1

JobId = Annotated[
    str, Field(pattern="^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
]
SeriesName = Annotated[str, Field(pattern=r"^[0-9.]{1,64}(-[0-9]{1,4})?$")]
Count = Annotated[int, Field(ge=0, le=_LARGEST_COUNT)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaceJob:
    """One case to deface.

    Attributes:
        job_id: from `manifest.job_id`; names the job in logs, events and folders.
        case: folder relative to the inbox, parts joined by `/`.
        manifest: what the case consisted of when it was seen.
        generation: 0 for a drop, higher for each replay.
        submitted_at: when it was published, with its time zone.
        options: what to do with it.
    """

    job_id: str
    case: str
    manifest: Manifest
    generation: int = 0
    submitted_at: datetime
    options: DefaceOptions


class EventKind(StrEnum):
    """How a job ended; also the routing key of the event."""

    RELEASED = "case.released"
    REFUSED = "case.refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseEvent:
    """The end of a job, told without the name of the case, which may name a patient.

    Attributes:
        kind: how it ended.
        job_id: which job.
        code: why it was refused; None for a released case.
        finished_at: when, with its time zone.
    """

    kind: EventKind
    job_id: str
    code: str | None = None
    finished_at: datetime


class _Wire(BaseModel):
    """What all messages have in common."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class _WireManifest(_Wire):
    """Files, bytes and digest of a case."""

    files: Count = Field(description="Number of files.")
    bytes: Count = Field(description="Bytes of all files together.")
    digest: str = Field(
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 over the sorted (relative path, size, mtime_ns).",
    )


class _WireOptions(_Wire):
    """What to do with the case; unlike elsewhere an unknown field is refused."""

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
    """A case to deface, as it stands in the queue `ctdeface.v1.jobs`."""

    schema_version: Literal[1] = Field(description="Version of this contract.")
    job_id: JobId = Field(
        description="UUIDv5 of case, manifest digest, options digest and generation."
    )
    case: str = Field(
        min_length=1,
        max_length=_LONGEST_CASE,
        description="Folder relative to the inbox; never absolute, never `..`.",
    )
    manifest: _WireManifest
    generation: Count = Field(0, description="0 for a drop, higher for each replay.")
    submitted_at: AwareDatetime
    options: _WireOptions


class EventMessage(_Wire):
    """The end of a job, as it is sent to the topic exchange `ctdeface.v1.events` under the routing key `kind`."""

    schema_version: Literal[1] = Field(description="Version of this contract.")
    kind: EventKind
    job_id: JobId
    code: str | None = Field(
        None, max_length=100, description="Why the case was refused; null for a released one."
    )
    finished_at: AwareDatetime


_Message = TypeVar("_Message", JobMessage, EventMessage)


def encode_job(job: DefaceJob) -> bytes:
    """Write a job as JSON.

    Raises:
        InvalidMessage: the job cannot travel, for example because the name of the case is no valid
            Unicode.
        EscapingPath: the case leads out of the inbox.
    """
    _check_case(job.case)
    return _written(
        JobMessage,
        {"schema_version": SCHEMA_VERSION, **asdict(job), "options": job.options.as_plain()},
    )


def decode_job(body: bytes) -> DefaceJob:
    """Read a job.

    Raises:
        InvalidMessage: the body is too large, no JSON, or lacks something.
        UnknownVersion: it follows another version of the contract.
        EscapingPath: the case leads out of the inbox.
    """
    wire = _read(JobMessage, body)
    _check_case(wire.case)
    return DefaceJob(
        job_id=wire.job_id,
        case=wire.case,
        manifest=Manifest(**wire.manifest.model_dump()),
        generation=wire.generation,
        submitted_at=wire.submitted_at.astimezone(UTC),
        options=_options(wire.options),
    )


def read_options(plain: object) -> DefaceOptions:
    """Read options as `DefaceOptions.as_plain` writes them.

    Raises:
        ValueError: they are none.
    """
    return _options(_WireOptions.model_validate(plain))


def _options(wire: _WireOptions) -> DefaceOptions:
    return DefaceOptions(**wire.model_dump() | {"fill": FillRule.parse(wire.fill)})


def encode_event(event: CaseEvent) -> bytes:
    """Write an event as JSON.

    Raises:
        InvalidMessage: it lacks something that the contract asks for.
    """
    return _written(EventMessage, {"schema_version": SCHEMA_VERSION, **asdict(event)})


def decode_event(body: bytes) -> CaseEvent:
    """Read an event.

    Raises:
        InvalidMessage: the body is too large, no JSON, or lacks something.
        UnknownVersion: it follows another version of the contract.
    """
    wire = _read(EventMessage, body)
    return CaseEvent(
        kind=wire.kind,
        job_id=wire.job_id,
        code=wire.code,
        finished_at=wire.finished_at.astimezone(UTC),
    )


def schema_of(model: type[JobMessage | EventMessage]) -> dict[str, Any]:
    """JSON Schema of a message, as committed in `schemas/`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model.model_json_schema(mode="serialization"),
    }


def _written(model: type[JobMessage | EventMessage], content: dict[str, Any]) -> bytes:
    try:
        body = (
            model.model_validate(content).model_dump_json(exclude_unset=True).encode()
        )  # a worker that is older knows no option that was left out
    except ValidationError as error:
        raise InvalidMessage(_complaint(error)) from None
    if len(body) > LARGEST_BYTES:
        raise InvalidMessage(
            f"a message of {len(body)} bytes is larger than the {LARGEST_BYTES} allowed"
        )
    return body


def _read(model: type[_Message], body: bytes) -> _Message:
    if len(body) > LARGEST_BYTES:
        raise InvalidMessage(
            f"a message of {len(body)} bytes is larger than the {LARGEST_BYTES} allowed"
        )
    try:
        content = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise InvalidMessage("the message is no JSON in UTF-8") from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if type(version) is int and version != SCHEMA_VERSION:
        raise UnknownVersion(
            f"the message follows version {version} of the contract, and this program knows version {SCHEMA_VERSION}: update it"
        )
    if type(version) is not int:
        raise InvalidMessage("the message does not say which version of the contract it follows")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InvalidMessage(_complaint(error)) from None


def _check_case(case: str) -> None:
    """Check that a case can be a folder below the inbox."""
    case_path(Path("/"), case)
    if any(
        len(part.encode("utf-8", "surrogatepass")) > _LONGEST_NAME_BYTES for part in case.split("/")
    ):
        raise InvalidMessage(
            f"the name of the case is longer than the {_LONGEST_NAME_BYTES} bytes that a folder can have"
        )


def _complaint(error: ValidationError) -> str:
    """Say which fields are wrong without quoting them: a case may name a patient."""
    wrong = sorted(
        {
            ".".join(str(part) for part in item["loc"]) + f" ({item['type']})"
            for item in error.errors(include_input=False)
        }
    )
    return "the message is no valid one: " + ", ".join(wrong[:5])
