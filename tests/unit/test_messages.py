"""The wire contract: what travels, what is ignored and what is refused."""

import hashlib
import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctdeface_shared.errors import EscapingPath, InvalidMessage, UnknownVersion
from ctdeface_shared.jobs.manifest import Covers, Manifest, job_id
from ctdeface_shared.jobs.messages import (
    LARGEST_BYTES,
    CaseEvent,
    DefaceJob,
    EventKind,
    EventMessage,
    JobMessage,
    decode_job,
    encode_event,
    encode_job,
    schema_of,
)
from ctdeface_shared.jobs.moments import EARLIEST, END
from ctdeface_shared.jobs.options import (
    HIGHEST_FILL_HU,
    DefaceOptions,
    FillRule,
    HeaderPolicy,
    OnSeriesFailure,
    Profile,
)

SCHEMAS = Path(__file__).parents[2] / "shared/ctdeface_shared/schemas"
MANIFEST = Manifest(files=2, bytes=1_048_576, digest="ab" * 32)
NOW = datetime(2026, 11, 21, 5, 0, tzinfo=UTC)
PLAIN = DefaceOptions()
JOB = DefaceJob(
    job_id=job_id("case 1", MANIFEST, PLAIN),
    case="case 1",
    manifest=MANIFEST,
    submitted_at=NOW,
    options=PLAIN,
    taken="0123456789abcdef" * 2,
)

FILLS = st.sampled_from(["air", "p10"]) | st.integers(-2000, HIGHEST_FILL_HU).map(str)
DIGESTS = st.from_regex("[0-9a-f]{64}", fullmatch=True)
NO_JOBS = [b"", b"\xff\xfe", b"[]", b"null", b"1", b"{", b"[" * 60_000, b'{"schema_version": 1}']
OPTIONS = st.builds(
    DefaceOptions,
    profile=st.sampled_from(Profile),
    ears=st.booleans(),
    fill=FILLS.map(FillRule.parse),
    headers=st.sampled_from(HeaderPolicy),
    on_series_failure=st.sampled_from(OnSeriesFailure),
    withhold=st.lists(
        st.from_regex(r"[0-9.]{1,64}(-[0-9]{1,4})?", fullmatch=True), max_size=3, unique=True
    )
    .map(sorted)
    .map(tuple),
)
NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40
).filter(lambda name: set(name) != {"."})
JOBS = st.builds(
    DefaceJob,
    job_id=st.uuids(version=5).map(str),
    case=st.lists(NAMES, min_size=1, max_size=3).map("/".join),
    manifest=st.builds(
        Manifest, files=st.integers(0, 2**40), bytes=st.integers(0, 2**60), digest=DIGESTS
    ),
    generation=st.integers(0, 1000),
    submitted_at=st.datetimes(
        EARLIEST.replace(tzinfo=None),
        (END - timedelta(seconds=1)).replace(tzinfo=None),
        timezones=st.just(UTC),
    ),
    options=OPTIONS,
    taken=st.from_regex("[0-9a-f]{32}", fullmatch=True),
    left_in_inbox=st.booleans(),
    owner=st.none() | st.integers(0, 2**32 - 1),
)


def _changed(**fields: object) -> bytes:
    return json.dumps({**json.loads(encode_job(JOB)), **fields}).encode()


@given(JOBS)
def test_a_job_arrives_as_it_was_sent(job: DefaceJob) -> None:
    """Encoding and decoding give the same value for any name of a case."""
    assert decode_job(encode_job(job)) == job


def test_a_job_of_the_release_before_is_read() -> None:
    """Its files were in the inbox, and its digest covers times."""
    manifest = replace(MANIFEST, covers=Covers.TIMES)
    before = replace(JOB, taken="", manifest=manifest)
    assert json.loads(encode_job(before))["schema_version"] == 1
    assert decode_job(encode_job(before)) == before


