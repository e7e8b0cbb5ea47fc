"""The gate accepts a file with exactly the announced differences and names all others."""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.encaps import generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from ctdeface_worker.dicom.pixels import encode
from ctdeface_worker.imaging.domain import DifferenceKind, ExpectedDifference, PixelFormat
from ctdeface_worker.verification.instances import ExpectedPixels, compare_files
from tests.support.ct_files import CtFile, encoded

NATIVE = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
SHAPE = (40, 48)
FILL = 24
PADDING = (4000, 4095)
ICON = "(0088,0200)[0].(7FE0,0010)"
NESTED_ICON = "(0029,1020)[0].(0088,0200)[0].(7FE0,0010)"
OVERLAY = "(6000,3000)"
PIXELS = "(7FE0,0010)"

FACE = np.zeros(SHAPE, dtype=bool)
FACE[4:12, 10:30] = True
STORED = np.random.default_rng(3).integers(100, 3000, SHAPE, dtype=np.uint16)
STORED[5, 11:20] = 4095
DEFACED = np.where(FACE & (PADDING[0] > STORED), np.uint16(FILL), STORED)


def changed(*paths: str, kind: DifferenceKind = DifferenceKind.CHANGED) -> list[ExpectedDifference]:
    """Announce differences."""
    return [
        ExpectedDifference(path=path, kind=kind, reason="announced by the test") for path in paths
    ]


ANNOUNCED = changed(ICON, NESTED_ICON, OVERLAY, PIXELS)


def icon(value: bytes) -> pydicom.Dataset:
    """An item with an icon image."""
    image, holder = pydicom.Dataset(), pydicom.Dataset()
    image.Rows, image.Columns = 8, 8
    image.add_new(0x7FE00010, "OW", value * 64)
    holder.IconImageSequence = [image]
    return holder


def head(picture: bytes) -> pydicom.Dataset:
    """A data set with overlay, icons and private elements; one icon hides in a private sequence."""
    made = CtFile(stored=STORED, bits_stored=12).dataset
    made.IconImageSequence = icon(picture).IconImageSequence
    made.add_new(0x60003000, "OW", picture * 240)
    block = made.private_block(0x0029, "VENDOR", create=True)
    note = pydicom.Dataset()
    note.private_block(0x0031, "VENDOR", create=True).add_new(0x01, "LO", "untouched")
    block.add_new(0x10, "SQ", [note])
    block.add_new(0x20, "SQ", [icon(picture)])
    return made


def content(
    dataset: pydicom.Dataset, stored: NDArray[Any], syntax: str = ExplicitVRLittleEndian
) -> bytes:
    """The bytes of a file."""
    return encoded(dataset, stored, syntax)


def problems(
    folder: Path,
    before: bytes,
    after: bytes,
    expected: Sequence[ExpectedDifference] = ANNOUNCED,
    **known: object,
) -> tuple[str, ...]:
    """Write both files and compare them."""
    (folder / "in.dcm").write_bytes(before)
    (folder / "out.dcm").write_bytes(after)
    values: dict[str, Any] = {"face": FACE, "fill_stored": FILL, "padding": PADDING, **known}
    return compare_files(folder / "in.dcm", folder / "out.dcm", ExpectedPixels(**values), expected)


BEFORE = content(head(b"\x55"), STORED)
AFTER = content(head(b"\0"), DEFACED)


def test_an_untouched_copy_is_proven_where_no_face_is_in_the_slice(tmp_path: Path) -> None:
    """Nothing announced, nothing found."""
    file = content(head(b"\0"), STORED)
    assert problems(tmp_path, file, file, [], face=np.zeros(SHAPE, dtype=bool)) == ()


@pytest.mark.parametrize("syntax", [*NATIVE, DeflatedExplicitVRLittleEndian])
def test_a_correct_file_is_proven_in_every_native_syntax(tmp_path: Path, syntax: str) -> None:
    """Face filled, padding kept, overlay and icons blank, in private sequences too."""
    before, after = content(head(b"\x55"), STORED, syntax), content(head(b"\0"), DEFACED, syntax)
    assert problems(tmp_path, before, after) == ()


