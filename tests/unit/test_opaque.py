"""Bytes outside the pixel data are few enough that no picture of a face fits."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from ctdeface_worker.dicom.layout import parse
from ctdeface_worker.dicom.opaque import (
    INSTANCE_BUDGET,
    SERIES_BUDGET,
    Kind,
    budget_problem,
    series_budget_problem,
    tags_to_blank,
    values_that_count,
)
from ctdeface_worker.dicom.reader import read_case
from ctdeface_worker.dicom.selection import Selection, select
from tests.support.ct_files import CtFile, encoded, stack
from tests.support.hostile import SIZE, element, face, put_before_pixels
from tests.support.picture_search import reduced

NOISE = np.random.default_rng(19).bytes(64 * 1024)
TABLE = struct.pack("<6f", 958.9, 0.31, 0.385, 570.0, 260.0, 500.0) + bytes(84)
DIRECTORY = struct.pack(
    "<161L",
    *(0xAAAAAAAA, 21, 6, 1, 60, 535_314, 50),
    *(number for k in range(1, 49) for number in (k, 40_000 + k, 552)),
    *(0, 0, 0, 0, 0, 0, 0x41200000, 0, 6, 0),
)
HISTOGRAM = struct.pack(">LfHHHH", 1, 414.6, 727, 0, 2278, 0)[:14] + bytes(2054)
SETTINGS = b"User Input: Pitch=0.391, Resolution=Standard, HeadLocation=(*,*), Voltage=120, \0"


def selected(folder: Path, files: list[bytes]) -> Selection:
    """Select from files with the given bytes."""
    for number, content in enumerate(files):
        (folder / f"{number:04d}").write_bytes(content)
    return select(read_case(folder))


def private(file: CtFile, *values: Any, vr: str = "OB", creator: str = "VENDOR") -> bytes:
    """The file with private elements (0029,1010) and following."""
    dataset = file.dataset
    block = dataset.private_block(0x0029, creator, create=True)
    for number, value in enumerate(values):
        block.add_new(0x10 + number, vr, value)
    return encoded(dataset, np.asarray(file.stored), file.syntax)


def problem_of(content: bytes) -> str:
    """What exceeds the budget of one file."""
    return budget_problem(values_that_count(parse(content)))


@pytest.mark.parametrize(
    "values",
    [[NOISE[:8192]], [NOISE[k : k + 16384] for k in range(0, 65536, 16384)], [NOISE[:1024]]],
    ids=["one of 8 192 bytes", "several of 16 384 bytes", "a picture of 32 x 32 pixels"],
)
def test_private_elements_that_could_hold_a_slice_are_zeroed(
    tmp_path: Path, values: list[bytes]
) -> None:
    """Each of them was below the former limit of a single element."""
    files = stack(5)
    (series,) = selected(tmp_path, [private(file, *values) for file in files]).series
    assert all("(0029,1010)" in instance.blanked for instance in series.instances)


def test_only_the_largest_values_are_zeroed(tmp_path: Path) -> None:
    """What fits the budget stays as it came."""
    files = stack(5)
    content = [private(file, NOISE[:8192], NOISE[9000:9040]) for file in files]
    (series,) = selected(tmp_path, content).series
    assert series.instances[0].blanked == {"(0029,1010)"}


def test_a_series_that_zeroing_cannot_clear_is_withheld(tmp_path: Path) -> None:
    """A preamble is not an element."""
    files = stack(5)
    content = [
        NOISE[:128] + private(file, NOISE[at : at + 64])[128:] for at, file in enumerate(files)
    ]
    content[1] = NOISE[200:328] + content[1][128:]
    content[2] = NOISE[400:528] + content[2][128:]
    selection = selected(tmp_path, content)
    assert not selection.series
    assert {other.code for other in selection.others} == {"UnsupportedObject"}
    assert "differ from slice to slice" in selection.others[0].reason


def test_a_retired_curve_that_could_hold_a_slice_is_zeroed(tmp_path: Path) -> None:
    """Curves (50xx,3000) are ordinary elements of the standard of 1998."""
    files = stack(5)
    dataset = files[1].dataset
    dataset.add_new(0x50003000, "OW", NOISE[:8192])
    curve = encoded(dataset, np.asarray(files[1].stored), files[1].syntax)
    content = [files[0].content, curve, *(file.content for file in files[2:])]
    (series,) = selected(tmp_path, content).series
    assert series.instances[0].blanked == {"(5000,3000)"}


def test_parts_in_many_slices_are_zeroed(tmp_path: Path) -> None:
    """Each slice is below its budget; together they could hold a picture."""
    files, size = stack(40), 64
    parts = [NOISE[size * k :][:size] for k in range(len(files))]
    content = [private(file, part) for file, part in zip(files, parts, strict=True)]
    assert not any(map(problem_of, content))
    (series,) = selected(tmp_path, content).series
    assert series.instances[0].blanked == {"(0029,1010)"}


def test_equal_values_of_all_slices_count_once(tmp_path: Path) -> None:
    """Scanners repeat their settings in every slice."""
    content = [private(file, NOISE[:200]) for file in stack(40)]
    assert len(selected(tmp_path, content).series) == 1


def test_counters_count_by_their_differences() -> None:
    """A number that rises by one in each slice holds nothing."""
    files = [
        values_that_count(parse(private(file, number, vr="UL")))
        for number, file in enumerate(stack(400), start=70_000)
    ]
    assert series_budget_problem(files) == ""


@pytest.mark.parametrize("value", [bytes(100_000), b"\x01" * 100_000], ids=["zeros", "ones"])
def test_one_repeated_byte_is_no_picture(value: bytes) -> None:
    """However many they are."""
    assert problem_of(private(CtFile(), value)) == ""


def test_numbers_of_the_standard_are_no_hiding_place() -> None:
    """Two pixels in each integer, in an element that the standard defines or within items."""
    picture = (reduced(face(), 32) * 255).astype(np.uint8).tobytes()
    file = CtFile(stored=np.full((SIZE, SIZE), 24, np.uint16))
    words = [picture[at : at + 2] for at in range(0, len(picture), 2)]
    wide = [one + bytes(2) for one in words]
    for parts, vr in ((words, "US"), (wide, "UL")):
        items = b"".join(
            b"\xfe\xff\x00\xe0" + len(made).to_bytes(4, "little") + made
            for made in (element(0x00280303, vr, part) for part in parts)
        )
        assert problem_of(put_before_pixels(file, element(0x00081140, "SQ", items)))


def test_black_and_white_counts_although_it_compresses_well() -> None:
    """A drawing of two values has many bytes and little information."""
    drawing = np.zeros((128, 128), np.uint8)
    drawing[30:90, 40:80] = 255
    assert problem_of(private(CtFile(), drawing.tobytes()))


@pytest.mark.parametrize(
    ("vr", "value"),
    [
        ("DS", "1.5\\-20.25"),
        ("IS", "1234"),
        ("UI", "1.2.840.113619.2.55"),
        ("FD", 1625.4),
        ("DA", "20200131"),
    ],
)
def test_well_formed_numbers_are_ordinary(vr: str, value: Any) -> None:
    """Private elements of scanners hold hundreds of them."""
    found = values_that_count(parse(private(CtFile(), value, vr=vr)))
    assert all(one.kind is not Kind.OPAQUE for one in found if one.name == "(0029,1010)")


@pytest.mark.parametrize("levels", [256, 16, 8])
@pytest.mark.parametrize("kind", ["u1", "<u2", ">u2"])
def test_few_gray_levels_do_not_help(kind: str, levels: int) -> None:
    """Such a picture of 32 x 32 pixels compresses to less than 320 bytes."""
    picture = (reduced(face(), 32) * (levels - 0.1)).astype(kind).tobytes()
    assert problem_of(private(CtFile(), picture))
    parts = [picture[at : at + 32] for at in range(0, len(picture), 32)]
    assert problem_of(private(CtFile(), *parts))


@pytest.mark.parametrize(
    ("keyword", "text", "characters"),
    [
        ("AdditionalPatientHistory", "Fall from a ladder, headache since two days. " * 15, ""),
        ("InstitutionName", "Universitätsklinikum Köln", "ISO_IR 100"),
        ("InstitutionName", "東京大学医学部附属病院放射線科", "ISO_IR 192"),
        ("InstitutionName", "서울대학교병원 영상의학과", "GB18030"),
        ("PatientName", "Yamada^Tarou=山田^太郎=やまだ^たろう", "\\ISO 2022 IR 87"),
    ],
)
def test_texts_of_all_languages_are_texts(keyword: str, text: str, characters: str) -> None:
    """Clinical histories and names of hospitals are no pictures."""
    dataset = CtFile().dataset
    dataset.SpecificCharacterSet = characters.split("\\") if characters else None
    setattr(dataset, keyword, text)
    content = encoded(dataset, np.asarray(CtFile().stored), CtFile().syntax)
    found = {one.kind for one in values_that_count(parse(content)) if len(one.data) > 20}
    assert found == {Kind.TEXT}
    assert problem_of(content) == ""


@pytest.mark.parametrize("levels", [95, 60])
def test_printable_gray_levels_are_no_text(levels: int) -> None:
    """A picture of 32 x 32 pixels in lines of 32 characters."""
    gray = (reduced(face(), 32) * (levels - 0.1)).astype(np.uint8) + 32
    file = CtFile(stored=np.full((SIZE, SIZE), 24, np.uint16))
    lines = [row.tobytes().replace(b"\\", b"]") for row in gray]
    for value in (b"".join(lines), b"\r\n".join(lines)):
        assert problem_of(put_before_pixels(file, element(0x00204000, "LT", value)))


@pytest.mark.parametrize("vr", ["DS", "IS"])
def test_gray_levels_as_digits_are_no_numbers(vr: str) -> None:
    """Ten gray levels are enough to recognize a face."""
    texts = ["".join(map(str, row)) for row in (reduced(face(), 32) * 9.9).astype(int)]
    parts = [text[at : at + 8].encode() for text in texts for at in range(0, 32, 8)]
    few = [b"\\".join(parts[at : at + 4]) for at in range(0, len(parts), 4)]
    file = CtFile(stored=np.full((SIZE, SIZE), 24, np.uint16))
    for values in (parts, few):
        made = [element(0x00291010 + number, vr, one) for number, one in enumerate(values)]
        assert problem_of(put_before_pixels(file, *made))


@pytest.mark.parametrize(
    ("creator", "tag", "vr", "value", "known"),
    [
        ("ELSCINT1", 0x01F11044, "OW", DIRECTORY, True),
        ("ELSCINT1", 0x01F11044, "OW", DIRECTORY[:28] + NOISE[:616], False),
        ("OTHER", 0x01F11044, "OW", DIRECTORY, False),
        ("ELSCINT1", 0x01F11045, "OW", DIRECTORY, False),
        ("ELSCINT1", 0x01F11044, "OB", DIRECTORY, False),
        ("ELSCINT1", 0x01F71014, "OW", TABLE, True),
        ("ELSCINT1", 0x01F71014, "OW", TABLE[:24] + bytes(range(60, 144)), False),
        ("ELSCINT1", 0x01F71014, "OW", TABLE[:24] * 20, False),
        ("ELSCINT1", 0x01F71092, "OW", SETTINGS, True),
        ("GEMS_PARM_01", 0x00431029, "OB", HISTOGRAM, True),
        ("GEMS_PARM_01", 0x00431029, "OB", HISTOGRAM[:20] + NOISE[:2048], False),
        ("ELSCINT1", 0x01F71092, "OW", SETTINGS[:20] + NOISE[:600], False),
        ("ELSCINT1", 0x01F71092, "OW", b"A" + bytes(range(97, 120)) + b"=1, \0", False),
    ],
)
def test_a_known_header_is_known_by_its_content(
    creator: str, tag: int, vr: str, value: bytes, known: bool
) -> None:
    """Its tag alone would be a hiding place."""
    dataset = CtFile().dataset
    dataset.private_block(tag >> 16, creator, create=True).add_new(tag & 0xFF, vr, value)
    found = values_that_count(parse(encoded(dataset, np.asarray(CtFile().stored), CtFile().syntax)))
    name = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
    assert (name not in {one.name for one in found}) == known


@pytest.mark.parametrize("nested", [True, False])
def test_a_known_header_is_known_once(*, nested: bool) -> None:
    """Hundreds of tables of numbers, in items or in further blocks, could hold a picture."""
    rows = [
        struct.pack("<48L", *row)
        for row in np.random.default_rng(1).integers(0, 65_536, (60, 48)).tolist()
    ]
    dataset = CtFile().dataset
    items = [pydicom.Dataset() for _ in rows] if nested else [dataset] * len(rows)
    for number, (item, row) in enumerate(zip(items, rows, strict=True)):
        block = 0x10 if nested else 0x10 + number
        item.add_new(0x01F70000 | block, "LO", "ELSCINT1")
        item.add_new(0x01F70014 | block << 8, "OW", row)
    if nested:
        dataset.private_block(0x0029, "VENDOR", create=True).add_new(0x10, "SQ", items)
    content = encoded(dataset, np.asarray(CtFile().stored), CtFile().syntax)
    assert "could be another picture" in problem_of(content)


def test_known_headers_that_change_from_slice_to_slice_count() -> None:
    """Scanners write the same tables into all slices of a series."""
    values = []
    for number in range(8):
        dataset = CtFile().dataset
        table = np.random.default_rng(number).integers(0, 65_536, 48).astype("<u4").tobytes()
        dataset.private_block(0x01F7, "ELSCINT1", create=True).add_new(0x14, "OW", table)
        content = encoded(dataset, np.asarray(CtFile().stored), CtFile().syntax)
        values.append(values_that_count(parse(content)))
    assert not any(map(budget_problem, values))
    assert "differ from slice" in series_budget_problem(values)
    assert not series_budget_problem(values[:1] * 8)
    assert tags_to_blank(values) == {"(01F7,1014)"}


def test_real_scans_are_far_below_the_budgets(real_data: Path) -> None:
    """Three vendors; Philips has the largest private headers."""
    for name in ("dcm_qa_ct_ge", "dcm_qa_ct_philips", "petct_arms_up", "head_phantom_rt"):
        folder = real_data / name
        selection = select(read_case(folder))
        slices = {instance.file for one in selection.series for instance in one.instances}
        assert len(slices) >= 28, name
        values = [values_that_count(parse((folder / file).read_bytes())) for file in sorted(slices)]
        assert not any(map(budget_problem, values))
        assert not series_budget_problem(values)


def test_the_budgets_are_below_the_smallest_picture_of_a_face() -> None:
    """Frontal pictures of real heads need 419 bytes at 24 x 24 pixels, 711 at 32 x 32."""
    assert max(INSTANCE_BUDGET, SERIES_BUDGET) < 419
