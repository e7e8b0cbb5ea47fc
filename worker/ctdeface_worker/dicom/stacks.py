"""Order instances into stacks of parallel slices.

Slices are ordered by position along the slice normal (ImagePositionPatient and
ImageOrientationPatient, DICOM PS3.3 C.7.6.2.1.1), never by InstanceNumber or file name.
"""

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
"""Fewer parallel slices are not a volume."""
SAME_POSITION_MM = 0.02
"""Slices closer than this along the normal have the same position."""
LARGEST_GAP = 1.5
"""A gap wider than this many median gaps of its block lacks a slice."""
_WIDENED = 1.1
"""A gap this much wider than the median may be the place of a missing instance number."""
_LARGEST_JUMP_MM = 1.0
"""Sideways jumps of slices up to this, or up to one pixel, are rounding."""
_SAME_DIRECTION = 1e-3
"""Direction cosines that differ by less are equal."""


def split_into_stacks(instances: Iterable[Instance]) -> list[tuple[Instance, ...]]:
    """Split the instances of one series into parallel stacks.

    A stack shares orientation, matrix, pixel spacing and frame of reference. A stack of several
    acquisitions is split by AcquisitionNumber if only the parts are volumes.
    """
    parallel: list[list[Instance]] = []
    for instance in instances:
        stack = next((stack for stack in parallel if _are_parallel(stack[0], instance)), None)
        if stack is None:
            parallel.append([instance])
        else:
            stack.append(instance)
    return [part for stack in parallel for part in _split_by_acquisition(stack)]


