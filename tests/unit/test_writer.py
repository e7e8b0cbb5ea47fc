"""What is written is the input with exactly the listed elements changed."""

import struct
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_sequence
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from ctdeface_shared.jobs.options import HeaderPolicy
from ctdeface_worker.dicom.annotation import new_uids
from ctdeface_worker.dicom.eligibility import ElementPolicy
from ctdeface_worker.dicom.reader import read_case
from ctdeface_worker.dicom.selection import select
from ctdeface_worker.dicom.volume import load
from ctdeface_worker.dicom.writer import PRESERVE, Headers, WrittenInstance, write_series
from ctdeface_worker.imaging.domain import FaceMask
from ctdeface_worker.pipeline.fill import defaced_volume, fill_stored
from tests.support.ct_files import CtFile, encoded, put, stack
from tests.support.hostile import element

FACE = (slice(0, 2), slice(1, 4), slice(2, 6))
FILL_HU = -1000.0
GDCM = {
    RLELossless: gdcm.TransferSyntax.RLELossless,
    JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    JPEGLossless: gdcm.TransferSyntax.JPEGLosslessProcess14,
    JPEGLSLossless: gdcm.TransferSyntax.JPEGLSLossless,
    JPEGLSNearLossless: gdcm.TransferSyntax.JPEGLSNearLossless,
    JPEG2000Lossless: gdcm.TransferSyntax.JPEG2000Lossless,
}


def random_stack(count: int = 4, *, signed: bool = False) -> list[CtFile]:
    """Slices of random 12-bit pixels."""
    values = np.random.default_rng(7)
    low, high, kind = (-2048, 2047, np.int16) if signed else (0, 4095, np.uint16)
    return [
        replace(file, stored=values.integers(low, high, (40, 48), dtype=kind), bits_stored=12)
        for file in stack(count)
    ]


def deface(
    folder: Path, headers: Headers = PRESERVE
) -> tuple[Path, tuple[WrittenInstance, ...], NDArray[np.bool_]]:
    """Deface the one series of a folder; return where to, what was written and the mask."""
    loaded = load(select(read_case(folder), policy=headers.elements).series[0])
    face = np.zeros(loaded.volume.geometry.shape, dtype=bool)
    face[FACE] = True
    mask = FaceMask(face=face, geometry=loaded.volume.geometry)
    out = folder.parent / "out"
    written = write_series(loaded, fill_stored(loaded, mask, FILL_HU), out, headers)
    again = load(select(read_case(out), policy=headers.elements).series[0])
    assert np.array_equal(again.volume.hu, defaced_volume(loaded, mask, FILL_HU).hu)
    return out, written, face


def changes(written: WrittenInstance) -> dict[str, str]:
    """Paths and kinds of the listed differences."""
    return {difference.path: difference.kind.value for difference in written.differences}


def compress(path: Path, syntax: str) -> None:
    """Compress a file in place with GDCM."""
    reader, change, writer = (
        gdcm.ImageReader(),
        gdcm.ImageChangeTransferSyntax(),
        gdcm.ImageWriter(),
    )
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(GDCM[pydicom.uid.UID(syntax)]))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(path))
    assert writer.Write()


def replaced(folder: Path, file: CtFile, dataset: pydicom.Dataset) -> None:
    """Write a file of the stack from another data set."""
    (folder / f"{file.series}-{file.number:04d}.dcm").write_bytes(
        encoded(dataset, np.asarray(file.stored), file.syntax)
    )


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEGLosslessSV1, JPEGLossless, JPEGLSLossless, JPEG2000Lossless]
)
def test_lossless_input_stays_in_its_syntax_and_nothing_but_the_frame_changes(
    tmp_path: Path, syntax: str, signed: bool
) -> None:
    """Instances without face are identical files, unless they are JPEG 2000."""
    files = random_stack(signed=signed)
    folder = put(tmp_path / "in", files)
    for path in folder.iterdir():
        compress(path, syntax)
    out, written, face = deface(folder)
    for instance, file in zip(written, files, strict=True):
        before, after = (folder / instance.file).read_bytes(), (out / instance.file).read_bytes()
        if syntax != JPEG2000Lossless and not face[instance.slice_number].any():
            assert before == after
            continue
        was, now = pydicom.dcmread(BytesIO(before)), pydicom.dcmread(BytesIO(after))
        assert now.file_meta.TransferSyntaxUID == syntax
        assert changes(instance) == {"(7FE0,0010)": "changed"}
        split = before.index(b"\xe0\x7f\x10\x00OB")
        assert before[:split] == after[:split]
        assert set(was.keys()) == set(now.keys())
        outside = ~face[instance.slice_number]
        assert np.array_equal(np.asarray(file.stored)[outside], now.pixel_array[outside])


