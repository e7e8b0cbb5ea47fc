"""Makes ordered stacks of parallel slices out of the instances of a series (DESIGN section 8, rules 3 and 4)."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from ctdeface_shared.errors import (
    InconsistentGeometry,
    InvalidSeries,
    MissingSlices,
    RepeatedPositions,
)
from ctdeface_worker.dicom.layout import parse
from ctdeface_worker.imaging.domain import FloatArray, Instance, Placement

FEWEST_SLICES = 3
SAME_POSITION_MM = 0.02
_MISSING = 1.5
"""A gap of more than this many of its block's median gaps holds a missing slice."""
_WIDENED = 1.1
"""A gap this much wider than usual counts as the place of a hole in the instance numbers."""
_DRIFT_MM = 1.0
"""Sideways jumps of slices up to this are rounding (or up to one pixel)."""
_SAME_DIRECTION = 1e-3
"""Direction cosines that differ by less are the same."""


def stacks(instances: Iterable[Instance]) -> list[tuple[Instance, ...]]:
    """Split instances of one series where orientation, matrix, pixel spacing, frame of reference or position sets differ."""
    alike: list[list[Instance]] = []
    for instance in instances:
        home = next((stack for stack in alike if _parallel(stack[0], instance)), None)
        if home is None:
            alike.append([instance])
        else:
            home.append(instance)
    return [part for stack in alike for part in _acquisitions(stack)]


def arrange(instances: Sequence[Instance]) -> tuple[Instance, ...]:
    """Order the slices of one stack by position and prove that they make one volume.

    Raises:
        RepeatedPositions: different images lie at one position.
        MissingSlices: there is a gap.
        InconsistentGeometry: the slices do not lie on one line, or different images share a
            SOPInstanceUID.
    """
    ordered = sorted(
        instances, key=lambda instance: (position_mm(instance.placement), instance.file)
    )
    _check_identities(ordered)
    _check_repeats(ordered)
    single = [ordered[group[0]] for group in same_positions(ordered)]
    if len(single) >= FEWEST_SLICES:
        _check_gaps(single)
        _check_drift(single)
    return tuple(ordered)


def same_positions(ordered: Sequence[Instance]) -> list[list[int]]:
    """Group the numbers of ordered instances by slice: instances at one position are one slice."""
    slices: list[list[int]] = []
    for number, instance in enumerate(ordered):
        here = position_mm(instance.placement)
        if slices and here - position_mm(ordered[slices[-1][0]].placement) < SAME_POSITION_MM:
            slices[-1].append(number)
        else:
            slices.append([number])
    return slices


def position_mm(placement: Placement) -> float:
    """Position along the slice normal, the cross product of the directions along a row and down a column."""
    ax, ay, az, bx, by, bz = placement.orientation
    across = (ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx)
    return sum(p * a for p, a in zip(placement.position, across, strict=True)) / math.hypot(*across)


def normal(placement: Placement) -> FloatArray:
    """Unit vector across the slice, LPS."""
    across = np.cross(placement.orientation[:3], placement.orientation[3:])
    return np.asarray(across / np.linalg.norm(across), dtype=np.float64)


def _parallel(one: Instance, other: Instance) -> bool:
    a, b = one.placement, other.placement
    return (
        (one.pixels.rows, one.pixels.columns) == (other.pixels.rows, other.pixels.columns)
        and a.frame_of_reference_uid == b.frame_of_reference_uid
        and all(
            abs(p - q) < _SAME_DIRECTION for p, q in zip(a.orientation, b.orientation, strict=True)
        )
        and all(
            math.isclose(p, q, rel_tol=1e-3)
            for p, q in zip(a.pixel_spacing_mm, b.pixel_spacing_mm, strict=True)
        )
    )


def _acquisitions(stack: list[Instance]) -> list[tuple[Instance, ...]]:
    """Split a stack by acquisition number if only its acquisitions, each with positions of its own, make volumes."""
    whole = tuple(stack)
    numbers = sorted(
        {
            instance.acquisition_number
            for instance in stack
            if instance.acquisition_number is not None
        }
    )
    if (
        len(numbers) < 2
        or any(instance.acquisition_number is None for instance in stack)
        or _is_volume(whole)
    ):
        return [whole]
    parts = [
        tuple(instance for instance in stack if instance.acquisition_number == number)
        for number in numbers
    ]
    return parts if all(_is_volume(part) for part in parts) and _interleaved(parts) else [whole]