@pytest.mark.parametrize("fill_bits", [0xF800, 0x0800])
def test_unused_bits_may_repeat_the_sign_or_be_zero(tmp_path: Path, fill_bits: int) -> None:
    """A fill of -2048 in 12 bits has two honest words."""
    stored = STORED.astype(np.int16)
    after = np.where(FACE, np.uint16(fill_bits), stored.view(np.uint16)).view(np.int16)
    file = CtFile(stored=stored, bits_stored=12)
    known = {"fill_stored": -2048, "padding": None}
    assert (
        problems(
            tmp_path, file.content, replace(file, stored=after).content, changed(PIXELS), **known
        )
        == ()
    )


def test_unused_bits_of_the_fill_must_not_say_anything(tmp_path: Path) -> None:
    """A picture in the bits above BitsStored is reported, in native pixels and in RLE."""
    hidden = np.where(FACE & (DEFACED == FILL), np.uint16(FILL | 0x4000), DEFACED)
    (found,) = problems(tmp_path, BEFORE, content(head(b"\0"), hidden))
    assert "do not hold the fill value 24" in found
    (found,) = problems(
        tmp_path, compressed(STORED, RLELossless), compressed(hidden, RLELossless), changed(PIXELS)
    )
    assert "do not hold the fill value 24" in found


def compressed(stored: NDArray[np.uint16], syntax: str, *more: bytes, behind: bytes = b"") -> bytes:
    """A compressed file, with further bytes or fragments behind its frame if wanted."""
    file = CtFile(stored=stored, bits_stored=12)
    made = pydicom.dcmread(BytesIO(file.content))
    made.compress(syntax, generate_instance_uid=False)
    frame = next(generate_frames(made.PixelData, number_of_frames=1))
    return with_fragments(encoded(file.dataset, stored, syntax, frame), frame + behind, *more)


def with_fragments(whole: bytes, *parts: bytes) -> bytes:
    """Replace the fragments of a compressed file."""
    even = [part + bytes(len(part) % 2) for part in parts]
    fragments = b"".join(
        b"\xfe\xff\x00\xe0" + len(part).to_bytes(4, "little") + part for part in even
    )
    at = whole.index(b"\xe0\x7f\x10\x00OB") + 24  # behind the offset table
    return whole[:at] + fragments + b"\xfe\xff\xdd\xe0" + bytes(4)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_files_are_compared_by_what_they_decode_to(tmp_path: Path, syntax: str) -> None:
    """They stay compressed, or become native where that is announced."""
    before, again, native = (
        compressed(STORED, syntax),
        compressed(DEFACED, syntax),
        CtFile(stored=DEFACED, bits_stored=12).content,
    )
    assert problems(tmp_path, before, again, changed(PIXELS)) == ()
    assert problems(tmp_path, before, native, changed(PIXELS, "(0002,0010)", "(0002,0000)")) == ()
    assert "(0002,0010) is changed" in " ".join(problems(tmp_path, before, native, changed(PIXELS)))
    assert "face voxels" in " ".join(problems(tmp_path, before, before, changed(PIXELS)))


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_nothing_may_follow_a_compressed_image(tmp_path: Path, syntax: str) -> None:
    """Decoders ignore bytes after the image, where the former frame could remain."""
    before = compressed(STORED, syntax)
    for after in (
        compressed(DEFACED, syntax, behind=b"face"),
        compressed(DEFACED, syntax, b"face"),
    ):
        assert problems(tmp_path, before, after, changed(PIXELS)) == (
            "out.dcm: bytes other than zeros follow the compressed image",
        )


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_an_untouched_compressed_slice_must_not_hold_a_second_image(
    tmp_path: Path, syntax: str
) -> None:
    """It is copied unchanged, with any bytes after its frame."""
    known = {"face": np.zeros(SHAPE, dtype=bool)}
    plain, padded = compressed(STORED, syntax), compressed(STORED, syntax, behind=bytes(2))
    frame = next(generate_frames(pydicom.dcmread(BytesIO(plain)).PixelData, number_of_frames=1))
    for file in (plain, padded):
        assert problems(tmp_path, file, file, [], **known) == ()
    open_ended = (
        [with_fragments(plain, frame[: frame.rindex(b"\xff\xd9")], frame)]
        if syntax == JPEGLSLossless
        else []
    )
    for file in (
        compressed(STORED, syntax, behind=frame),
        compressed(STORED, syntax, frame),
        *open_ended,
    ):
        assert problems(tmp_path, file, file, [], **known) == (
            "out.dcm: bytes other than zeros follow the compressed image",
        )