@pytest.mark.parametrize("syntax", [JPEGLSNearLossless])
def test_lossy_input_is_never_compressed_lossily_again_and_stays_marked(
    tmp_path: Path, syntax: str
) -> None:
    """It becomes Explicit VR Little Endian; (0028,2110) remains."""
    files = [replace(file, elements={"LossyImageCompression": "01"}) for file in random_stack()]
    folder = put(tmp_path / "in", files)
    for path in folder.iterdir():
        compress(path, syntax)
    out, written, face = deface(folder)
    was, now = pydicom.dcmread(folder / written[0].file), pydicom.dcmread(out / written[0].file)
    assert now.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert now.LossyImageCompression == "01"
    assert changes(written[0]) == {
        "(7FE0,0010)": "changed",
        "(0002,0010)": "changed",
        "(0002,0000)": "changed",
    }
    assert np.array_equal(was.pixel_array[~face[0]], now.pixel_array[~face[0]])


def icon(pixels: bytes = b"\x55" * 64) -> pydicom.Dataset:
    """An icon image."""
    item = pydicom.Dataset()
    item.Rows, item.Columns = 8, 8
    item.add_new(0x7FE00010, "OB", pixels)
    return item


def test_icons_and_overlays_are_zeroed_in_place_at_any_depth(tmp_path: Path) -> None:
    """Same length, same file size, and each is listed."""
    files = random_stack()
    dataset = files[3].dataset
    dataset.IconImageSequence = [icon()]
    nested = pydicom.Dataset()
    nested.IconImageSequence = [icon(), icon()]
    dataset.ReferencedImageSequence = [nested]
    dataset.add_new(0x60000010, "US", 40)
    dataset.add_new(0x60000100, "US", 1)
    dataset.add_new(0x60003000, "OW", b"\x77" * 60)
    folder = put(tmp_path / "in", files)
    replaced(folder, files[3], dataset)
    out, written, _ = deface(folder)
    assert changes(written[3]) == {
        "(0008,1140)[0].(0088,0200)[0].(7FE0,0010)": "changed",
        "(0008,1140)[0].(0088,0200)[1].(7FE0,0010)": "changed",
        "(0088,0200)[0].(7FE0,0010)": "changed",
        "(6000,3000)": "changed",
    }
    before, after = (folder / written[3].file).read_bytes(), (out / written[3].file).read_bytes()
    assert before.replace(b"\x55" * 64, bytes(64)).replace(b"\x77" * 60, bytes(60)) == after


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_an_icon_inside_a_private_element_of_unknown_kind_is_zeroed(
    tmp_path: Path, syntax: str
) -> None:
    """Archives convert private sequences to UN or implicit values; their items are still found."""
    holder = pydicom.Dataset()
    holder.IconImageSequence = [icon()]
    holder.TextValue = "x" * 9000
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = True, True
    write_sequence(stream, pydicom.DataElement(0x00291010, "SQ", [holder, holder]), ["ascii"])
    files = [replace(file, syntax=syntax) for file in random_stack()]
    dataset = files[3].dataset
    dataset.private_block(0x0029, "VENDOR", create=True).add_new(0x10, "UN", stream.getvalue())
    folder = put(tmp_path / "in", files)
    replaced(folder, files[3], dataset)
    out, written, _ = deface(folder)
    assert changes(written[3]) == {
        f"(0029,1010)[{n}].(0088,0200)[0].(7FE0,0010)": "changed" for n in (0, 1)
    }
    assert b"\x55" * 64 not in (out / written[3].file).read_bytes()


