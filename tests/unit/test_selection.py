"""Which series are defaced, and what becomes of every other file."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import EnhancedCTImageStorage, SecondaryCaptureImageStorage

from ctdeface_shared.errors import MixedPatients, NotDicom
from ctdeface_worker.dicom.eligibility import ElementPolicy
from ctdeface_worker.dicom.reader import read_case
from ctdeface_worker.dicom.selection import Selection, select
from ctdeface_worker.imaging.domain import Fate
from tests.support.ct_files import CtFile, encoded, put, stack


def selected(folder: Path, files: list[CtFile]) -> Selection:
    """Select from these files."""
    return select(read_case(put(folder, files)))


def outcome(selection: Selection) -> set[tuple[Fate, str]]:
    """Fates and codes of all files that are not defaced."""
    return {(other.fate, other.code) for other in selection.others}


def with_elements(files: list[CtFile], **elements: Any) -> list[CtFile]:
    """Return the files with elements set."""
    return [replace(file, elements={**file.elements, **elements}) for file in files]


def test_slices_are_ordered_by_position_whatever_their_numbers_and_names(tmp_path: Path) -> None:
    """Instance numbers that run against the position change nothing."""
    files = [replace(file, number=10 - file.number) for file in stack(5)]
    (series,) = selected(tmp_path, files).series
    assert [instance.placement.position[2] for instance in series.instances] == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("uid", "fates"),
    [
        ("../../out/x", {(Fate.WITHHELD, "UnsupportedObject")}),
        ("/srv/out/x", {(Fate.WITHHELD, "UnsupportedObject")}),
        ("1.2\\1.3", {(Fate.WITHHELD, "UnsupportedObject")}),
        ("..", {(Fate.WITHHELD, "UnsupportedObject")}),
        ("1.2.ANON_7", set()),
    ],
)
def test_a_series_whose_uid_could_be_a_path_is_withheld(
    tmp_path: Path, uid: str, fates: set[tuple[Fate, str]]
) -> None:
    """Previews and NIfTI files are named by it; letters, which some systems write, do no harm."""
    usual = stack()[0].dataset.SeriesInstanceUID.encode()
    for file in put(tmp_path, stack()).iterdir():
        file.write_bytes(file.read_bytes().replace(usual, uid.encode().ljust(len(usual), b"\0")))
    selection = select(read_case(tmp_path))
    assert outcome(selection) == fates
    assert len(selection.series) == (not fates)


def test_every_volume_of_a_case_is_selected(tmp_path: Path) -> None:
    """Two series and a reformat in another orientation inside the second one make three volumes."""
    coronal = [
        CtFile(number=k + 20, series="2", position=(0, 2.0 * k, 0), orientation=(1, 0, 0, 0, 0, -1))
        for k in range(4)
    ]
    selection = selected(tmp_path, [*stack(5), *stack(4, series="2"), *coronal])
    assert [
        (series.name.rsplit(".", 1)[1], len(series.instances)) for series in selection.series
    ] == [("1", 5), ("2-1", 4), ("2-2", 4)]


@pytest.mark.parametrize(
    ("elements", "code"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "Localizer"),
        ({"ImageType": ["DERIVED", "SECONDARY", "VOLREN"]}, "DerivedImage"),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, "UnsupportedObject"),
        ({"SOPClassUID": EnhancedCTImageStorage, "NumberOfFrames": 9}, "UnsupportedObject"),
        ({"SOPClassUID": "1.2.3.4"}, "UnsupportedObject"),
        ({"BurnedInAnnotation": "YES"}, "BurnedInAnnotation"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "DerivedImage"),
        ({"ImagePositionPatient": None}, "NotAVolume"),
        ({"RescaleSlope": None}, "DerivedImage"),
    ],
)
def test_what_is_no_slice_of_a_volume_is_withheld_with_its_code(
    tmp_path: Path, elements: dict[str, Any], code: str
) -> None:
    """The allow-list decides; the volume beside it is defaced all the same."""
    selection = selected(tmp_path, [*stack(5), *with_elements(stack(4, series="2"), **elements)])
    assert len(selection.series) == 1
    assert outcome(selection) == {(Fate.WITHHELD, code)}


def test_fewer_than_three_slices_are_no_volume(tmp_path: Path) -> None:
    """They are withheld."""
    assert outcome(selected(tmp_path, stack(2))) == {(Fate.WITHHELD, "NotAVolume")}


def test_a_missing_slice_fails_the_series(tmp_path: Path) -> None:
    """A gap of twice the usual distance."""
    files = stack(6)
    del files[3]
    assert outcome(selected(tmp_path, files)) == {(Fate.FAILED, "MissingSlices")}


def mixed_thickness() -> list[CtFile]:
    """Six 4 mm slices and then six 7 mm slices."""
    thin = with_elements(stack(6, spacing=4.0), SliceThickness=4)
    thick = [
        CtFile(number=7 + k, position=(0, 0, 20 + 5.5 + 7.0 * k), elements={"SliceThickness": 7})
        for k in range(6)
    ]
    return [*thin, *thick]


def test_a_change_of_spacing_together_with_thickness_is_no_gap(tmp_path: Path) -> None:
    """Thin slices below, thick ones above, in one series."""
    (series,) = selected(tmp_path, mixed_thickness()).series
    assert len(series.instances) == 12


@pytest.mark.parametrize("lost", [1, 5, 6, 8])
def test_a_slice_missing_from_mixed_thickness_is_found(tmp_path: Path, lost: int) -> None:
    """Inside the blocks by the gap, at their border by the hole in the instance numbers."""
    files = mixed_thickness()
    del files[lost]
    assert outcome(selected(tmp_path, files)) == {(Fate.FAILED, "MissingSlices")}


def test_repeated_positions_with_other_pixels_are_withheld(tmp_path: Path) -> None:
    """A dynamic series is not supported yet."""
    again = [replace(file, number=file.number + 5, stored=file.stored + 1) for file in stack(5)]
    assert outcome(selected(tmp_path, [*stack(5), *again])) == {
        (Fate.WITHHELD, "RepeatedPositions")
    }


def test_repeated_positions_with_equal_pixels_are_both_defaced(tmp_path: Path) -> None:
    """The same slice sent twice under another UID."""
    (series,) = selected(tmp_path, [*stack(5), replace(stack(5)[2], number=9)]).series
    assert len(series.instances) == 6


def test_acquisitions_with_positions_of_their_own_are_separate_volumes(tmp_path: Path) -> None:
    """One series number for two interleaved stacks that make no sense as one."""
    first = with_elements(stack(6, spacing=3.0), AcquisitionNumber=1)
    second = [
        replace(
            file,
            number=file.number + 6,
            position=(0, 0, file.position[2] + 0.5),
            elements={"AcquisitionNumber": 2},
        )
        for file in first
    ]
    assert [len(series.instances) for series in selected(tmp_path, [*first, *second]).series] == [
        6,
        6,
    ]


def test_a_slice_missing_between_two_acquisitions_is_found(tmp_path: Path) -> None:
    """Acquisitions one above the other are one stack and are not split to hide the gap."""
    lower, upper = (
        with_elements(stack(9)[:4], AcquisitionNumber=1),
        with_elements(stack(9)[5:], AcquisitionNumber=2),
    )
    assert outcome(selected(tmp_path, [*lower, *upper])) == {(Fate.FAILED, "MissingSlices")}


def test_slices_that_lie_beside_each_other_fail(tmp_path: Path) -> None:
    """A jump sideways is not gantry tilt."""
    files = stack(6)
    files[3] = replace(files[3], position=(30.0, 0.0, 6.0))
    assert outcome(selected(tmp_path, files)) == {(Fate.FAILED, "InconsistentGeometry")}


def test_two_patients_in_one_case_are_refused(tmp_path: Path) -> None:
    """The series does not matter."""
    with pytest.raises(MixedPatients):
        selected(tmp_path, [*stack(5), *with_elements(stack(3, series="2"), PatientID="other")])


def test_the_same_number_from_another_issuer_is_another_patient(tmp_path: Path) -> None:
    """A patient is an ID with its issuer."""
    here = with_elements(stack(5), IssuerOfPatientID="here")
    with pytest.raises(MixedPatients):
        selected(
            tmp_path, [*here, *with_elements(stack(3, series="2"), IssuerOfPatientID="elsewhere")]
        )


@pytest.mark.parametrize(
    ("attribute", "here", "there"),
    [
        ("PatientBirthDate", "19500131", "19610203"),
        ("PatientSex", "F", "M"),
        ("PatientName", "Doe^Jane", "Doe^John"),
    ],
)
def test_the_same_id_with_another_attribute_is_another_patient(
    tmp_path: Path, attribute: str, here: str, there: str
) -> None:
    """The reason names the attribute, never its values."""
    mine = with_elements(stack(5), PatientID="ANONYMOUS", **{attribute: here})
    other = with_elements(stack(3, series="2"), PatientID="ANONYMOUS", **{attribute: there})
    with pytest.raises(MixedPatients, match=rf"different {attribute}\)") as caught:
        selected(tmp_path, [*mine, *other])
    assert not {here, there} & set(re.split(r"\W", str(caught.value)))


def test_a_slice_without_a_study_is_compared_as_well(tmp_path: Path) -> None:
    """It could be released, so another patient must not hide behind a missing UID."""
    other = with_elements(stack(3, series="2"), StudyInstanceUID=None, PatientID="other")
    with pytest.raises(MixedPatients):
        selected(tmp_path, [*stack(5), *other])


def test_other_spellings_of_a_patient_are_one_patient(tmp_path: Path) -> None:
    """A reconstruction in UTF-8, without carets and without a sex, beside Latin-1 slices."""
    slices = with_elements(
        stack(5), SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Eva^^", PatientSex="F"
    )
    more = with_elements(
        stack(3, series="2"), SpecificCharacterSet="ISO_IR 192", PatientName="MÜLLER^EVA"
    )
    assert len(selected(tmp_path, [*slices, *more]).series) == 2


def test_an_instance_that_names_no_issuer_fits_the_others(tmp_path: Path) -> None:
    """Workstations often leave it out in what they add to a study."""
    assert (
        len(
            selected(
                tmp_path,
                [*with_elements(stack(5), IssuerOfPatientID="here"), *stack(3, series="2")],
            ).series
        )
        == 2
    )


def test_a_folder_without_dicom_is_no_case(tmp_path: Path) -> None:
    """Only text: refused by its name."""
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(NotDicom):
        select(read_case(tmp_path))


def test_an_unreadable_file_fails(tmp_path: Path) -> None:
    """Its series cannot be known, so the case must not be released without a word."""
    put(tmp_path, stack(5))
    (tmp_path / "broken.dcm").write_bytes(stack(1)[0].content[:-10])
    assert outcome(select(read_case(tmp_path))) == {(Fate.FAILED, "UnreadableInstance")}


NOISE = np.random.default_rng(19).bytes(20_000)


def test_a_private_copy_of_the_slice_is_zeroed_in_the_whole_series(tmp_path: Path) -> None:
    """One instance with a large opaque element is enough."""
    files = stack(5)
    dataset = files[2].dataset
    dataset.private_block(0x0029, "VENDOR", create=True).add_new(0x10, "OB", NOISE)
    (series,) = select(read_case(_with(tmp_path, files, 2, dataset))).series
    assert {instance.blanked for instance in series.instances} == {frozenset({"(0029,1010)"})}


@pytest.mark.parametrize(
    "policy",
    [
        ElementPolicy(keep=frozenset({"(0029,1010)"})),
        ElementPolicy(blank=frozenset({"(0029,1010)"})),
    ],
)
def test_a_policy_can_name_such_an_element(tmp_path: Path, policy: ElementPolicy) -> None:
    """As harmless or as one to blank."""
    files = stack(5)
    dataset = files[2].dataset
    dataset.private_block(0x0029, "VENDOR", create=True).add_new(0x10, "OB", NOISE)
    assert len(select(read_case(_with(tmp_path, files, 2, dataset)), policy=policy).series) == 1


def test_an_overlay_in_unused_pixel_bits_withholds_the_series(tmp_path: Path) -> None:
    """Retired, but old archives hold it; it would survive in the pixels."""
    files = stack(5, bits_stored=12)
    dataset = files[0].dataset
    dataset.add_new(0x60000010, "US", 6)
    dataset.add_new(0x60000100, "US", 16)
    dataset.add_new(0x60000102, "US", 12)
    assert outcome(select(read_case(_with(tmp_path, files, 0, dataset)))) == {
        (Fate.WITHHELD, "UnsupportedObject")
    }


def _with(folder: Path, files: list[CtFile], number: int, dataset: Any) -> Path:
    """Write the files, one of them from another data set."""
    put(folder, files)
    file = files[number]
    (folder / f"{file.series}-{file.number:04d}.dcm").write_bytes(
        encoded(dataset, np.asarray(file.stored), file.syntax)
    )
    return folder
