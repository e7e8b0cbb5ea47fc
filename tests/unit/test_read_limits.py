"""Sizes that headers announce are checked before anything is inflated, decoded or allocated."""

import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
from pydicom.encaps import generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from ctdeface_shared.errors import TooLarge, UnreadableInstance
from ctdeface_worker.dicom import jpeg_lossless
from ctdeface_worker.dicom.frame_size import FrameSize, announced_size, runs_exceed
from ctdeface_worker.dicom.layout import parse
from ctdeface_worker.dicom.limits import ReadLimits
from ctdeface_worker.dicom.pixels import decode, encode
from ctdeface_worker.dicom.reader import FileKind, read_case
from ctdeface_worker.dicom.selection import select
from ctdeface_worker.dicom.volume import load
from ctdeface_worker.imaging.domain import PixelFormat
from tests.support.ct_files import CtFile, encoded, put, stack

MIB = 1 << 20
SPARE_MIB = 300
READ_WITH_LITTLE_MEMORY = f"""
import resource, sys
from pathlib import Path
from ctdeface_shared.errors import TooLarge
from ctdeface_worker.dicom.reader import read_case
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
limit = used + {SPARE_MIB} * {MIB}
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    read_case(Path(sys.argv[1]))
except TooLarge as error:
    print(error)
"""
PIXELS = PixelFormat(
    rows=64, columns=48, bits_stored=16, signed=False, slope=1.0, intercept=-1024.0, padding=None
)
WORDS = (np.arange(64 * 48, dtype=np.uint16) * 7).reshape(64, 48)
SYNTAXES = (JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless)
FAR_TOO_MANY = struct.pack(">HH", 60_000, 60_000)


def deflated_zeros(mebibytes: int) -> bytes:
    """Return a raw deflate stream of zeros, about a thousandth of their size."""
    engine = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    block = engine.compress(bytes(MIB)) + engine.flush(zlib.Z_FULL_FLUSH)
    return block * mebibytes + zlib.compressobj(wbits=-zlib.MAX_WBITS).flush()


def bomb(mebibytes: int) -> bytes:
    """Return a small deflated CT file whose data set inflates to so much."""
    content = CtFile(syntax=DeflatedExplicitVRLittleEndian).content
    return content[: parse(content).body] + deflated_zeros(mebibytes)