def test_a_compressed_icon_is_removed_with_its_sequence(tmp_path: Path) -> None:
    """Zeroing fragments would leave a broken stream; lengths around it stay true."""
    files = random_stack()
    compressed = icon()
    compressed[0x7FE00010].value = encapsulate([b"\x55" * 64])
    compressed[0x7FE00010].is_undefined_length = True
    holder = pydicom.Dataset()
    holder.IconImageSequence = [compressed]
    holder.ReferencedSOPInstanceUID = "1.2.3"
    dataset = files[3].dataset
    dataset.ReferencedImageSequence = [holder]
    folder = put(tmp_path / "in", files)
    replaced(folder, files[3], dataset)
    out, written, _ = deface(folder)
    assert changes(written[3]) == {"(0008,1140)[0].(0088,0200)": "removed"}
    now = pydicom.dcmread(out / written[3].file)
    assert list(now.ReferencedImageSequence[0].keys()) == [
        pydicom.tag.Tag("ReferencedSOPInstanceUID")
    ]
    assert np.array_equal(now.pixel_array, files[3].stored)


def test_an_element_that_the_policy_names_is_blanked(tmp_path: Path) -> None:
    """In place, and listed."""
    files = random_stack()
    dataset = files[3].dataset
    dataset.private_block(0x0029, "VENDOR", create=True).add_new(0x10, "OB", b"\1" * 20000)
    folder = put(tmp_path / "in", files)
    replaced(folder, files[3], dataset)
    out, written, _ = deface(
        folder, Headers(uids={}, elements=ElementPolicy(blank=frozenset({"(0029,1010)"})))
    )
    assert changes(written[3]) == {"(0029,1010)": "changed"}
    assert pydicom.dcmread(out / written[3].file)[0x00291010].value == bytes(20000)