@pytest.mark.parametrize("fields", [{"taken": ""}, {"schema_version": 1}])
def test_only_and_every_job_of_version_2_has_a_taken_folder(fields: dict[str, object]) -> None:
    """A job without one is left to the watcher, which only knows those of release 0.1.0."""
    with pytest.raises(InvalidMessage, match="taken"):
        decode_job(_changed(**fields))


@pytest.mark.parametrize("taken", ["..", "../" * 10 + "ab", "a" * 31, "A" * 32, "a" * 32 + "\n", 1])
def test_taken_is_a_random_name_and_not_a_path(taken: object) -> None:
    """No message leads out of the taken folders."""
    with pytest.raises(InvalidMessage, match="taken"):
        decode_job(_changed(taken=taken))


@pytest.mark.parametrize("kind", EventKind)
def test_an_event_arrives_as_it_was_sent(kind: EventKind) -> None:
    """The body is what the contract describes."""
    event = CaseEvent(
        kind=kind,
        job_id=JOB.job_id,
        code="FaceNotFound" if kind is EventKind.REFUSED else None,
        finished_at=NOW,
    )
    message = EventMessage.model_validate_json(encode_event(event))
    assert (message.kind, message.job_id, message.code, message.finished_at) == (
        event.kind,
        event.job_id,
        event.code,
        event.finished_at,
    )


def test_an_event_does_not_name_the_case() -> None:
    """A downstream system learns the job, never the name that may be a patient's."""
    event = CaseEvent(kind=EventKind.RELEASED, job_id=JOB.job_id, finished_at=NOW)
    assert set(json.loads(encode_event(event))) == {
        "schema_version",
        "kind",
        "job_id",
        "code",
        "finished_at",
    }


def test_unknown_fields_are_ignored() -> None:
    """A newer sender may say more at every level but the options."""
    manifest = {**json.loads(encode_job(JOB))["manifest"], "newer": 1}
    assert decode_job(_changed(priority=3, manifest=manifest)) == JOB


def test_an_unknown_option_is_refused() -> None:
    """To ignore an option could release more than was asked for."""
    options = {**PLAIN.as_plain(), "eyes": True}
    with pytest.raises(InvalidMessage, match=r"options\.eyes"):
        decode_job(_changed(options=options))


@pytest.mark.parametrize("version", [0, 3, 99])
def test_another_version_is_unknown(version: int) -> None:
    """A message of another version is distinguished from a damaged one."""
    with pytest.raises(UnknownVersion, match=f"version {version}"):
        decode_job(_changed(schema_version=version))


@pytest.mark.parametrize(
    "case", ["../../etc", "/etc", "a/../../b", "a//b", "a/", ".", "..", "a/./b", "a\0b"]
)
def test_a_case_outside_of_the_inbox_is_refused(case: str) -> None:
    """No message leads out of the inbox, neither when it is read nor when it is written."""
    with pytest.raises(EscapingPath):
        decode_job(_changed(case=case))
    with pytest.raises(EscapingPath):
        encode_job(
            DefaceJob(
                job_id=JOB.job_id, case=case, manifest=MANIFEST, submitted_at=NOW, options=PLAIN
            )
        )


@pytest.mark.parametrize(
    "given_fields",
    [
        {"schema_version": None},
        {"schema_version": "1"},
        {"schema_version": True},
        {"job_id": "../../etc"},
        {"job_id": JOB.job_id.upper()},
        {"job_id": JOB.job_id + "\n"},
        {"case": ""},
        {"case": 7},
        {"case": "x" * 5000},
        {"case": "\udcff"},
        {"manifest": {}},
        {"manifest": {"files": -1, "bytes": 0, "digest": "ab" * 32}},
        {"manifest": {"files": 1, "bytes": 0, "digest": "short"}},
        {"generation": -1},
        {"submitted_at": "2026-11-21T05:00:00"},
        {"submitted_at": "yesterday"},
        {"submitted_at": "0001-01-01T00:00:00+14:00"},
        {"submitted_at": "1999-12-31T23:59:59Z"},
        {"submitted_at": "2100-01-01T00:00:00Z"},
        {"submitted_at": "9999-12-31T23:59:59-12:00"},
        {"submitted_at": 1e20},
        {"options": {}},
        {"options": {**PLAIN.as_plain(), "fill": "-100"}},
        {"options": {**PLAIN.as_plain(), "profile": "thin"}},
        {"options": {**PLAIN.as_plain(), "segmenter": "../model"}},
        {"options": {**PLAIN.as_plain(), "withhold": ["1.2.3", "Doe"]}},
        {"options": {**PLAIN.as_plain(), "withhold": "1.2.3"}},
    ],
    ids=str,
)
def test_a_message_that_breaks_the_contract_is_invalid(given_fields: dict[str, Any]) -> None:
    """Each field is checked for its form."""
    with pytest.raises(InvalidMessage):
        decode_job(_changed(**given_fields))


