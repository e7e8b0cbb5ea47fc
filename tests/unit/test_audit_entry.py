"""Entries of the audit log: one way to write each, and digests that mean what they say."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctdeface_shared.audit.entry import (
    NOTHING_BEFORE,
    UNSIGNED,
    CaseEnd,
    Entry,
    Outcome,
    digest_of,
    digest_of_report,
)
from ctdeface_shared.audit.writer import host_name
from tests.support.service.audited import an_end

ENTRY = Entry(
    chain="host.1",
    seq=1,
    prev=NOTHING_BEFORE,
    at="2026-11-21T12:00:00.000+00:00",
    pid=7,
    end=an_end("job"),
)
TEXT = st.text(max_size=20)


ENDS = st.builds(
    CaseEnd,
    job_id=TEXT,
    submitted_at=TEXT,
    outcome=st.sampled_from(Outcome),
    code=TEXT,
    files=st.integers(0, 10**9),
    report=TEXT,
    program=TEXT,
    replaces=st.lists(TEXT, max_size=3).map(tuple),
)


@given(end=ENDS, seq=st.integers(1))
def test_what_is_written_is_what_is_read(end: CaseEnd, seq: int) -> None:
    """Any entry survives its line, which is one line of ASCII."""
    entry = Entry(chain="host.1", seq=seq, prev=NOTHING_BEFORE, at="t", pid=1, end=end)
    assert Entry.from_line(entry.line) == entry
    assert entry.line.isascii()
    assert b"\n" not in entry.line


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        ENTRY.line + b" ",
        ENTRY.line[:-1],
        json.dumps(json.loads(ENTRY.line)).encode(),
        json.dumps(
            {**json.loads(ENTRY.line), "more": 1}, sort_keys=True, separators=(",", ":")
        ).encode(),
        ENTRY.line.replace(b'"version":1', b'"version":2'),
    ],
)
def test_a_line_that_is_not_written_as_entries_are_is_none(line: bytes) -> None:
    """An entry has one canonical form, so spaces and extra fields are errors."""
    with pytest.raises(ValueError, match="entr"):
        Entry.from_line(line)


def test_an_entry_without_a_key_says_that_it_is_unsigned() -> None:
    """A person who reads the file sees it as well."""
    assert json.loads(ENTRY.line)["key"] == UNSIGNED


def test_the_signature_covers_everything_but_itself() -> None:
    """Its content does not change when it is put in, and what is signed says what it is."""
    assert ENTRY.with_signature(b"signed").signed_content == ENTRY.signed_content
    assert ENTRY.signed_content.startswith(b"ctdeface audit entry\n")


def test_the_digest_of_a_case_names_case_files_and_contents() -> None:
    """The digest changes with names and content, not with the order of files."""
    files = {"1.dcm": "a" * 64, "2.dcm": "b" * 64}
    assert digest_of("case", files) == digest_of("case", dict(reversed(files.items())))
    others = [
        digest_of("other", files),
        digest_of("case", {**files, "1.dcm": "b" * 64}),
        digest_of("case", {"1.dcm": "a" * 64}),
    ]
    assert len({digest_of("case", files), *others}) == 4


def test_the_digest_of_a_report_stays_when_only_its_journal_goes_on() -> None:
    """The digest ignores state, staging folder and the spelling of numbers only."""
    report = {"state": "published", "staged": "f" * 16, "case": "a", "mask_ml": 1}
    later = {"mask_ml": 1.0, "case": "a", "state": "done", "staged": ""}
    assert digest_of_report(json.dumps(report).encode()) == digest_of_report(
        json.dumps(later, indent=1).encode()
    )
    assert digest_of_report(json.dumps({**report, "mask_ml": 2}).encode()) != digest_of_report(
        json.dumps(report).encode()
    )


@pytest.mark.parametrize(
    ("given_name", "name"),
    [("CT-Node_3.example.org", "ct-node-3-example-org"), ("---", "host"), ("x" * 80, "x" * 63)],
)
def test_a_host_name_becomes_the_begin_of_a_folder_name(given_name: str, name: str) -> None:
    """Small letters, digits and dashes, and not too long."""
    assert host_name(given_name) == name