def _is_volume(instances: Sequence[Instance]) -> bool:
    try:
        ordered = arrange(instances)
    except InvalidSeries:
        return False
    return len(same_positions(ordered)) >= FEWEST_SLICES


def _interleaved(parts: Iterable[Sequence[Instance]]) -> bool:
    """Tell whether the parts reach through each other without sharing a position.

    Parts that share positions are a dynamic series; parts one above the other are one stack, whose
    gaps must be found.
    """
    positions = [sorted(position_mm(instance.placement) for instance in part) for part in parts]
    every = sorted(position for part in positions for position in part)
    ends = sorted((part[0], part[-1]) for part in positions)
    reaching = all(after[0] < before[1] for before, after in pairwise(ends))
    return reaching and all(b - a >= SAME_POSITION_MM for a, b in pairwise(every))


def _check_identities(ordered: Sequence[Instance]) -> None:
    first: dict[str, Instance] = {}
    for instance in ordered:
        twin = first.setdefault(instance.sop_instance_uid, instance)
        if twin.placement.position != instance.placement.position or not _same_pixels(
            twin, instance
        ):
            raise InconsistentGeometry("different images share one SOPInstanceUID")


def _check_repeats(ordered: Sequence[Instance]) -> None:
    for group in same_positions(ordered):
        for number in group[1:]:
            if not np.allclose(
                ordered[group[0]].placement.position,
                ordered[number].placement.position,
                rtol=0,
                atol=0.1,
            ):
                raise InconsistentGeometry("slices of one stack lie beside each other")
            if not _same_pixels(ordered[group[0]], ordered[number]):
                at = position_mm(ordered[number].placement)
                raise RepeatedPositions(
                    f"different images lie at one position ({at:.2f} mm): dynamic and multi-energy series are not supported yet"
                )


def _same_pixels(one: Instance, other: Instance) -> bool:
    return one is other or (one.pixels == other.pixels and _pixel_bytes(one) == _pixel_bytes(other))


def _pixel_bytes(instance: Instance) -> tuple[str, bytes]:
    layout = parse(instance.content)
    element = layout.pixel_data
    return layout.transfer_syntax_uid, layout.data[element.value : element.end] if element else b""


def _check_gaps(single: Sequence[Instance]) -> None:
    positions = np.array([position_mm(instance.placement) for instance in single])
    gaps = np.diff(positions)
    usual = _usual_gaps(single, gaps)
    numbers = [instance.instance_number for instance in single]
    steps = (
        np.abs(np.diff([n for n in numbers if n is not None]))
        if None not in numbers
        else np.ones(len(gaps))
    )
    hole = (steps > _MISSING * np.median(steps)) & (gaps > _WIDENED * usual.mean(axis=0))
    for i in np.flatnonzero((gaps > _MISSING * usual.max(axis=0)) | hole)[:1]:
        raise MissingSlices(
            f"slices are missing between {positions[i]:.2f} mm and {positions[i + 1]:.2f} mm along the slice normal, "
            f"where {usual[:, i].mean():.2f} mm from slice to slice is usual"
        )


def _usual_gaps(single: Sequence[Instance], gaps: FloatArray) -> FloatArray:
    """Median gap of the blocks on both sides of each gap, shape (2, gaps); a block is a run of equal slice thickness."""
    thickness = [instance.placement.slice_thickness_mm for instance in single]
    block = np.cumsum([0, *(_other_thickness(a, b) for a, b in pairwise(thickness))])
    within = block[1:] == block[:-1]
    overall = float(np.median(gaps))
    inside = {b: gaps[within & (block[1:] == b)] for b in set(block.tolist())}
    medians = {b: float(np.median(own)) if own.size else overall for b, own in inside.items()}
    return np.array(
        [[medians[b] for b in block[:-1].tolist()], [medians[b] for b in block[1:].tolist()]]
    )


def _other_thickness(one: float | None, other: float | None) -> bool:
    return (
        one is not None and other is not None and abs(one - other) > 0.1 * max(abs(one), abs(other))
    )


def _check_drift(single: Sequence[Instance]) -> None:
    """Slices may drift sideways evenly (gantry tilt), but not jump."""
    origins = np.array([instance.placement.position for instance in single])
    along = origins @ normal(single[0].placement)
    off = origins - np.outer(along, normal(single[0].placement))
    fit = np.polynomial.polynomial.polyfit(along, off, 1)
    residual = off - np.polynomial.polynomial.polyval(along, fit).T
    if np.abs(residual).max() > max(_DRIFT_MM, *single[0].placement.pixel_spacing_mm):
        raise InconsistentGeometry("slices of one stack lie beside each other")
