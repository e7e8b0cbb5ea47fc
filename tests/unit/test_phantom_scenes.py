"""Scanned phantoms differ as people and scanners do, and their truth stays true."""

from dataclasses import fields
from functools import cache

import numpy as np
import pytest

from ctdeface_worker.phantom.build import RANGES, Anatomy, draw
from ctdeface_worker.phantom.disturbance import Disturbance, disturbed
from ctdeface_worker.phantom.head import Phantom, model
from ctdeface_worker.phantom.room import Room, Sheet, furnished, strapped, with_metal, with_tube
from ctdeface_worker.phantom.scan import Scan, acquire, in_patient
from ctdeface_worker.phantom.scenes import scene

COARSE_MM = (4.0, 4.0, 4.0)
TISSUE_HU = -300.0
SEEDS = range(1, 41)


def chance() -> np.random.Generator:
    """A fresh generator of a fixed seed."""
    return np.random.default_rng(1)


@cache
def coarse_model(*, open_mm: float = 0.0) -> Phantom:
    """An average head without noise."""
    return model(Anatomy(open_mm=open_mm), spacing_mm=COARSE_MM, reach_mm=(-170.0, 146.0))


def middle_mm(
    head: Phantom, label: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Patient mm of the middle of a label."""
    return np.asarray(
        (head.volume.geometry.affine_lps @ np.append(np.argwhere(label).mean(axis=0), 1.0))[:3]
    )


def liters(head: Phantom, label: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> float:
    """Volume of a label."""
    return float(label.sum() * np.prod(head.volume.geometry.spacing_mm) / 1e6)


@pytest.mark.parametrize("name", [field.name for field in fields(Anatomy) if field.name in RANGES])
def test_training_never_sees_what_evaluation_draws(name: str) -> None:
    """Measures of usual heads lie within their range, those of unseen heads outside it."""
    low, high = RANGES[name]
    assert all(low <= getattr(draw(seed), name) <= high for seed in SEEDS)
    assert not any(low < getattr(draw(seed, unseen=True), name) < high for seed in SEEDS)


def test_unseen_heads_are_shaped_by_another_generator() -> None:
    """Usual heads are made of ellipsoids, unseen ones of rounder boxes with other fillets."""
    assert {(draw(seed).roundness, draw(seed).fillet) for seed in SEEDS} == {(2.0, 1.0)}
    assert all(draw(seed, unseen=True).roundness > 2.1 for seed in SEEDS)


def test_a_seed_gives_one_scene_and_another_seed_another() -> None:
    """The same seed gives the same voxels and labels."""
    first, again = scene(5), scene(5)
    assert np.array_equal(first.volume.hu, again.volume.hu)
    assert np.array_equal(first.face, again.face)
    assert first.volume.hu.shape != scene(6).volume.hu.shape


def test_faces_and_brains_never_share_a_voxel() -> None:
    """In scenes of both generators the labels are apart."""
    for number in (1, 2, 3):
        for made in (scene(number), scene(number, unseen=True)):
            assert not (made.face & made.brain).any()


def test_an_open_mouth_lowers_the_chin() -> None:
    """The face of an open mouth reaches lower, and there is air between the teeth."""
    closed, opened = coarse_model(), coarse_model(open_mm=20.0)
    lowest = [
        head.volume.geometry.slice_origins_lps[np.flatnonzero(head.face.any(axis=(1, 2)))[0], 2]
        for head in (closed, opened)
    ]
    assert lowest[0] - lowest[1] >= 8
    assert liters(opened, opened.volume.hu < -900) > liters(closed, closed.volume.hu < -900) + 0.005


def test_a_turned_scan_moves_the_face_as_far_as_the_head_turns() -> None:
    """The middle of the face goes where the rotation puts it; the brain keeps its size."""
    straight, turned = (
        Scan(spacing_mm=COARSE_MM),
        Scan(spacing_mm=COARSE_MM, turn_degrees=(25.0, 10.0, -5.0)),
    )
    before, after = (acquire(coarse_model(), scan, chance()) for scan in (straight, turned))
    x, y, z = middle_mm(before, before.brain)
    assert middle_mm(after, after.brain) == pytest.approx(in_patient((x, y, z), turned), abs=3)
    assert liters(after, after.brain) == pytest.approx(liters(before, before.brain), rel=0.05)


def test_a_mirrored_scan_exchanges_left_and_right() -> None:
    """What is labeled on the left of the head comes out on the right, as far from the middle."""
    whole = coarse_model()
    left = whole.brain & (np.arange(whole.brain.shape[2]) > whole.brain.shape[2] / 2)
    half = Phantom(seed=1, volume=whole.volume, face=whole.face, brain=left)
    straight, mirrored = (
        acquire(half, Scan(spacing_mm=COARSE_MM, mirrored=flag), chance()) for flag in (False, True)
    )
    assert middle_mm(straight, straight.brain)[0] > 20
    assert middle_mm(mirrored, mirrored.brain)[0] == pytest.approx(
        -middle_mm(straight, straight.brain)[0], abs=2
    )


@pytest.mark.parametrize("slice_mm", [1.5, 7.0])
def test_thick_and_thin_slices_hold_the_same_head(slice_mm: float) -> None:
    """Liters of brain and face do not depend on the slices."""
    made = acquire(coarse_model(), Scan(spacing_mm=(slice_mm, 4.0, 4.0)), chance())
    usual = acquire(coarse_model(), Scan(spacing_mm=COARSE_MM), chance())
    assert liters(made, made.brain) == pytest.approx(liters(usual, usual.brain), rel=0.05)
    assert liters(made, made.face) == pytest.approx(liters(usual, usual.face), rel=0.06)


def test_a_tilted_gantry_leans_the_slices() -> None:
    """The normal leans by the angle of the gantry, and the brain stays where it is."""
    made = acquire(coarse_model(), Scan(spacing_mm=COARSE_MM, tilt_degrees=20.0), chance())
    usual = acquire(coarse_model(), Scan(spacing_mm=COARSE_MM), chance())
    assert made.volume.geometry.normal_lps[2] == pytest.approx(np.cos(np.deg2rad(20)))
    assert middle_mm(made, made.brain) == pytest.approx(middle_mm(usual, usual.brain), abs=4)


def test_a_scan_above_the_brow_has_no_face() -> None:
    """The crown alone holds brain and no face."""
    made = acquire(
        coarse_model(), Scan(spacing_mm=COARSE_MM, low_mm=(-128.0, -136.0, 76.0)), chance()
    )
    assert made.brain.any()
    assert not made.face.any()


def test_the_face_holds_skin_and_leaves_bone() -> None:
    """Rays between brow and chin lose their first tissue; the face has hardly any bone."""
    made = acquire(coarse_model(), Scan(spacing_mm=COARSE_MM), chance())
    tissue = made.face & (made.volume.hu > TISSUE_HU)
    assert (made.volume.hu[tissue] > 200).mean() < 0.06
    z = made.volume.geometry.slice_origins_lps[:, 2]
    first = (made.volume.hu > TISSUE_HU) & (np.cumsum(made.volume.hu > TISSUE_HU, axis=1) == 1)
    window = ((z > -80) & (z < 50))[:, None, None] & (
        np.abs(np.arange(made.face.shape[2]) - made.face.shape[2] / 2) < 10
    )
    assert (made.face[first & window]).mean() > 0.97


def test_what_lies_around_a_head_fills_air_only() -> None:
    """Couch, holder, arms and wires leave every voxel of the patient alone."""
    head = acquire(
        coarse_model(),
        Scan(spacing_mm=COARSE_MM, low_mm=(-190.0, -136.0, -124.0), high_mm=(190.0, 140.0, 146.0)),
        chance(),
    )
    for couch in ("shell", "slab"):
        made = furnished(head, Room(couch=couch, holder=True, arms=True, wires=3), chance())
        patient = head.volume.hu > TISSUE_HU
        assert np.array_equal(made.volume.hu[patient], head.volume.hu[patient])
        assert liters(made, made.volume.hu > TISSUE_HU) > liters(head, patient) + 0.5


def test_masks_tubes_and_straps_stand_before_the_face() -> None:
    """They add tissue-like voxels inside the face's label, and none inside the patient."""
    head = coarse_model()
    patient = head.volume.hu > TISSUE_HU
    sheet = Sheet(gap_mm=1.0, thick_mm=5.0, low_mm=-120.0, high_mm=120.0, hu=50.0)
    for made in (with_tube(head, np.random.default_rng(2)), strapped(head, sheet)):
        assert np.array_equal(made.volume.hu[patient], head.volume.hu[patient])
        assert (made.volume.hu[head.face] > TISSUE_HU).sum() > (patient & head.face).sum()
    assert (with_metal(head).volume.hu >= 3000).any()


def test_noise_streaks_and_padding_are_where_they_are_asked_for() -> None:
    """Noise has its strength, streaks their height, padding its corners."""
    head = acquire(coarse_model(), Scan(spacing_mm=COARSE_MM), chance())
    quiet = disturbed(head, Disturbance(blur_mm=0.0, noise_hu=0.0), chance())
    noisy = disturbed(head, Disturbance(blur_mm=0.0, noise_hu=20.0, grain_mm=2.5), chance())
    assert (noisy.volume.hu - quiet.volume.hu)[head.brain].std() == pytest.approx(20, rel=0.15)
    streaky = disturbed(head, Disturbance(blur_mm=0.0, noise_hu=0.0, streak_hu=400.0), chance())
    changed = np.abs(streaky.volume.hu - quiet.volume.hu).max(axis=(1, 2))
    z = head.volume.geometry.slice_origins_lps[:, 2]
    assert changed[np.abs(z + 48) < 4].min() > 100
    assert changed[np.abs(z + 48) > 40].max() < 1
    padded = disturbed(head, Disturbance(round_field=True), chance())
    assert not padded.volume.valid[:, 0, 0].any()
    assert padded.volume.valid[head.brain].all()
