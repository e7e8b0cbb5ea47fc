"""Damaged heads: the watcher gets an identity or counts a file as unreadable, and never fails."""

import struct
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ctdeface_shared.jobs.identity import DropIdentity
from ctdeface_watcher.inbox.identity import HEAD_BYTES, read_identity
from tests.support.ct_files import CtFile

SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
MOST_BYTES = 64 << 20
"""Memory for one head of at most 1 MiB, whatever it holds."""


def identity_of(content: bytes) -> DropIdentity:
    """Read one file."""
    with tempfile.TemporaryDirectory() as name:
        Path(name, "a.dcm").write_bytes(content)
        return read_identity(Path(name), ["a.dcm"])


def head_of(syntax: str) -> bytes:
    """A file whose head holds every attribute and a sequence."""
    made = CtFile(
        syntax=syntax,
        elements={
            "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
            "PatientName": "A^B",
            "IssuerOfPatientID": "C",
            "PatientBirthDate": "19500131",
            "PatientSex": "O",
        },
    )
    return made.content


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=600), syntax=st.sampled_from(SYNTAXES))
@example(body=b"\x08\x00\x05\x00\xff\xff\xff\xff", syntax=ImplicitVRLittleEndian)
def test_random_bytes_behind_a_valid_beginning_are_an_answer(body: bytes, syntax: str) -> None:
    """File meta information is valid, the data set is random."""
    whole = head_of(syntax)
    start = 132 + 12 + struct.unpack("<I", whole[140:144])[0]
    assert identity_of(whole[:start] + body).unreadable in {0, 1}


@settings(max_examples=300, deadline=None)
@given(
    syntax=st.sampled_from(SYNTAXES),
    damage=st.lists(st.tuples(st.integers(0, 900), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 1200),
)
def test_a_damaged_head_is_an_answer(syntax: str, damage: list[tuple[int, int]], cut: int) -> None:
    """Whichever bytes are wrong or missing."""
    content = bytearray(head_of(syntax))
    for at, value in damage:
        content[128 + at % (len(content) - 128)] = value
    found = identity_of(bytes(content[: len(content) - cut]))
    assert found.unreadable + len(found.studies) <= 1


def _sequence(items: bytes) -> bytes:
    meta = b"1.2.840.10008.1.2\0"
    element = struct.pack("<HH2sH", 2, 0x10, b"UI", len(meta)) + meta
    length = struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(element))
    start = bytes(128) + b"DICM" + length + element
    return (start + struct.pack("<HHL", 8, 0x1140, 0xFFFFFFFF) + items)[: 2 * HEAD_BYTES]


ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
OPENED = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF) + struct.pack(
    "<HHL", 8, 0x1140, 0xFFFFFFFF
)


@pytest.mark.parametrize("items", [ITEM * 200_000, OPENED * 100_000], ids=["wide", "deep"])
def test_a_head_of_empty_items_costs_bounded_memory(items: bytes) -> None:
    """Two hundred thousand items beside each other or inside each other."""
    tracemalloc.start()
    try:
        assert identity_of(_sequence(items)).unreadable == 1
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
