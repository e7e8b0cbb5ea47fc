"""Synthetic heads look and read like heads."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from scipy import ndimage

from ctdeface_worker.phantom import faceless, variants
from ctdeface_worker.phantom.dicom import Mistake, Plane, Variation, reordered, write_case
from ctdeface_worker.phantom.head import SMALL_MM, Phantom, make_head
from tests.support.cases import small_head, write_small_cases

AIR_TO_SKIN_HU, BONE_HU = -400.0, 300.0


def liters(head: Phantom, label: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> float:
    """Volume of a label."""
    return float(label.sum() * np.prod(head.volume.geometry.spacing_mm) / 1e6)


def depth_mm(head: Phantom, x: float, z: float, threshold: float) -> float:
    """LPS y of the first voxel above a threshold, looked at from the front at (x, z)."""
    geometry = head.volume.geometry
    k, _, i = (
        np.linalg.solve(geometry.affine_lps, [x, geometry.slice_origins_lps[0, 1], z, 1])[:3]
        .round()
        .astype(int)
    )
    ray = head.volume.hu[k, :, i] > threshold
    return (
        float(geometry.slice_origins_lps[0, 1] + ray.argmax() * geometry.spacing_mm[1])
        if ray.any()
        else np.inf
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_brain_and_face_have_the_size_of_an_adults(seed: int) -> None:
    """The brain has 1.2 to 1.7 liters, the face 0.2 to 0.7 liters of tissue."""
    head = small_head(seed)
    assert 1.2 < liters(head, head.brain) < 1.7
    assert 25 < np.median(head.volume.hu[head.brain]) < 45
    assert not (head.face & head.brain).any()
    assert 0.2 < liters(head, head.face & (head.volume.hu > AIR_TO_SKIN_HU)) < 0.7


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_face_is_all_skin_in_front(seed: int) -> None:
    """From the front, the skin and the air before it are face, except for nostrils."""
    head = small_head(seed)
    geometry = head.volume.geometry
    z, x = (
        geometry.slice_origins_lps[:, 2],
        geometry.slice_origins_lps[0, 0] + np.arange(geometry.shape[2]) * geometry.spacing_mm[2],
    )
    first = (head.volume.hu > AIR_TO_SKIN_HU).argmax(axis=1)
    up_to_skin = np.arange(geometry.shape[1])[None, :, None] <= first[:, None, :]
    missed = (up_to_skin & ~head.face).any(axis=1)
    nostrils = (abs(z + 22) < 8)[:, None] & (abs(x) < 12)
    window = ((z > -80) & (z < 55))[:, None] & (abs(x) < 50)
    assert (first[window] > 0).all()
    assert not (missed & window & ~nostrils).any()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_nose_stands_out_and_the_orbits_lie_deep(seed: int) -> None:
    """The nose protrudes by 15 to 35 mm; no bone follows the lids for 16 mm."""
    head = small_head(seed)
    skin = {
        (x, z): depth_mm(head, x, z, AIR_TO_SKIN_HU)
        for x in range(-60, 61, 4)
        for z in range(-100, 100, 4)
    }
    x, z = min(skin, key=lambda place: skin[place])
    assert abs(x) <= 8
    assert -30 < z < 10
    for side in (-24, 24):
        assert 15 <= depth_mm(head, side, z, AIR_TO_SKIN_HU) - skin[x, z] <= 35
    for z in range(6, 27, 4):
        assert depth_mm(head, 32, z, BONE_HU) - depth_mm(head, 32, z, AIR_TO_SKIN_HU) > 16
    assert 4 <= depth_mm(head, 0, 58, BONE_HU) - depth_mm(head, 0, 58, AIR_TO_SKIN_HU) <= 10


def test_the_skull_closes_around_the_brain() -> None:
    """Eroded a little, what is inside the skull is one piece that does not reach the skin."""
    head = small_head()
    inside, _ = ndimage.label(ndimage.binary_erosion(head.volume.hu < BONE_HU, iterations=3))
    pieces = np.unique(inside[ndimage.binary_erosion(head.brain, iterations=4)])
    assert len(pieces) == 1
    assert inside[0, 0, 0] != pieces[0]


def test_the_couch_does_not_touch_the_head() -> None:
    """Skin and couch are two pieces."""
    pieces, count = ndimage.label(small_head().volume.hu > AIR_TO_SKIN_HU)
    sizes = np.sort(np.bincount(pieces.ravel())[1:])
    assert count >= 2
    assert sizes[-2] > 1000


def test_a_seed_gives_one_head_and_another_seed_another() -> None:
    """Same seed, same voxels."""
    again = make_head(1, spacing_mm=SMALL_MM)
    assert np.array_equal(again.volume.hu, small_head().volume.hu)
    assert not np.array_equal(again.brain, small_head(2).brain)


def test_crowns_and_bare_skulls_have_no_face() -> None:
    """A crown has brain but no face; a bare skull has neither soft tissue nor face."""
    crown = make_head(1, spacing_mm=SMALL_MM, bottom_mm=72)
    assert crown.brain.any()
    assert not crown.face.any()
    bare = make_head(1, spacing_mm=SMALL_MM, soft_tissue=False)
    assert not bare.face.any()
    assert bare.volume.hu[bare.brain].mean() < -900


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        RLELossless,
        JPEGLSLossless,
        JPEG2000Lossless,
    ],
)
def test_files_hold_the_voxels_in_every_syntax(syntax: str, tmp_path: Path) -> None:
    """What pydicom reads back is the volume, rounded."""
    head = make_head(1, spacing_mm=SMALL_MM, top_mm=3, bottom_mm=-6)
    for k, file in enumerate(write_case(head, tmp_path, Variation(transfer_syntax=syntax))):
        dataset = pydicom.dcmread(file)
        assert dataset.file_meta.TransferSyntaxUID == syntax
        assert np.abs(dataset.pixel_array - 1024.0 - head.volume.hu[k]).max() <= 0.501
        assert dataset.ImagePositionPatient[2] == pytest.approx(
            head.volume.geometry.slice_origins_lps[k, 2]
        )


@pytest.mark.parametrize("plane", list(Plane))
def test_each_plane_puts_every_voxel_in_its_place(plane: Plane, tmp_path: Path) -> None:
    """Seen through the headers, a pixel and its label lie where they are in the volume."""
    head = small_head()
    labels = reordered(head.face, plane)
    geometry = head.volume.geometry
    for k, file in enumerate(write_case(head, tmp_path, Variation(plane=plane))[::20]):
        dataset = pydicom.dcmread(file)
        assert labels[k * 20].shape == dataset.pixel_array.shape
        row, column = dataset.Rows // 3, dataset.Columns // 4
        across, down = np.array(dataset.ImageOrientationPatient).reshape(2, 3)
        point = (
            np.array(dataset.ImagePositionPatient)
            + down * row * dataset.PixelSpacing[0]
            + across * column * dataset.PixelSpacing[1]
        )
        index = np.linalg.solve(geometry.affine_lps, [*point, 1])[:3].round().astype(int)
        assert (
            abs(dataset.pixel_array[row, column] - 1024.0 - head.volume.hu[tuple(index)]) <= 0.501
        )
        assert labels[k * 20][row, column] == head.face[tuple(index)]


@pytest.mark.parametrize(
    ("mistake", "orientation"),
    [
        (Mistake.UPSIDE_DOWN, [-1, 0, 0, 0, 1, 0]),
        (Mistake.BACK_TO_FRONT, [-1, 0, 0, 0, -1, 0]),
        (Mistake.SWAPPED, [0, 1, 0, 1, 0, 0]),
    ],
)
def test_a_mistake_changes_headers_only(
    mistake: Mistake, orientation: list[float], tmp_path: Path
) -> None:
    """The pixels stay, the orientation is wrong."""
    head = make_head(1, spacing_mm=SMALL_MM, top_mm=3, bottom_mm=-6)
    right, wrong = (
        write_case(head, tmp_path / "right"),
        write_case(head, tmp_path / "wrong", Variation(mistake=mistake)),
    )
    for one, other in zip(right, wrong, strict=True):
        changed = pydicom.dcmread(other)
        assert changed.ImageOrientationPatient == orientation
        assert changed.PixelData == pydicom.dcmread(one).PixelData


def test_padding_lies_outside_the_round_field_of_view_only(tmp_path: Path) -> None:
    """The padding value stands in the corners and nowhere in the middle."""
    head = make_head(1, spacing_mm=SMALL_MM, top_mm=3, bottom_mm=-6)
    for file in write_case(head, tmp_path, Variation(padding_circle=True)):
        dataset = pydicom.dcmread(file)
        padded = dataset.pixel_array == dataset.PixelPaddingValue
        assert padded[0, 0]
        assert 0.15 < padded.mean() < 0.25
        assert not padded[:, padded.shape[1] // 2].any()


def test_cases_differ_in_patient_and_uids(tmp_path: Path) -> None:
    """Every case has a patient, a study, a series and instances of its own."""
    write_small_cases(tmp_path, 2)
    one, other = (
        [pydicom.dcmread(file, stop_before_pixels=True) for file in sorted(case.iterdir())]
        for case in sorted(tmp_path.iterdir())
    )
    for keyword in (
        "PatientID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "FrameOfReferenceUID",
        "SOPInstanceUID",
    ):
        assert not {dataset[keyword].value for dataset in one} & {
            dataset[keyword].value for dataset in other
        }
    assert len({dataset.SOPInstanceUID for dataset in one}) == len(one)


def test_a_turned_head_keeps_its_size_and_looks_elsewhere() -> None:
    """Brain and face turn with the voxels: the same liters, the nose aside."""
    straight = small_head()
    aside = variants.turned(straight, yaw=30)
    assert liters(aside, aside.brain) == pytest.approx(liters(straight, straight.brain), rel=0.02)
    assert 25 < np.median(aside.volume.hu[aside.brain]) < 45
    columns = [
        np.nonzero(head.face & (head.volume.hu > AIR_TO_SKIN_HU))[2].mean()
        for head in (straight, aside)
    ]
    assert columns[1] - columns[0] > 15  # columns rise to the patient's left


@pytest.mark.parametrize("plane", [Plane.CORONAL, Plane.SAGITTAL])
def test_a_head_stored_otherwise_lies_the_same(plane: Plane) -> None:
    """The middle of the brain stays where it is, and slices rise along their normal."""
    head = small_head()
    other = variants.stored_as(head, plane)
    places = [
        one.volume.geometry.affine_lps @ [*np.argwhere(one.brain).mean(axis=0), 1]
        for one in (head, other)
    ]
    assert places[0] == pytest.approx(places[1], abs=1e-6)
    assert (np.diff(other.volume.geometry.slice_positions_mm) > 0).all()


def test_a_tilted_head_lies_the_same() -> None:
    """Slices are tilted by 20 degrees; the middle of the brain stays."""
    head, leaning = small_head(), variants.tilted(small_head(), 20)
    places = [
        one.volume.geometry.affine_lps @ [*np.argwhere(one.brain).mean(axis=0), 1]
        for one in (head, leaning)
    ]
    assert places[0] == pytest.approx(places[1], abs=3)
    assert abs(leaning.volume.geometry.normal_lps[2]) == pytest.approx(np.cos(np.deg2rad(20)))


def test_arms_plastic_and_metal_are_added_to_the_head() -> None:
    """Arms are beside the head, plastic in front, metal in the mouth; the brain stays."""
    head = small_head()
    arms, tubes, metal = (
        variants.with_arms(head),
        variants.with_tubes(head),
        variants.with_metal(head),
    )
    assert liters(arms, arms.volume.hu > 0) > liters(head, head.volume.hu > 0) + 1
    assert (tubes.volume.hu[head.face] > 100).sum() > (head.volume.hu[head.face] > 100).sum() + 200
    assert (metal.volume.hu > 3000).sum() > 20
    assert np.array_equal(tubes.volume.hu[head.brain], head.volume.hu[head.brain])


def test_what_has_no_face_is_no_head_either() -> None:
    """Torso, water and air contain no brain; chest and abdomen contain bone and air."""
    chest, water, air = faceless.torso(lungs=True), faceless.water_cylinder(), faceless.empty_air()
    assert ((chest.hu > BONE_HU).mean(), (chest.hu < -700).mean()) > (0.01, 0.3)
    assert not (water.hu > BONE_HU).any()
    assert air.hu.max() < -900