def test_a_private_element_that_could_hold_a_picture_is_zeroed_and_listed(tmp_path: Path) -> None:
    """The series is released without it."""
    files = random_stack()
    dataset = files[3].dataset
    noise = np.random.default_rng(5).bytes(8192)
    dataset.private_block(0x0029, "VENDOR", create=True).add_new(0x10, "OB", noise)
    folder = put(tmp_path / "in", files)
    replaced(folder, files[3], dataset)
    out, written, _ = deface(folder)
    assert changes(written[3]) == {"(0029,1010)": "changed"}
    assert pydicom.dcmread(out / written[3].file)[0x00291010].value == bytes(8192)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_private_elements_in_fragments_are_removed_and_listed(tmp_path: Path, depth: int) -> None:
    """Zeros in place of fragments would break the file, and wrong lengths around them as well."""
    files = random_stack()
    content = files[3].content
    start, stop = (struct.pack("<HHL", 0xFFFE, number, 0) for number in (0xE000, 0xE0DD))
    noise = np.random.default_rng(5).bytes(2000)
    made = element(0x00290010, "LO", b"VENDOR") + b"".join(
        struct.pack("<HH2sHL", 0x0029, number, b"OB", 0, 0xFFFFFFFF)
        + (start + struct.pack("<HHL", 0xFFFE, 0xE000, len(noise)) + noise + stop)
        for number in (0x1010, 0x1011)
    )
    for _ in range(depth):
        made = struct.pack("<HHL", 0xFFFE, 0xE000, len(made)) + made
        made = element(0x00290010, "LO", b"VENDOR") + element(0x00291020, "SQ", made)
    at = content.rindex(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW"))
    folder = put(tmp_path / "in", files)
    (folder / f"{files[3].series}-{files[3].number:04d}.dcm").write_bytes(
        content[:at] + made + content[at:]
    )
    out, written, _ = deface(folder)
    removed = {
        0: {"(0029,1010)": "removed", "(0029,1011)": "removed"},
        1: {"(0029,1020)": "removed"},
        2: {"(0029,1020)[0].(0029,1020)": "removed"},
    }
    assert changes(written[3]) == removed[depth]
    assert np.array_equal(pydicom.dcmread(out / written[3].file).pixel_array, files[3].stored)


def test_signatures_that_no_longer_verify_are_listed(tmp_path: Path) -> None:
    """The bytes stay, the report says that they are void."""
    files = random_stack()
    folder = put(tmp_path / "in", files)
    dataset = files[0].dataset
    dataset.add_new(0x4FFE0001, "SQ", [pydicom.Dataset()])
    replaced(folder, files[0], dataset)
    _, written, _ = deface(folder)
    assert written[0].broken_signatures == ("(4FFE,0001)",)


@pytest.mark.parametrize(
    "syntax",
    ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"],
)
def test_annotated_instances_are_new_derived_objects(tmp_path: Path, syntax: str) -> None:
    """New UIDs, remapped references and codes; only the listed elements differ."""
    files = [replace(file, syntax=syntax) for file in random_stack()]
    folder = put(tmp_path / "in", files)
    dataset = files[1].dataset
    reference = pydicom.Dataset()
    reference.ReferencedSOPInstanceUID = files[0].dataset.SOPInstanceUID
    dataset.SourceImageSequence = [reference]
    code = pydicom.Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = (
        "113100",
        "DCM",
        "Basic Application Confidentiality Profile",
    )
    dataset.DeidentificationMethodCodeSequence = [code]
    replaced(folder, files[1], dataset)
    uids = new_uids(select(read_case(folder)).series, b"key")
    assert (
        uids
        == new_uids(select(read_case(folder)).series, b"key")
        != new_uids(select(read_case(folder)).series, b"other")
    )
    out, written, _ = deface(folder, Headers(policy=HeaderPolicy.ANNOTATE, uids=uids))
    was, now = pydicom.dcmread(folder / written[1].file), pydicom.dcmread(out / written[1].file)
    assert (
        now.SOPInstanceUID == now.file_meta.MediaStorageSOPInstanceUID == uids[was.SOPInstanceUID]
    )
    assert now.SeriesInstanceUID == uids[was.SeriesInstanceUID]
    assert (
        now.SourceImageSequence[0].ReferencedSOPInstanceUID == uids[files[0].dataset.SOPInstanceUID]
    )
    assert (now.StudyInstanceUID, now.FrameOfReferenceUID) == (
        was.StudyInstanceUID,
        was.FrameOfReferenceUID,
    )
    assert list(now.ImageType) == ["DERIVED", "PRIMARY", "AXIAL"]
    assert [item.CodeValue for item in now.DeidentificationMethodCodeSequence] == [
        "113100",
        "113102",
    ]
    assert now[0x00280302].value == "NO"
    assert "PatientIdentityRemoved" not in now
    differ = {str(e.tag).upper() for e in now if e.tag not in was or was[e.tag] != e}
    differ |= {str(e.tag).upper() for e in now.file_meta if was.file_meta[e.tag] != e}
    assert differ == {path.split("[")[0] for path in changes(written[1])}


@pytest.mark.parametrize(
    ("characters", "before"),
    [
        ("ISO_IR 192", "für 頭部"),
        ("ISO_IR 100", "für Köln"),
        (["", "ISO 2022 IR 87"], "頭部"),
        (None, "plain"),
    ],
)
def test_what_a_description_said_before_stays_readable(
    tmp_path: Path, characters: str | list[str] | None, before: str
) -> None:
    """Ours follows in the file's own characters."""
    folder = put(tmp_path / "in", random_stack())
    for file in random_stack():
        dataset = file.dataset
        if characters is not None:
            dataset.SpecificCharacterSet = characters
        dataset.DerivationDescription = before
        replaced(folder, file, dataset)
    out, _, _ = deface(folder, Headers(policy=HeaderPolicy.ANNOTATE, uids={}))
    for path in out.iterdir():
        assert pydicom.dcmread(path).DerivationDescription.startswith(
            f"{before}; Facial features removed"
        )


def test_odd_header_values_are_not_quoted_while_annotating(tmp_path: Path) -> None:
    """Warnings of pydicom quote values, which may name the patient; any warning fails the suite."""
    put(tmp_path / "in", random_stack())
    for file in (tmp_path / "in").iterdir():
        content = file.read_bytes()
        file.write_bytes(content.replace(b"ORIGINAL\\PRIMARY\\AXIAL", b"ORIGINAL\\Meier^A\\AXIAL"))
    out, _, _ = deface(tmp_path / "in", Headers(policy=HeaderPolicy.ANNOTATE, uids={}))
    assert all(b"DERIVED\\Meier^A\\AXIAL" in file.read_bytes() for file in out.iterdir())