@pytest.mark.parametrize("body", NO_JOBS, ids=lambda body: repr(body[:12]))
def test_what_is_no_job_at_all_is_invalid(body: bytes) -> None:
    """Anything but a JSON object with version and all fields is refused."""
    with pytest.raises(InvalidMessage):
        decode_job(body)


@given(st.binary(max_size=300))
def test_random_bytes_never_crash_the_reader(body: bytes) -> None:
    """Noise is refused as an invalid message and nothing else."""
    with pytest.raises(InvalidMessage):
        decode_job(body)


def test_a_huge_message_is_refused_before_it_is_read() -> None:
    """The limit counts bytes, however valid the content."""
    with pytest.raises(InvalidMessage, match="larger than"):
        decode_job(_changed(padding="x" * LARGEST_BYTES))


def test_a_complaint_does_not_quote_the_case() -> None:
    """What is said about an invalid message names fields, not values."""
    with pytest.raises(InvalidMessage) as met:
        decode_job(_changed(case=["Doe^Jane"], job_id="Doe^Jane"))
    assert "Doe" not in str(met.value)
    assert {"case", "job_id"} <= {word.strip(",") for word in str(met.value).split()}


def test_every_option_travels() -> None:
    """No option is lost between watcher and worker."""
    options = DefaceOptions(withhold=("1.2.3",))
    travelling = json.loads(encode_job(replace(JOB, options=options)))["options"]
    assert (
        set(travelling)
        == set(options.as_plain())
        == {field.name for field in fields(DefaceOptions)}
    )


def test_a_job_without_series_to_leave_out_looks_as_it_always_did() -> None:
    """Neither an older worker nor the identity of a job sees an option that says nothing."""
    assert "withhold" not in json.loads(encode_job(JOB))["options"]
    before = {
        "profile": "soft-tissue",
        "ears": False,
        "fill": "air",
        "headers": "preserve",
        "on_series_failure": "quarantine",
    }
    text = json.dumps({**before, "segmenter": PLAIN.segmenter}, sort_keys=True)
    assert PLAIN.digest == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("name", "model"), [("job.v1.schema.json", JobMessage), ("event.v1.schema.json", EventMessage)]
)
def test_the_committed_schema_is_the_code(
    name: str, model: type[JobMessage | EventMessage]
) -> None:
    """The JSON Schema for other programs says what is checked here."""
    assert json.loads((SCHEMAS / name).read_text(encoding="utf-8")) == schema_of(model)


def test_a_job_from_the_future_would_outdate_later_ones_and_is_invalid() -> None:
    """Clocks of one service may differ by a day."""
    assert decode_job(encode_job(JOB), now=NOW - timedelta(hours=23)).submitted_at == NOW
    with pytest.raises(InvalidMessage, match="day in the future"):
        decode_job(encode_job(JOB), now=NOW - timedelta(hours=25))


def test_a_time_is_read_in_any_zone() -> None:
    """It is kept in UTC."""
    job = decode_job(_changed(submitted_at="2026-11-21T07:00:00+02:00"))
    assert (job.submitted_at, job.submitted_at.tzinfo) == (NOW, UTC)