def test_a_small_deflated_file_cannot_fill_the_memory(tmp_path: Path) -> None:
    """2.3 MB once took 7.65 GB; now 300 MiB beside the libraries are enough to refuse it."""
    content = bomb(2200)
    assert len(content) < 2_500_000
    (tmp_path / "IM1").write_bytes(content)
    child = subprocess.run(
        [sys.executable, "-c", READ_WITH_LITTLE_MEMORY, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "inflates to more than" in child.stdout


def test_an_empty_slice_may_deflate_to_a_thousandth(tmp_path: Path) -> None:
    """Small files are read whatever their ratio."""
    blank = CtFile(
        syntax=DeflatedExplicitVRLittleEndian, stored=np.zeros((1024, 1024), dtype=np.uint16)
    )
    (tmp_path / "IM1").write_bytes(blank.content)
    assert len(blank.content) < 10_000
    assert read_case(tmp_path).files[0].kind is FileKind.DICOM


def test_files_above_the_limit_are_refused_before_they_are_read(tmp_path: Path) -> None:
    """A sparse file of 50 GB costs nothing."""
    with (tmp_path / "huge.raw").open("wb") as file:
        file.truncate(50 * 10**9)
    with pytest.raises(TooLarge, match=r"huge\.raw has 50 GB, and limits\.file_gb allows 4 GB"):
        read_case(tmp_path)


def test_files_that_do_not_fit_into_the_memory_together_are_refused(tmp_path: Path) -> None:
    """The message says how much memory the process may use."""
    put(tmp_path, stack(5, stored=np.zeros((128, 128), dtype=np.uint16)))
    read_case(tmp_path, ReadLimits(memory_bytes=5 * 40_000))
    with pytest.raises(TooLarge, match=r"needs at least .* work\.memory_limit_gb allows 0\.0001"):
        read_case(tmp_path, ReadLimits(memory_bytes=100_000))


def test_a_volume_that_does_not_fit_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """Nine bytes for each voxel are certainly needed: pixels, HU and validity."""
    put(tmp_path, stack(5, stored=np.zeros((128, 128), dtype=np.uint16)))
    (series,) = select(read_case(tmp_path)).series
    load(series, ReadLimits(memory_bytes=5 * 128 * 128 * 7))
    with pytest.raises(TooLarge, match="5 images with 128 x 128 pixels needs at least"):
        load(series, ReadLimits(memory_bytes=5 * 128 * 128 * 7 - 1))


def test_headers_that_announce_gigantic_images_are_refused(tmp_path: Path) -> None:
    """65535 x 65535 pixels of 16 bits are more than one file may have."""
    for file in stack(4):
        dataset = file.dataset
        dataset.Rows = dataset.Columns = 65_535
        frame = b"\xff\xd8\xff\xc3\x00\x0b\x10" + b"\xff\xff" * 2 + b"\x01\x01\x11\x00\xff\xd9"
        content = encoded(dataset, file.stored, JPEGLosslessSV1, frame)
        (tmp_path / f"{file.number}.dcm").write_bytes(content)
    (series,) = select(read_case(tmp_path)).series
    with pytest.raises(TooLarge, match=r"announces 65535 x 65535 pixels, 8\.59 GB"):
        load(series)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_size_of_a_compressed_image_is_read_from_its_header(syntax: str) -> None:
    """Before a decoder is called."""
    assert announced_size(compressed(syntax)) == FrameSize(64, 48, 1)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_compressed_image_of_another_size_never_reaches_the_decoder(syntax: str) -> None:
    """A decoder would allocate gigabytes for it."""
    frame = compressed(syntax)
    if syntax == JPEG2000Lossless:
        forged = frame.replace(struct.pack(">2L", 48, 64), struct.pack(">2L", 60_000, 60_000), 1)
    else:
        forged = frame.replace(struct.pack(">HH", 64, 48), FAR_TOO_MANY, 1)
    assert forged != frame
    layout = parse(encoded(CtFile(stored=WORDS).dataset, WORDS, syntax, forged))
    with pytest.raises(
        UnreadableInstance, match=r"announces (60000 x 60000 pixels|no size); 64 x 48"
    ):
        decode(layout, PIXELS)


def test_run_lengths_that_expand_without_bound_never_reach_the_decoder() -> None:
    """Two bytes become 128, so 18 kB would become 1.2 MB instead of 3072 bytes."""
    header = struct.pack("<16L", 2, 64, 64 + 9000, *[0] * 13)
    layout = parse(
        encoded(CtFile(stored=WORDS).dataset, WORDS, RLELossless, header + b"\x81\0" * 9000)
    )
    with pytest.raises(UnreadableInstance, match="runs are longer than its pixels"):
        decode(layout, PIXELS)


def test_sound_run_lengths_are_decoded() -> None:
    """Long runs, short ones and none."""
    value = encode(WORDS, PIXELS, RLELossless)
    assert value is not None
    frame = next(generate_frames(value, number_of_frames=1))
    assert not runs_exceed(frame, WORDS.size)
    assert runs_exceed(frame, WORDS.size // 2)
    assert not runs_exceed(frame[:50], WORDS.size)


def test_thousands_of_tiles_are_not_a_size() -> None:
    """A decoder allocates kilobytes for each tile."""
    frame = compressed(JPEG2000Lossless)
    size = struct.pack(">4L", 48, 64, 0, 0)
    at = frame.index(size) + len(size)
    assert announced_size(frame[:at] + struct.pack(">2L", 1, 1) + frame[at + 8 :]) == (64, 48, 1)
    tiles = struct.pack(">8LH", 1000, 1000, 0, 0, 1, 1, 0, 0, 1)
    assert announced_size(frame[:8] + tiles + frame[42:]) is None


@pytest.mark.parametrize("length", range(0, 60, 7))
def test_a_truncated_header_has_no_size(length: int) -> None:
    """It is damaged, which is not an error of the program."""
    for syntax in SYNTAXES:
        frame = compressed(syntax)[:length]
        assert announced_size(frame) in {None, FrameSize(64, 48, 1)}


def compressed(syntax: str) -> bytes:
    """Return the image in a compressed syntax."""
    if syntax in jpeg_lossless.SYNTAXES:
        return jpeg_lossless.encode_frame(WORDS.tobytes(), PIXELS, syntax)
    value = encode(WORDS, PIXELS, syntax)
    assert value is not None
    start = b"\xff\x4f\xff\x51" if syntax == JPEG2000Lossless else b"\xff\xd8"
    return value[value.index(start) :]


def ambiguous(depth: int) -> bytes:
    """Return a private element that could be a sequence in two encodings, at each level."""
    value = b"\1" * 8
    for _ in range(depth):
        element = struct.pack("<HHL", 9, 0x1010, len(value)) + value
        value = struct.pack("<HHL", 0xFFFE, 0xE000, len(element)) + element + b"\xff" * 8
    return struct.pack("<HH2sHL", 9, 0x1010, b"UN", 0, len(value)) + value


def test_ambiguous_nesting_costs_no_exponential_time() -> None:
    """Each level was parsed twice, so 32 levels in 800 bytes took days."""
    content = CtFile(syntax=ExplicitVRLittleEndian).content
    body = parse(content).body
    begun = monotonic()
    with suppress(TooLarge, UnreadableInstance):
        parse(content[:body] + ambiguous(30))
    assert monotonic() - begun < 5


def test_a_file_of_millions_of_elements_is_refused() -> None:
    """Each would take a hundred times its eight bytes."""
    content = CtFile().content
    body = parse(content).body
    many = b"".join(struct.pack("<HH2sH", 9, number, b"LO", 0) for number in range(0x1000, 0x2000))
    with pytest.raises(TooLarge, match="elements of a file are too many"):
        parse(content[:body] + many * 300)


@pytest.mark.parametrize(
    "value", [b" 1.2.840.10008.1.2.1.99 ", b"1.2.840.10008.1.2.1\\1.2", b"1.2\0x1", b"\0\0"]
)
def test_both_parsers_read_the_same_transfer_syntax(value: bytes) -> None:
    """Otherwise pydicom could inflate, without a limit, what was checked as something else."""
    content = CtFile().content
    old = b"1.2.840.10008.1.2.1\0"
    at = content.index(old)
    padded = value.ljust(len(old), b"\0")[: len(old)] if len(value) <= len(old) else value
    length = struct.pack("<H", len(padded))
    with pytest.raises(UnreadableInstance):
        parse(content[: at - 2] + length + padded + content[at + len(old) :])


def test_a_second_transfer_syntax_makes_a_file_unreadable() -> None:
    """One parser would take the first, the other the last."""
    content = CtFile().content
    at = content.index(b"1.2.840.10008.1.2.1\0") - 8
    second = struct.pack("<HH2sH", 2, 0x10, b"UI", 22) + b"1.2.840.10008.1.2.1.99"
    with pytest.raises(UnreadableInstance, match="occurs twice"):
        parse(content[: at + 28] + second + content[at + 28 :])


@pytest.mark.parametrize("length", [None, 0xFFFFFFFF], ids=["defined", "undefined"])
def test_sequences_nested_thousands_deep_are_damage(tmp_path: Path, length: int | None) -> None:
    """Neither parser comes to the end of its stack."""
    value = b""
    for _ in range(2000):
        ends = (b"", b"") if length is None else (b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0")
        item_end, sequence_end = (end + bytes(4) * bool(end) for end in ends)
        size = length or len(value)
        item = struct.pack("<HHL", 0xFFFE, 0xE000, size) + value + item_end
        size = length or len(item)
        value = struct.pack("<HH2sHL", 9, 0x1010, b"SQ", 0, size) + item + sequence_end
    content = CtFile().content
    (tmp_path / "IM1").write_bytes(content[: parse(content).body] + value)
    (file,) = read_case(tmp_path).files
    assert (file.kind, "nested" in file.reason) == (FileKind.UNREADABLE, True)