def frame_of(file: bytes) -> bytes:
    """The frame of a compressed file."""
    return next(generate_frames(pydicom.dcmread(BytesIO(file)).PixelData, number_of_frames=1))


def segment(marker: bytes, content: bytes) -> bytes:
    """A segment of a JPEG or JPEG 2000 image."""
    return marker + (2 + len(content)).to_bytes(2, "big") + content


FOREIGN = (
    (
        "out.dcm: the compressed image holds segments that decoding does not need and that could "
        "be a picture; only JFIF and short names of encoders are allowed"
    ),
)


@pytest.mark.parametrize(
    ("syntax", "extra", "expected"),
    [
        (JPEGLSLossless, segment(b"\xff\xfe", b"LEAD Technologies V1.01"), ()),
        (JPEGLSLossless, segment(b"\xff\xe0", b"JFIF\0\1\1\0\0\1\0\1\0\0"), ()),
        (JPEGLSLossless, segment(b"\xff\xe0", b"LJIF\0\1" + bytes(7)), ()),
        (JPEGLSLossless, segment(b"\xff\xe0", b"JFIF\0\1\1\0\0\1\0\1\7\7" + bytes(147)), FOREIGN),
        (JPEGLSLossless, segment(b"\xff\xe5", b"face"), FOREIGN),
        (JPEGLSLossless, segment(b"\xff\xfe", b"\xff\xd9ab"), FOREIGN),
        (JPEGLSLossless, segment(b"\xff\xfe", b"face" * 100), FOREIGN),
        (JPEGLSLossless, segment(b"\xff\xfe", bytes(range(65, 90))), FOREIGN),
        (JPEGLSLossless, segment(b"\xff\xf8", b"\2" + bytes(range(200))), FOREIGN),
        (JPEGLSLossless, segment(b"\xff\xdd", b"\0\1"), FOREIGN),
        (JPEG2000Lossless, segment(b"\xff\x64", b"\0\1\xff\xd9"), FOREIGN),
        (JPEG2000Lossless, segment(b"\xff\x64", b"\0\0" + b"face" * 100), FOREIGN),
        (JPEG2000Lossless, segment(b"\xff\x58", b"\0" + bytes(range(99))), FOREIGN),
    ],
)
def test_only_segments_that_decoding_needs_are_allowed(
    tmp_path: Path, syntax: str, extra: bytes, expected: tuple[str, ...]
) -> None:
    """Application data, comments and unknown segments could be another picture."""
    plain = compressed(STORED, syntax)
    frame = frame_of(plain)
    place = 2 if syntax == JPEGLSLossless else frame.index(b"\xff\x90")
    file = with_fragments(plain, frame[:place] + extra + frame[place:])
    assert problems(tmp_path, file, file, [], face=np.zeros(SHAPE, dtype=bool)) == expected


@pytest.mark.parametrize("high", [256, 4096, 65536])
@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
def test_coded_data_must_not_go_on_behind_the_last_pixel(
    tmp_path: Path, syntax: str, high: int
) -> None:
    """Decoders stop there, and never see a picture before the end marker."""
    stored = np.random.default_rng(1).integers(0, high, (40, 48)).astype(np.uint16)
    pixels = PixelFormat(rows=40, columns=48, bits_stored=16, signed=False, slope=1, intercept=0)
    value = encode(stored, pixels, syntax)
    assert value is not None
    file = CtFile(stored=stored)
    frame = next(generate_frames(value, number_of_frames=1)).rstrip(b"\0")
    end = frame.rindex(b"\xff\xd9")
    longer = frame[:end] + bytes(range(100)) * 3 + frame[end:]
    known = {"face": np.zeros(stored.shape, dtype=bool)}
    for one, expected in (
        (frame, ()),
        (longer, ("out.dcm: the compressed image holds bytes that decoding does not need",)),
    ):
        whole = encoded(file.dataset, stored, syntax, one)
        assert problems(tmp_path, whole, whole, [], **known) == expected


def test_the_offset_table_must_be_that_of_one_frame(tmp_path: Path) -> None:
    """Its 32 bits per frame could be part of a picture."""
    plain = compressed(STORED, JPEGLSLossless)
    at = plain.index(b"\xe0\x7f\x10\x00OB") + 20
    file = plain[:at] + b"face" + plain[at + 4 :]
    assert problems(tmp_path, file, file, [], face=np.zeros(SHAPE, dtype=bool)) == (
        "out.dcm: the offset table of the compressed image is not that of one frame",
    )


