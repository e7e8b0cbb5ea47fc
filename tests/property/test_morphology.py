"""Morphology by runs gives the same as scipy's, section by section."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from ctdeface_worker.imaging import morphology
from ctdeface_worker.imaging.domain import BoolArray

VOLUMES = arrays.arrays(
    np.bool_, st.tuples(st.integers(1, 4), st.integers(3, 14), st.integers(3, 14))
)


def disk(radius: int) -> BoolArray:
    """Return the disk of a radius."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(x * x + y * y <= radius * radius)


@given(mask=VOLUMES, radius=st.integers(1, 7))
def test_dilation_and_opening_are_scipys(mask: BoolArray, radius: int) -> None:
    """Beyond the border nothing is set."""
    for ours, theirs in (
        (morphology.dilated, ndimage.binary_dilation),
        (morphology.opened, ndimage.binary_opening),
    ):
        assert np.array_equal(
            ours(mask, radius), np.stack([theirs(section, disk(radius)) for section in mask])
        )


@given(mask=VOLUMES, radius=st.integers(1, 7))
def test_closing_does_not_wear_off_at_the_border(mask: BoolArray, radius: int) -> None:
    """The same as scipy's with room around."""
    room = 2 * radius
    wide = [ndimage.binary_closing(np.pad(section, room), disk(radius)) for section in mask]
    assert np.array_equal(
        morphology.closed(mask, radius), np.stack(wide)[:, room:-room, room:-room]
    )


@given(mask=VOLUMES)
def test_holes_are_what_scipy_fills(mask: BoolArray) -> None:
    """Enclosed by the four-neighborhood's rules."""
    assert np.array_equal(
        morphology.holes(mask),
        np.stack([ndimage.binary_fill_holes(section) & ~section for section in mask]),
    )


@given(mask=VOLUMES, steps=st.integers(1, 4))
def test_growing_by_steps_is_scipys(mask: BoolArray, steps: int) -> None:
    """In three dimensions, to six neighbors."""
    assert np.array_equal(
        morphology.grown(mask, steps), ndimage.binary_dilation(mask, iterations=steps)
    )


@pytest.mark.parametrize("radius", [0, 1])
def test_a_radius_below_one_voxel_changes_nothing(radius: int) -> None:
    """A disk of radius 0 is one voxel; one of radius 1 a cross."""
    mask = np.zeros((1, 5, 5), dtype=bool)
    mask[0, 2, 2] = True
    assert morphology.dilated(mask, radius).sum() == 1 + 4 * radius


def test_a_column_is_the_largest_piece_and_what_lies_above_or_below_it_near_enough() -> None:
    """Beside it, too far or too small does not count."""
    pieces = np.zeros((12, 6, 12), dtype=bool)
    pieces[6:9, :, :5] = True
    pieces[3:5, 1:4, 1:4] = True  # above, one section between them
    pieces[0, 1:4, 1:4] = True  # too far
    pieces[10, 0, 0] = True  # too small
    pieces[6:9, :, 7:10] = True  # beside
    kept = morphology.column(pieces, smallest=5, widest_gap=3)
    assert set(np.flatnonzero(kept.any(axis=(1, 2)))) == {3, 4, 6, 7, 8}
    assert not kept[:, :, 7:].any()
    assert not morphology.column(np.zeros_like(pieces), smallest=1, widest_gap=9).any()


@given(mask=VOLUMES)
def test_the_largest_component_is_connected_and_none_is_larger(mask: BoolArray) -> None:
    """Components are connected by faces; an empty mask stays empty."""
    largest = morphology.largest_component(mask)
    labels, count = ndimage.label(mask)
    assert ndimage.label(largest)[1] == min(count, 1)
    assert not (largest & ~mask).any()
    assert largest.sum() == max(np.bincount(labels.ravel())[1:], default=0)
