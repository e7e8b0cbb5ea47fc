"""Damaged files are recognized and never crash the reader."""

import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ctdeface_shared.errors import MixedPatients, PermanentError
from ctdeface_worker.dicom.reader import FileKind, read_case
from ctdeface_worker.dicom.selection import select
from ctdeface_worker.dicom.volume import load
from tests.support.ct_files import CtFile, encoded, put, stack

SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)


def file_with_everything(syntax: str) -> bytes:
    """A file with nested sequences, an icon and private elements."""
    made = CtFile(syntax=syntax)
    dataset, icon, nested = made.dataset, pydicom.Dataset(), pydicom.Dataset()
    icon.Rows, icon.Columns = 4, 4
    icon.add_new(0x7FE00010, "OB", bytes(range(16)))
    nested.IconImageSequence = [icon]
    dataset.ReferencedImageSequence = [nested, pydicom.Dataset()]
    block = dataset.private_block(0x0029, "VENDOR", create=True)
    block.add_new(0x10, "SQ", [nested])
    block.add_new(0x11, "UN", b"\xfe\xff\x00\xe0\x04\x00\x00\x00abcd")
    return encoded(dataset, np.asarray(made.stored), syntax)


@settings(max_examples=50, deadline=None)
@given(
    syntax=st.sampled_from(SYNTAXES),
    damage=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(0, 300),
)
def test_a_damaged_file_gets_a_fate_and_its_series_an_answer(
    syntax: str, damage: list[tuple[int, int]], cut: int
) -> None:
    """Whichever bytes are wrong: nothing but the errors that are meant."""
    content = bytearray(file_with_everything(syntax))
    for at, value in damage:
        content[128 + at % (len(content) - 128)] = value
    with tempfile.TemporaryDirectory() as name:
        folder = put(Path(name), stack(4))
        (folder / "1-0002.dcm").write_bytes(content[: len(content) - cut])
        case = read_case(folder)
        assert len(case.files) == 4
        try:
            selection = select(case)
        except MixedPatients:
            return
        accounted = {other.file for other in selection.others}
        for series in selection.series:
            accounted |= {instance.file for instance in series.instances}
            with suppress(PermanentError):  # anything else would be a crash
                load(series)
        assert accounted == {file.name for file in case.files}


@settings(max_examples=30, deadline=None)
@given(syntax=st.sampled_from(SYNTAXES), cut=st.integers(1, 600))
def test_a_truncated_file_is_unreadable_wherever_it_ends(syntax: str, cut: int) -> None:
    """Unless it ends before the pixel data begin, where it is a shorter data set without pixels."""
    content = file_with_everything(syntax)
    with tempfile.TemporaryDirectory() as name:
        Path(name, "IM.dcm").write_bytes(content[:-cut])
        (file,) = read_case(Path(name)).files
    if file.kind is not FileKind.UNREADABLE:
        assert file.dicom is not None
        assert file.dicom.layout.pixel_data is None