def test_an_image_may_come_in_several_fragments(tmp_path: Path) -> None:
    """Some archives cut them at a fixed size."""
    plain = compressed(STORED, JPEGLSLossless)
    frame = next(generate_frames(pydicom.dcmread(BytesIO(plain)).PixelData, number_of_frames=1))
    cut = with_fragments(plain, frame[:100], frame[100:])
    assert problems(tmp_path, cut, cut, [], face=np.zeros(SHAPE, dtype=bool)) == ()


def test_nothing_may_stand_behind_the_last_element(tmp_path: Path) -> None:
    """Readers end at a stray delimiter, and never see what follows it."""
    hidden = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"face" * 100
    (found,) = problems(tmp_path, BEFORE + hidden, AFTER + hidden)
    assert "bytes other than zeros follow the last element" in found
    assert problems(tmp_path, BEFORE + bytes(8), AFTER + bytes(8)) == ()


def test_added_removed_and_extended_elements_are_proven_when_announced(tmp_path: Path) -> None:
    """Another UID, one element more, one sequence less, one item more; group lengths follow."""
    before, after = head(b"\x55"), head(b"\0")
    for made in (before, after):
        made.ReferencedImageSequence = [pydicom.Dataset()]
    after.SOPInstanceUID += "1"
    after.DerivationDescription = "added"
    after.ReferencedImageSequence.append(pydicom.Dataset())
    del after.IconImageSequence
    meta = changed(
        "(0002,0003)", "(0002,0000)", "(0008,0018)", "(0008,1140)", NESTED_ICON, OVERLAY, PIXELS
    )
    announced = changed("(0008,2111)", kind=DifferenceKind.ADDED) + changed(
        "(0088,0200)", kind=DifferenceKind.REMOVED
    )
    assert (
        problems(tmp_path, content(before, STORED), content(after, DEFACED), meta + announced) == ()
    )
    found = " ".join(problems(tmp_path, content(before, STORED), content(after, DEFACED), meta))
    assert "(0008,2111) is added, which was not announced" in found
    assert "(0088,0200) is removed, which was not announced" in found


@pytest.mark.parametrize("path", [PIXELS, ICON, NESTED_ICON, OVERLAY])
def test_a_difference_that_was_not_announced_is_a_problem(tmp_path: Path, path: str) -> None:
    """Even one that would be right."""
    expected = [one for one in ANNOUNCED if one.path != path]
    assert f"out.dcm: {path} is changed, which was not announced" in problems(
        tmp_path, BEFORE, AFTER, expected
    )


def test_an_announced_difference_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    """The list must be exact."""
    expected = [*ANNOUNCED, *changed("(0010,0010)")]
    assert problems(tmp_path, BEFORE, AFTER, expected) == (
        "out.dcm: (0010,0010) should be changed but is not",
    )


@pytest.mark.parametrize("syntax", NATIVE)
def test_no_flipped_byte_outside_the_pictures_goes_unnoticed(tmp_path: Path, syntax: str) -> None:
    """A sample of all bytes before the pixels, private and nested values included."""
    before, after = content(head(b"\x55"), STORED, syntax), content(head(b"\0"), DEFACED, syntax)
    assert problems(tmp_path, before, after) == ()
    blank = [k for k in range(len(after) - DEFACED.nbytes) if before[k] == after[k]]
    for k in blank[::29]:
        assert problems(tmp_path, before, after[:k] + bytes([after[k] ^ 0x11]) + after[k + 1 :]), k


def test_a_voxel_changed_outside_the_face_is_a_problem(tmp_path: Path) -> None:
    """One is enough."""
    stray = DEFACED.copy()
    stray[30, 30] += 1
    assert problems(tmp_path, BEFORE, content(head(b"\0"), stray)) == (
        "out.dcm: 1 voxels differ that are outside the face mask or are padding",
    )


def test_padding_inside_the_face_must_stay(tmp_path: Path) -> None:
    """Filled padding is reported."""
    filled = np.where(FACE, np.uint16(FILL), STORED)
    (found,) = problems(tmp_path, BEFORE, content(head(b"\0"), filled))
    assert "9 voxels differ" in found


