"""The geometric segmenter finds faces, spares the brain, and reports missing faces."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest

from ctdeface_shared.errors import FaceNotFound, UntrustedGeometry
from ctdeface_shared.jobs.options import Profile
from ctdeface_worker.imaging.canonical import GRID_MM, mask_to_stored
from ctdeface_worker.imaging.domain import BoolArray, FaceMask, Geometry, HuArray, Volume
from ctdeface_worker.phantom import faceless, variants
from ctdeface_worker.phantom.dicom import Plane
from ctdeface_worker.phantom.head import SMALL_MM, Phantom, make_head
from ctdeface_worker.phantom.scenes import scene
from ctdeface_worker.segmentation.geometric import mask as masks
from ctdeface_worker.segmentation.geometric.head import HeadAnatomy, find_face, find_head
from ctdeface_worker.segmentation.geometric.segmenter import GeometricSegmenter
from ctdeface_worker.verification.gate import verify_volume
from tests.support.cases import small_head

FILL_HU = -1000.0
TISSUE_HU = -300.0
UPRIGHT_DICE, TURNED_DICE = 0.75, 0.55
"""Smallest Dice with the truth, which follows bone and hull, whereas a mask follows rays.

They differ most under the jaw, and more in turned heads.
"""


@cache
def tall_head() -> Phantom:
    """Return a head with enough neck below and air above to turn it."""
    return make_head(1, spacing_mm=SMALL_MM, bottom_mm=-230, top_mm=200)


@cache
def cut_head(*, bottom_mm: float = -124.0, top_mm: float = 146.0) -> Phantom:
    """Return a part of a head."""
    return make_head(1, spacing_mm=SMALL_MM, bottom_mm=bottom_mm, top_mm=top_mm)


def turned(*, yaw: float = 0, pitch: float = 0, roll: float = 0) -> Phantom:
    """Return a head that does not look straight ahead."""
    return variants.cropped(
        variants.turned(tall_head(), yaw=yaw, pitch=pitch, roll=roll), bottom_mm=-150, top_mm=160
    )


def tilted(degrees: float) -> Phantom:
    """Return a head scanned with a tilted gantry."""
    return variants.cropped(variants.tilted(tall_head(), degrees), bottom_mm=-125, top_mm=160)


def coarse(slice_mm: float) -> Phantom:
    """Return a head in thick slices."""
    return make_head(1, spacing_mm=(slice_mm, 1.5, 1.5))


UPRIGHT: dict[str, Callable[[], Phantom]] = {
    "plain": small_head,
    "top of the skull cut off": partial(cut_head, top_mm=60.0),
    "chin cut off": partial(cut_head, bottom_mm=-50.0),
    "shoulders in view": lambda: variants.cropped(tall_head(), bottom_mm=-230, top_mm=140),
    "arms raised": lambda: variants.with_arms(small_head()),
    "tube and oxygen mask": lambda: variants.with_tubes(small_head()),
    "metal in the teeth": lambda: variants.with_metal(small_head()),
    "gantry tilted": partial(tilted, 20),
    "slices of 5 mm": partial(coarse, 5),
    "slices of 7 mm": partial(coarse, 7),
}
TURNED: dict[str, Callable[[], Phantom]] = {
    "looks to the left": partial(turned, yaw=30),
    "chin lifted": partial(turned, pitch=30),
    "chin on the chest": partial(turned, pitch=-30),
    "leans to the right": partial(turned, roll=-30),
    "turned, bowed and leaning": partial(turned, yaw=20, pitch=-15, roll=10),
}


def segmented(
    volume: Volume, *, profile: Profile = Profile.SOFT_TISSUE, ears: bool = False
) -> FaceMask:
    """Return the mask of a volume."""
    return GeometricSegmenter().segment(volume, profile=profile, ears=ears)


def test_a_head_that_is_cut_on_three_sides_has_all_its_cavity_and_an_orbit() -> None:
    """At the border of a narrow field the cut counts as bone."""
    head = scene(112, unseen=True)
    found = find_head(head.volume)
    cavity = mask_to_stored(
        np.pad(found.tissue.cavity, around(found)), found.whole, head.volume.geometry
    )
    assert dice(cavity, head.brain) >= 0.85
    assert find_face(found).brow < found.skull.highest


def test_the_brow_is_found_far_below_the_top_of_a_cavity_of_which_little_is_known() -> None:
    """Open rings of bone leave only the upper part of the cavity."""
    found = find_head(small_head().volume)
    low = found.skull.highest - 5
    little = replace(found, skull=replace(found.skull, lowest=low))
    assert abs(find_face(little).brow - find_face(found).brow) <= 2


def test_in_coarse_voxels_skin_goes_deep_even_where_bone_is_near() -> None:
    """In coarse voxels bone looks like skin; in fine ones the outermost voxels are enough."""
    thick, thin = (find_head(coarse(slice_mm).volume) for slice_mm in (5.0, 3.0))
    assert thick.bare_depth_mm == thick.least_depth_mm == thin.least_depth_mm
    assert thin.bare_depth_mm < thin.least_depth_mm / 2
    wide = find_head(make_head(1, spacing_mm=(3.0, 4.5, 4.5)).volume)
    assert wide.bare_depth_mm == wide.least_depth_mm == pytest.approx(9.0)


def test_where_the_view_cuts_the_jaw_its_lowest_bone_does_not_raise_the_top_of_the_mask() -> None:
    """A chin in view determines the height of the face; the edge of the view does not."""
    found = find_face(find_head(cut_head(bottom_mm=-50.0).volume))
    assert found.chin is not None
    rows = masks.face_slices(found, 200, GRID_MM)
    assert rows.stop - 1 == int(found.brow + masks.ABOVE_BROW_MM / GRID_MM)


def around(found: HeadAnatomy) -> list[tuple[int, int]]:
    """Return the voxels of the whole grid before and behind the part around the body."""
    starts = [part.start or 0 for part in found.box]
    return [
        (start, whole - start - part)
        for start, whole, part in zip(
            starts, found.whole.hu.shape, found.canonical.hu.shape, strict=True
        )
    ]


def positions(volume: Volume) -> tuple[HuArray, HuArray, HuArray]:
    """LPS mm (z, y, x) of the voxels of an axial volume, broadcastable."""
    start, counts, steps = (
        volume.geometry.slice_origins_lps[0],
        volume.geometry.shape,
        volume.geometry.spacing_mm,
    )
    z, y, x = (
        (start[2 - a] + np.arange(counts[a]) * steps[a]).astype(np.float32) for a in range(3)
    )
    return z[:, None, None], y[None, :, None], x[None, None, :]


def dice(one: BoolArray, other: BoolArray) -> float:
    """Twice what is common over what both have."""
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def refusals(
    volume: Volume, face: BoolArray, *, profile: Profile = Profile.SOFT_TISSUE
) -> list[str]:
    """Deface a volume and return the failed checks."""
    hu = np.where(face, np.float32(FILL_HU), volume.hu)
    after = Volume(hu=hu, valid=volume.valid, geometry=volume.geometry)
    checks = verify_volume(volume, after, face, profile=profile)
    return [f"{one.name}: {one.message}" for one in checks if not one.passed]


def check(head: Phantom, least_dice: float) -> None:
    """Hold the mask of a head against its truth and the gate."""
    face = segmented(head.volume).face
    tissue = head.volume.hu > TISSUE_HU
    assert not (face & head.brain).any()
    assert dice(face & tissue, head.face & tissue) >= least_dice
    assert refusals(head.volume, face) == []


@pytest.mark.parametrize("name", UPRIGHT)
def test_the_face_is_found_however_the_head_is_scanned(name: str) -> None:
    """For cut, covered, tilted or coarse heads the gate passes and the brain is whole."""
    check(UPRIGHT[name](), UPRIGHT_DICE)


@pytest.mark.parametrize("name", TURNED)
def test_the_face_is_found_wherever_the_head_looks(name: str) -> None:
    """Turned, tipped or leaning by 30 degrees: the gate passes and the brain is whole."""
    check(TURNED[name](), TURNED_DICE)


@pytest.mark.parametrize(
    "dressed",
    [small_head, lambda: variants.with_tubes(small_head())],
    ids=["bare", "tube and mask"],
)
def test_everything_in_front_of_the_face_goes(dressed: Callable[[], Phantom]) -> None:
    """Everything between image border and skin is removed, except single voxels beside the nose."""
    head = dressed()
    face = segmented(head.volume).face
    z, _, x = positions(head.volume)
    window = ((z > -75) & (z < 45) & (np.abs(x) < 50))[:, 0]
    skin = (small_head().volume.hu > TISSUE_HU).argmax(axis=1)
    before = np.arange(face.shape[1])[None, :, None] <= skin[:, None, :]
    assert (face | ~before).all(axis=1)[window].mean() > 0.998


def test_arms_beside_the_head_stay() -> None:
    """The mask does not reach the arms."""
    plain, armed = small_head(), variants.with_arms(small_head())
    face = segmented(armed.volume).face
    room = (face.shape[2] - plain.volume.hu.shape[2]) // 2
    tissue = armed.volume.hu > TISSUE_HU
    head_alone = np.pad(plain.volume.hu > TISSUE_HU, ((0, 0), (0, 0), (room, room)))
    assert not (face & tissue & ~head_alone).any()


@pytest.mark.parametrize(
    "make", [small_head, partial(turned, yaw=20, pitch=-10)], ids=["straight", "turned"]
)
def test_the_bulky_profile_takes_orbits_and_facial_skeleton_too(
    make: Callable[[], Phantom],
) -> None:
    """Half as much again as the soft tissue, with much bone, and never brain."""
    head = make()
    thin, bulky = segmented(head.volume).face, segmented(head.volume, profile=Profile.BULKY).face
    assert not (thin & ~bulky).any()
    assert not (bulky & head.brain).any()
    tissue, bone = head.volume.hu > TISSUE_HU, head.volume.hu > 300
    assert (bulky & tissue).sum() > 1.5 * (thin & tissue).sum()
    assert (bulky & bone).sum() > 20 * (thin & bone).sum()
    assert refusals(head.volume, bulky, profile=Profile.BULKY) == []


def test_the_bulky_profile_takes_the_eyes() -> None:
    """Both globes, wholly."""
    head = small_head()
    place = positions(head.volume)
    globes = np.hypot(np.hypot(np.abs(place[2]) - 32, place[1] + 81), place[0] - 16) < 11
    assert globes.sum() > 500
    assert segmented(head.volume, profile=Profile.BULKY).face[globes].all()


def test_the_bulky_surface_is_smooth() -> None:
    """Below the brow neighboring rays end within 6 mm of each other, except for a pore."""
    head = small_head()
    bulky = segmented(head.volume, profile=Profile.BULKY).face
    z, _, x = positions(head.volume)
    ends = (~bulky).argmax(axis=1) * head.volume.geometry.spacing_mm[1]
    face = ends[(z[:, 0, 0] > -70) & (z[:, 0, 0] < 0)][:, np.abs(x[0, 0]) < 45]
    steps = np.concatenate([np.abs(np.diff(face, axis=axis)).ravel() for axis in (0, 1)])
    assert (steps <= 6).mean() > 0.99


def test_ears_go_only_when_asked_for() -> None:
    """At the height of the ears, only the mask with the option holds tissue beside the head."""
    head = small_head()
    z, y, x = positions(head.volume)
    behind = (np.abs(z - 5) < 30) & (np.abs(y - 18) < 12) & (np.abs(x) > 80)
    ears = (head.volume.hu > TISSUE_HU) & behind
    without, with_ears = segmented(head.volume).face, segmented(head.volume, ears=True).face
    assert ears.sum() > 100
    assert not (without & ears).any()
    assert (with_ears & ears).sum() > 0.95 * ears.sum()
    assert not (with_ears & head.brain).any()
    assert refusals(head.volume, with_ears) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_head(1, spacing_mm=SMALL_MM, bottom_mm=72).volume,
        lambda: make_head(1, spacing_mm=SMALL_MM, soft_tissue=False).volume,
        partial(faceless.torso, lungs=True),
        partial(faceless.torso, lungs=False),
        faceless.water_cylinder,
        faceless.empty_air,
    ],
    ids=["crown", "bare skull", "chest", "abdomen", "water", "air"],
)
def test_no_face_is_found_where_there_is_none(make: Callable[[], Volume]) -> None:
    """The reason is a sentence."""
    with pytest.raises(FaceNotFound, match=r"\w+ \w+ \w+"):
        segmented(make())


@pytest.mark.parametrize(
    "turn",
    [(-1, 1, -1), (-1, -1, 1), (1, 1, -1)],
    ids=["upside down", "back to front", "upside down and mirrored"],
)
@pytest.mark.parametrize(
    "cut", [{"bottom_mm": -50.0}, {"top_mm": 60.0}], ids=["chin cut off", "top cut off"]
)
def test_wrong_axes_are_told_by_the_anatomy(
    turn: tuple[int, int, int], cut: dict[str, float]
) -> None:
    """Nothing is removed at the wrong place, even if only a part of the head is in view."""
    volume = cut_head(**cut).volume
    affine = np.diag([*turn, 1.0]) @ volume.geometry.affine_lps
    flip = slice(None, None, int(np.prod(turn)))  # slices rise along the normal
    if np.prod(turn) < 0:
        affine[:3, 3] += affine[:3, 0] * (volume.hu.shape[0] - 1)
        affine[:3, 0] *= -1
    wrong = Volume(
        hu=volume.hu[flip],
        valid=volume.valid[flip],
        geometry=Geometry.from_affine(volume.geometry.shape, affine),
    )
    with pytest.raises(UntrustedGeometry, match="cannot be trusted"):
        segmented(wrong)


def test_the_same_volume_gives_the_same_mask() -> None:
    """Twice, to the voxel."""
    volume = small_head().volume
    assert np.array_equal(segmented(volume).face, segmented(volume).face)


@pytest.mark.parametrize("plane", [Plane.CORONAL, Plane.SAGITTAL])
def test_the_mask_does_not_depend_on_how_slices_are_stored(plane: Plane) -> None:
    """Coronal and sagittal storage give the mask of the axial one."""
    head = small_head()
    wanted = variants.stored_as(replace(head, face=segmented(head.volume).face.copy()), plane)
    assert dice(segmented(wanted.volume).face, wanted.face) >= 0.97