def order_slices(instances: Sequence[Instance]) -> tuple[Instance, ...]:
    """Order the slices of a stack and check them.

    Raises:
        RepeatedPositions: different images have the same position.
        MissingSlices: there is a gap.
        InconsistentGeometry: the slices are not on one line, or different images share a
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
        _check_alignment(single)
    return tuple(ordered)


def same_positions(ordered: Sequence[Instance]) -> list[list[int]]:
    """Group the indices of ordered instances by slice position."""
    slices: list[list[int]] = []
    for number, instance in enumerate(ordered):
        here = position_mm(instance.placement)
        if slices and here - position_mm(ordered[slices[-1][0]].placement) < SAME_POSITION_MM:
            slices[-1].append(number)
        else:
            slices.append([number])
    return slices


def position_mm(placement: Placement) -> float:
    """Return the position along the slice normal in mm.

    The normal is the cross product of the directions along a row and down a column.
    """
    ax, ay, az, bx, by, bz = placement.orientation
    across = (ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx)
    return sum(p * a for p, a in zip(placement.position, across, strict=True)) / math.hypot(*across)


def normal(placement: Placement) -> FloatArray:
    """Return the unit vector across the slice, LPS."""
    across = np.cross(placement.orientation[:3], placement.orientation[3:])
    return np.asarray(across / np.linalg.norm(across), dtype=np.float64)


def _are_parallel(one: Instance, other: Instance) -> bool:
    a, b = one.placement, other.placement
    same_matrix = (one.pixels.rows, one.pixels.columns) == (other.pixels.rows, other.pixels.columns)
    same_directions = all(
        abs(p - q) < _SAME_DIRECTION for p, q in zip(a.orientation, b.orientation, strict=True)
    )
    same_spacing = all(
        math.isclose(p, q, rel_tol=1e-3)
        for p, q in zip(a.pixel_spacing_mm, b.pixel_spacing_mm, strict=True)
    )
    same_frame = a.frame_of_reference_uid == b.frame_of_reference_uid
    return same_matrix and same_directions and same_spacing and same_frame


def _split_by_acquisition(stack: Sequence[Instance]) -> list[tuple[Instance, ...]]:
    """Split a stack whose acquisitions are separate volumes."""
    numbers = {instance.acquisition_number for instance in stack}
    if None in numbers or len(numbers) < 2 or _is_volume(stack):
        return [tuple(stack)]
    parts = [
        tuple(instance for instance in stack if instance.acquisition_number == number)
        for number in sorted(number for number in numbers if number is not None)
    ]
    return parts if all(map(_is_volume, parts)) and _are_interleaved(parts) else [tuple(stack)]


def _is_volume(instances: Sequence[Instance]) -> bool:
    try:
        ordered = order_slices(instances)
    except InvalidSeries:
        return False
    return len(same_positions(ordered)) >= FEWEST_SLICES


def _are_interleaved(parts: Iterable[Sequence[Instance]]) -> bool:
    """Return whether the parts overlap without sharing a position.

    Parts that share positions are a dynamic series. Parts one above the other are one stack, whose
    gaps must be found.
    """
    positions = [sorted(position_mm(instance.placement) for instance in part) for part in parts]
    every = sorted(position for part in positions for position in part)
    ends = sorted((part[0], part[-1]) for part in positions)
    overlapping = all(after[0] < before[1] for before, after in pairwise(ends))
    return overlapping and all(b - a >= SAME_POSITION_MM for a, b in pairwise(every))


def _check_identities(ordered: Sequence[Instance]) -> None:
    """Refuse different images with the same SOPInstanceUID."""
    first: dict[str, Instance] = {}
    for instance in ordered:
        twin = first.setdefault(instance.sop_instance_uid, instance)
        if twin.placement.position != instance.placement.position or not _same_pixels(
            twin, instance
        ):
            raise InconsistentGeometry(
                f"{twin.file} and {instance.file} are different images with the same "
                "SOPInstanceUID; it must be unique: export the series again"
            )


def _check_repeats(ordered: Sequence[Instance]) -> None:
    """Refuse different images at the same position."""
    for group in same_positions(ordered):
        first = ordered[group[0]]
        for other in (ordered[number] for number in group[1:]):
            if not np.allclose(
                first.placement.position, other.placement.position, rtol=0, atol=0.1
            ):
                distance = math.dist(first.placement.position, other.placement.position)
                raise _not_aligned(first, other, distance, 0.1)
            if not _same_pixels(first, other):
                raise RepeatedPositions(
                    f"{first.file} and {other.file} are different images at the same position, "
                    f"{position_mm(other.placement):.2f} mm; a volume needs one image at each "
                    "position: dynamic and multi-energy series are not supported yet"
                )


def _same_pixels(one: Instance, other: Instance) -> bool:
    return one is other or (one.pixels == other.pixels and _pixel_bytes(one) == _pixel_bytes(other))


def _pixel_bytes(instance: Instance) -> tuple[str, bytes]:
    layout = parse(instance.content)
    element = layout.pixel_data
    return layout.transfer_syntax_uid, layout.data[element.value : element.end] if element else b""


def _check_gaps(single: Sequence[Instance]) -> None:
    """Refuse a stack with a gap.

    A gap is wider than 1.5 median gaps of its block, or wider than 1.1 where instance numbers are
    missing.
    """
    positions = np.array([position_mm(instance.placement) for instance in single])
    gaps = np.diff(positions)
    usual = _median_gaps(single, gaps)
    numbers = [instance.instance_number for instance in single]
    known = [number for number in numbers if number is not None]
    steps = np.abs(np.diff(known)) if len(known) == len(numbers) else np.ones(len(gaps))
    skipped = steps > LARGEST_GAP * np.median(steps)
    wide = gaps > LARGEST_GAP * usual.max(axis=0)
    missing = np.flatnonzero(wide | (skipped & (gaps > _WIDENED * usual.mean(axis=0))))
    if missing.size:
        i = int(missing[0])
        bound = LARGEST_GAP * usual[:, i].max() if wide[i] else _WIDENED * usual[:, i].mean()
        more = f" ({missing.size - 1} further gaps)" if missing.size > 1 else ""
        skips = "" if wide[i] else " and instance numbers are missing there"
        raise MissingSlices(
            f"slices are missing between {positions[i]:.2f} mm and {positions[i + 1]:.2f} mm along "
            f"the slice normal: the distance there is {gaps[i]:.2f} mm{skips}, while the slices "
            f"around it are {usual[:, i].mean():.2f} mm apart, and at most {bound:.2f} mm is "
            f"allowed{more}; send the series again, complete, or release the other series with "
            "--on-series-failure withhold"
        )


def _median_gaps(single: Sequence[Instance], gaps: FloatArray) -> FloatArray:
    """Return the median gaps around each gap.

    A block is a run of slices of equal thickness. The result has the shape (2, gaps), in mm.
    """
    thickness = [instance.placement.slice_thickness_mm for instance in single]
    block = np.cumsum([0, *(_differ_in_thickness(a, b) for a, b in pairwise(thickness))])
    within = block[1:] == block[:-1]
    overall = float(np.median(gaps))
    inside = {b: gaps[within & (block[1:] == b)] for b in set(block.tolist())}
    medians = {b: float(np.median(own)) if own.size else overall for b, own in inside.items()}
    before = [medians[b] for b in block[:-1].tolist()]
    after = [medians[b] for b in block[1:].tolist()]
    return np.array([before, after])


def _differ_in_thickness(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return False
    return abs(one - other) > 0.1 * max(abs(one), abs(other))


def _check_alignment(single: Sequence[Instance]) -> None:
    """Refuse slices that jump sideways.

    An even drift is gantry tilt.
    """
    placement = single[0].placement
    origins = np.array([instance.placement.position for instance in single])
    along = origins @ normal(placement)
    off = origins - np.outer(along, normal(placement))
    fit = np.polynomial.polynomial.polyfit(along, off, 1)
    residual = np.abs(off - np.polynomial.polynomial.polyval(along, fit).T).max(axis=1)
    bound = max(_LARGEST_JUMP_MM, *placement.pixel_spacing_mm)
    worst = int(residual.argmax())
    if residual[worst] > bound:
        neighbor = single[worst - 1] if worst else single[1]
        raise _not_aligned(neighbor, single[worst], float(residual[worst]), bound)


def _not_aligned(one: Instance, other: Instance, found_mm: float, bound_mm: float) -> InvalidSeries:
    return InconsistentGeometry(
        f"{other.file} is beside {one.file}, not above or below it: it is {found_mm:.1f} mm off, "
        f"and at most {bound_mm:.1f} mm is allowed within a stack; export the series again, or "
        "release the other series with --on-series-failure withhold"
    )