def test_a_face_voxel_that_is_left_is_a_problem(tmp_path: Path) -> None:
    """One is enough."""
    left = DEFACED.copy()
    left[6, 15] = STORED[6, 15]
    assert problems(tmp_path, BEFORE, content(head(b"\0"), left)) == (
        "out.dcm: 1 of 151 face voxels do not hold the fill value 24",
    )


def test_another_fill_value_is_a_problem(tmp_path: Path) -> None:
    """The whole face counts."""
    (found,) = problems(tmp_path, BEFORE, AFTER, fill_stored=FILL + 1)
    assert "151 of 151 face voxels" in found


def test_pixels_must_not_change_where_no_face_is_in_the_slice(tmp_path: Path) -> None:
    """Announcing it does not help."""
    assert problems(tmp_path, BEFORE, AFTER, face=np.zeros(SHAPE, dtype=bool))


@pytest.mark.parametrize("where", ["top", "nested"])
def test_an_icon_that_is_left_is_a_problem(tmp_path: Path, where: str) -> None:
    """At any depth, also inside private sequences."""
    after = head(b"\0")
    left = icon(b"\x55")
    if where == "top":
        after.IconImageSequence = left.IconImageSequence
    else:
        after[0x00291020].value = [left]
    path = ICON if where == "top" else NESTED_ICON
    assert f"out.dcm: {path} still holds a picture" in problems(
        tmp_path, BEFORE, content(after, DEFACED)
    )


def test_an_overlay_that_is_left_is_a_problem_even_if_nothing_was_announced(tmp_path: Path) -> None:
    """A picture of the input that was not blanked."""
    file = content(head(b"\x55"), STORED)
    found = problems(tmp_path, file, file, [], face=np.zeros(SHAPE, dtype=bool))
    assert found == tuple(
        f"out.dcm: {path} still holds a picture" for path in (NESTED_ICON, ICON, OVERLAY)
    )


def test_an_extra_element_is_a_problem(tmp_path: Path) -> None:
    """Also as an element nested in a private sequence."""
    after = head(b"\0")
    after.PatientComments = "extra"
    after[0x00291010].value[0].add_new(0x00310010 + 0x10, "LO", "x")
    found = " ".join(problems(tmp_path, BEFORE, content(after, DEFACED)))
    assert "(0010,4000) is added" in found
    assert "(0029,1010)[0].(0031,0020) is added" in found


def test_a_removed_element_is_a_problem(tmp_path: Path) -> None:
    """Top level."""
    after = head(b"\0")
    del after.PatientID
    assert "out.dcm: (0010,0020) is removed, which was not announced" in problems(
        tmp_path, BEFORE, content(after, DEFACED)
    )


def test_a_nested_private_change_is_a_problem(tmp_path: Path) -> None:
    """Named by its path."""
    after = AFTER.replace(b"untouched", b"unTouched")
    assert "out.dcm: (0029,1010)[0].(0031,1001) is changed, which was not announced" in problems(
        tmp_path, BEFORE, after
    )


@pytest.mark.parametrize("cut", [1, 100, 4000, len(AFTER) - 140, len(AFTER) - 20, len(AFTER)])
def test_a_truncated_file_is_a_problem(tmp_path: Path, cut: int) -> None:
    """Wherever it ends, and without an exception."""
    assert problems(tmp_path, BEFORE, AFTER[:-cut])


def test_bytes_behind_the_last_element_are_a_problem(tmp_path: Path) -> None:
    """Native and deflated."""
    assert problems(tmp_path, BEFORE, AFTER + b"face")
    assert problems(tmp_path, BEFORE, AFTER + b"face" * 100)
    before, after = (
        content(made, stored, DeflatedExplicitVRLittleEndian)
        for made, stored in ((head(b"\x55"), STORED), (head(b"\0"), DEFACED))
    )
    assert problems(tmp_path, before, after + zlib.compress(b"face"))


def test_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    """It is reported as a sentence."""
    (tmp_path / "in.dcm").write_bytes(BEFORE)
    pixels = ExpectedPixels(face=FACE, fill_stored=FILL, padding=PADDING)
    (found,) = compare_files(tmp_path / "in.dcm", tmp_path / "out.dcm", pixels, [])
    assert found.startswith("out.dcm: the file cannot be read")
