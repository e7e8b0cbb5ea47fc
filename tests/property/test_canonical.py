"""The canonical grid follows the headers in any order, tilt and spacing of slices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ctdeface_worker.imaging.canonical import (
    Canonical,
    mask_to_canonical,
    mask_to_stored,
    stored_index,
    to_canonical,
)
from ctdeface_worker.imaging.domain import FloatArray, Geometry, Volume

UPRIGHT = [
    np.array([[i == a for i in range(3)], [i == b for i in range(3)]], dtype=np.float64)
    * np.array([[s], [t]])
    for a, b in ((1, 0), (2, 0), (2, 1), (0, 1))
    for s in (1, -1)
    for t in (1, -1)
]
"""Row and column directions: axial, coronal, sagittal and on the side, with all flips."""
BALL_MM = 18.0


def stack(
    directions: FloatArray, spacing_mm: tuple[float, float], gaps_mm: list[float], drift: float
) -> Geometry:
    """Return slices with the given gaps along the normal.

    `drift` is the tangent of the gantry tilt.
    """
    row, column = directions
    normal = np.cross(column, row)
    along = np.concatenate([[0.0], np.cumsum(gaps_mm)])
    rows, columns = (round(64 / spacing) for spacing in spacing_mm)
    corner = -32 * row - 32 * column - along.mean() * normal
    return Geometry(
        shape=(along.size, rows, columns),
        row_step_lps=row * spacing_mm[0],
        column_step_lps=column * spacing_mm[1],
        slice_origins_lps=corner + along[:, None] * (normal + drift * row)[None],
    )


def positions(geometry: Geometry) -> FloatArray:
    """LPS mm of every voxel."""
    _, rows, columns = (np.arange(n, dtype=np.float64) for n in geometry.shape)
    in_plane = (
        rows[:, None, None] * geometry.row_step_lps
        + columns[None, :, None] * geometry.column_step_lps
    )
    return np.asarray(geometry.slice_origins_lps[:, None, None] + in_plane[None])


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Draw upright, turned, tilted and unevenly spaced stacks."""
    directions = draw(st.sampled_from(UPRIGHT))
    if draw(st.booleans()):
        turn = Rotation.from_euler(
            "xyz", [draw(st.floats(-40, 40)) for _ in range(3)], degrees=True
        )
        directions = np.asarray(turn.apply(directions))
    spacing = (draw(st.sampled_from([0.7, 1.0, 2.3])), draw(st.sampled_from([0.7, 1.0, 2.3])))
    step, extra = draw(st.sampled_from([1.0, 2.5, 5.0])), draw(st.sampled_from([0.0, 1.3]))
    count = round(60 / step)
    gaps = [step + extra * (k > count // 2) for k in range(count)]
    return stack(directions, spacing, gaps, draw(st.sampled_from([0.0, 0.0, 0.3])))


@settings(max_examples=40)
@given(geometry=geometries())
def test_values_lie_where_the_headers_say(geometry: Geometry) -> None:
    """A linear field has the same values on the grid, inside the field of view."""
    rise = np.array([3.0, -5.0, 7.0])
    hu = (positions(geometry) @ rise).astype(np.float32)
    canonical = to_canonical(Volume(hu=hu, valid=np.ones(hu.shape, dtype=bool), geometry=geometry))
    z, y, x = (np.arange(n) for n in canonical.hu.shape)
    points = (
        np.stack(np.meshgrid(z, y, x, indexing="ij")[::-1], axis=-1) * canonical.spacing_mm
        + canonical.origin_lps
    )
    index = stored_index(geometry, points)
    inside = np.logical_and.reduce(
        [(index[..., a] >= 2) & (index[..., a] <= geometry.shape[a] - 3) for a in range(3)]
    )
    assert inside.sum() > 1000
    assert canonical.valid[inside].all()
    assert np.abs(canonical.hu[inside] - (points @ rise)[inside]).max() < 0.2


@settings(max_examples=20)
@given(geometry=geometries(), padding=st.sampled_from([-3024.0, -2000.0, 0.0, 6000.0]))
def test_what_padding_holds_shines_into_no_measured_voxel(
    geometry: Geometry, padding: float
) -> None:
    """Padding values are far from tissue; they must not blend into the border."""
    valid = positions(geometry)[..., 0] < 10
    usual, other = (
        Volume(hu=np.where(valid, 40.0, value).astype(np.float32), valid=valid, geometry=geometry)
        for value in (-1024.0, padding)
    )
    assert (to_canonical(usual).hu == to_canonical(other).hu).all()


@settings(max_examples=20)
@given(geometry=geometries())
def test_no_mask_loses_its_rim_to_padding(geometry: Geometry) -> None:
    """A mask of everything is everything on the grid, up to the border of what was measured."""
    valid = positions(geometry)[..., 0] < 10
    canonical = to_canonical(
        Volume(hu=np.zeros(geometry.shape, dtype=np.float32), valid=valid, geometry=geometry)
    )
    inside = mask_to_canonical(
        np.ones(geometry.shape, dtype=bool), geometry, spacing_mm=canonical.spacing_mm
    )
    assert inside[canonical.valid].all()


@settings(max_examples=40)
@given(geometry=geometries())
def test_indices_and_positions_are_inverse(geometry: Geometry) -> None:
    """The index of a voxel's position is the voxel."""
    index = stored_index(geometry, positions(geometry))
    assert np.abs(np.moveaxis(index, -1, 0) - np.indices(geometry.shape)).max() < 1e-6


@settings(max_examples=40)
@given(geometry=geometries())
def test_a_mask_comes_back_to_its_place(geometry: Geometry) -> None:
    """A ball stays the same ball; only voxels at its surface may differ."""
    edge = np.arange(-40.0, 40.0, 2.0)
    grid = np.stack(np.meshgrid(edge, edge, edge, indexing="ij"), axis=-1)
    canonical = Canonical(
        hu=np.zeros(grid.shape[:3], dtype=np.float32),
        valid=np.ones(grid.shape[:3], bool),
        origin_lps=np.full(3, edge[0]),
        spacing_mm=2.0,
    )
    mask = mask_to_stored(np.linalg.norm(grid, axis=-1) < BALL_MM, canonical, geometry)
    away = np.linalg.norm(positions(geometry), axis=-1)
    assert mask[away < BALL_MM - 2].all()
    assert not mask[away > BALL_MM + 2].any()
    assert mask.any()


@pytest.mark.parametrize("directions", UPRIGHT)
def test_upright_and_oblique_ways_back_agree(directions: FloatArray) -> None:
    """Two code paths give the same mask but for voxels at the very edge."""
    mask = np.random.default_rng(1).random((9, 9, 9)).repeat(4, 0).repeat(4, 1).repeat(4, 2) > 0.5
    canonical = Canonical(
        hu=np.zeros(mask.shape, dtype=np.float32),
        valid=np.ones(mask.shape, bool),
        origin_lps=np.full(3, -37.1),
        spacing_mm=2.0,
    )
    turned = np.asarray(
        Rotation.from_euler("xyz", [0.02, 0.02, 0.02], degrees=True).apply(directions)
    )
    one, other = (
        mask_to_stored(mask, canonical, stack(way, (1.0, 1.0), [1.5] * 40, 0.0))
        for way in (directions, turned)
    )
    assert (one == other).mean() > 0.995


def test_outside_the_field_of_view_is_not_valid() -> None:
    """Around a rotated stack and on padding, voxels are invalid and have a fixed value."""
    turned = np.asarray(Rotation.from_euler("z", 45, degrees=True).apply(UPRIGHT[0]))
    geometry = stack(turned, (1.0, 1.0), [2.0] * 20, 0.0)
    valid = np.ones(geometry.shape, dtype=bool)
    valid[:, 20:30, 20:30] = False
    canonical = to_canonical(
        Volume(hu=np.full(geometry.shape, 40.0, dtype=np.float32), valid=valid, geometry=geometry)
    )
    assert not canonical.valid[:, 0, 0].any()
    assert canonical.hu[~canonical.valid].tolist() == [-1024.0] * int((~canonical.valid).sum())
    assert (
        np.abs(canonical.hu[canonical.valid] - 40) < 1e-3
    ).mean() > 0.9  # beside padding the two mix
    around = canonical.valid.shape[1] // 4
    missing = (~canonical.valid[:, around:-around, around:-around]).sum(
        axis=(1, 2)
    ) * canonical.spacing_mm**2
    assert np.allclose(missing, 10 * 10, rtol=0.25)
