"""What a camera in front of the face still sees: parallel rays that must no longer meet the old skin (DESIGN section 10)."""

import math
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctdeface_worker.imaging.canonical import Canonical, to_canonical
from ctdeface_worker.imaging.domain import BoolArray, FloatArray, Volume
from ctdeface_worker.imaging.morphology import holes
from ctdeface_worker.verification.window import Window

IndexArray: TypeAlias = NDArray[np.intp]
Value = TypeVar("Value", bound=np.generic)

SKIN_HU = -300.0
BONE_HU = 200.0
EDGE_MM = 5.0
"""Skin nearer to the edge of the field of view is a cut face."""
LEAST_DEEPER_MM = 3.0
LEAST_DEEPER_VOXELS = 1.5
ROUGH_MM = 1.5
BEHIND_MM = 60.0
"""Surfaces this far behind the foremost skin are not the face's front any more."""
COVERED_MM = 25.0
"""Bone at most this far behind the skin is what a soft-tissue mask uncovers; deeper bone lies behind mouth or orbit."""
ON_BONE_MM = 3.0
JUST_BEHIND_MM = 1.0
"""Partial volume hides bone at the surface; what lies deeper is bone under skin."""
PEELED_MM = 10.0
"""Flesh left less deep than this still has the relief of the face, and is the face where a cloth lies on it."""
FOREMOST_MM, SHALLOW_MM = 10.0, 16.0
"""A nose whose front is left less deep than the second still stands out from the face; the first is how much of it is looked at."""
COVER_MM, AIR_MM = 40.0, 2.0
"""Less deep, and with so much air before it, a surface of the input may be skin behind a cloth; a layer of it gone proves nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rays:
    """One ray per (z, x), z rising to superior, x to the patient's left.

    Attributes:
        mm: how far they are apart.
        counts: rays that meet facial skin in the input.
        bright: rays left out because the first surface is bone or metal.
        removed: rays that no longer meet it in the output.
        covered: rays that meet bone soon behind the skin in the input, but not in the next voxel.
        uncovered: rays that now end on that bone, neither before it nor behind it.
        peeled: rays, bright ones too, that now end in flesh less than `PEELED_MM` behind the first
            surface.
        bared: rays that now end in flesh as little behind a surface of the input with air before
            it, less than `COVER_MM` behind the skin.
        foremost: rays that meet the foremost part of the facial skin.
        shallow: rays that now end in flesh less than `SHALLOW_MM` behind the skin.
        seen: share of the rays to the patient in the window that meet the front of the face, not
            what lies far behind something before it.
    """

    mm: float
    counts: BoolArray
    bright: BoolArray
    removed: BoolArray
    covered: BoolArray
    uncovered: BoolArray
    peeled: BoolArray
    bared: BoolArray
    foremost: BoolArray
    shallow: BoolArray
    seen: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontSurface:
    """What rays from the front meet in the input, one per (z, x).

    Attributes:
        within: lowest and highest LPS corner in mm of the part that they go through.
        mm: how far they are apart, and their steps.
        deeper_mm: so much deeper a surface must lie to be another one.
        skin: step at which each meets the patient.
        counts: as of `Rays`.
        bright: as of `Rays`.
        covered: as of `Rays`.
        bone: step at which each meets the first bone behind the skin.
        has_bone: whether there is any.
        foremost: as of `Rays`.
        seen: as of `Rays`.
        behind_air: tissue (z, y, x) of the input less than `PEELED_MM` behind a surface with air
            before it.
    """

    within: tuple[FloatArray, FloatArray]
    mm: float
    deeper_mm: float
    skin: IndexArray
    counts: BoolArray
    bright: BoolArray
    covered: BoolArray
    bone: IndexArray
    has_bone: BoolArray
    foremost: BoolArray
    seen: float
    behind_air: BoolArray


def look(before: Volume, window: Window) -> FrontSurface:
    """Cast rays from the front through the input, at most 1 mm apart (one voxel if coarser)."""
    spacing = before.geometry.spacing_mm
    mm = max(1.0, min(spacing))
    room = np.array([EDGE_MM, 0.0, EDGE_MM]) + mm
    within = (window.low - room, window.high + room)
    old = to_canonical(before, spacing_mm=mm, within=within)
    body = _patient(old) | (
        to_canonical(_inner_air(before), spacing_mm=mm, within=within).hu >= 0.5
    )
    there: BoolArray = np.asarray(body.any(axis=1))
    skin = body.argmax(axis=1)
    air_before = _at(old.valid, np.maximum(skin - 1, 0)) & (skin > 0)
    inside = _at(_well_inside(old), skin)
    here, behind = _at(old.hu, skin), _at(old.hu, np.minimum(skin + 1, old.hu.shape[1] - 1))
    bright = here + np.maximum(behind - here, 0) * min(JUST_BEHIND_MM / mm, 1.0) > BONE_HU
    met, near = there & _in_window(old, window), _near(skin, there, mm)
    faced = met & near & air_before & inside
    counts = faced & ~bright
    bone, has_bone = _bone_behind(old, skin)
    at_once = np.maximum(here, behind) > BONE_HU  # taking such skin off takes bone with it
    return FrontSurface(
        within=within,
        mm=mm,
        deeper_mm=max(LEAST_DEEPER_MM, LEAST_DEEPER_VOXELS * min(max(spacing[1:]), 5.0)),
        skin=skin,
        counts=counts,
        bright=faced & bright,
        covered=counts & ~at_once & (np.where(has_bone, (bone - skin) * mm, np.inf) <= COVERED_MM),
        bone=bone,
        has_bone=has_bone,
        foremost=counts
        & (
            skin * mm
            <= (np.percentile(skin[counts], 1) if counts.any() else 0.0) * mm + FOREMOST_MM
        ),
        seen=float((met & near).sum() / max(met.sum(), 1)),
        behind_air=_behind_air(old),
    )


def cast(facing: FrontSurface, after: Volume) -> Rays:
    """Cast the same rays through the output."""
    new = to_canonical(after, spacing_mm=facing.mm, within=facing.within)
    surface = (new.hu > SKIN_HU) & new.valid
    left = surface.any(axis=1)
    meets = surface.argmax(axis=1)
    hard = (
        np.maximum(_at(new.hu, meets), _at(new.hu, np.minimum(meets + 1, new.hu.shape[1] - 1)))
        > BONE_HU
    )
    deeper = np.where(left, (meets - facing.skin) * facing.mm, np.inf)
    on_bone: BoolArray = np.asarray(
        facing.has_bone & (np.abs(meets - facing.bone) * facing.mm <= ON_BONE_MM), dtype=bool
    )
    flesh = left & ~hard
    return Rays(
        mm=facing.mm,
        counts=facing.counts,
        bright=facing.bright,
        removed=(deeper >= facing.deeper_mm) | (left & hard & (meets > facing.skin)),
        covered=facing.covered,
        uncovered=on_bone & left,
        peeled=(facing.counts | facing.bright) & flesh & (deeper < PEELED_MM),
        bared=facing.counts & flesh & _at(facing.behind_air, meets) & (deeper < COVER_MM),
        foremost=facing.foremost,
        shallow=facing.counts & flesh & (deeper < SHALLOW_MM),
        seen=facing.seen,
    )


def _bone_behind(old: Canonical, skin: IndexArray) -> tuple[IndexArray, BoolArray]:
    """Return the step of the first bone behind the input's skin, and whether there is any."""
    behind = np.arange(old.hu.shape[1])[None, :, None] >= skin[:, None, :]
    bone = (old.hu > BONE_HU) & old.valid & behind
    return bone.argmax(axis=1), np.asarray(bone.any(axis=1))


def _behind_air(old: Canonical) -> BoolArray:
    """Tissue less than `PEELED_MM` behind a surface that has `AIR_MM` of measured air right before it."""
    dense = (old.hu > SKIN_HU) & old.valid
    air = (old.hu <= SKIN_HU) & old.valid
    surface = dense.copy()
    for step in range(1, max(round(AIR_MM / old.spacing_mm), 1) + 1):
        surface[:, step:] &= air[:, :-step]
        surface[:, :step] = False
    near = surface.copy()
    for step in range(1, math.ceil(PEELED_MM / old.spacing_mm)):
        near[:, step:] |= surface[:, :-step]
    return np.asarray(dense & near)


def _inner_air(before: Volume) -> Volume:
    """1 where air is closed in by the patient in its stored slice, else 0: a ray that enters a cut sinus meets no skin."""
    _, row_mm, column_mm = before.geometry.spacing_mm
    step = (max(int(ROUGH_MM / row_mm), 1), max(int(ROUGH_MM / column_mm), 1))
    dense = (before.hu > SKIN_HU)[:, :: step[0], :: step[1]]
    inner = holes(dense).astype(np.float32)
    for axis in (1, 2):
        inner = np.repeat(inner, step[axis - 1], axis=axis)
    _, rows, columns = before.geometry.shape
    return Volume(
        hu=inner[:, :rows, :columns],
        valid=np.ones(before.geometry.shape, dtype=bool),
        geometry=before.geometry,
    )


def _patient(canonical: Canonical) -> BoolArray:
    """The largest thing that is denser than air, without what is thinner than 4 mm."""
    dense = (canonical.hu > SKIN_HU) & canonical.valid
    rounds = max(round(2 / canonical.spacing_mm), 1)
    core = ndimage.binary_opening(dense, iterations=rounds)
    labels, count = ndimage.label(core)
    if not count:
        return dense
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    grown = ndimage.binary_dilation(labels == sizes.argmax(), iterations=rounds + 1)
    return np.asarray(dense & grown, dtype=bool)


def _well_inside(canonical: Canonical) -> BoolArray:
    """Voxels at least 5 mm inside the field of view in every direction; the grid's own borders are cut from a larger volume."""
    reach = 2 * round(EDGE_MM / canonical.spacing_mm) + 1
    inside: BoolArray = ndimage.minimum_filter(
        canonical.valid, size=reach, mode="constant", cval=False
    )
    return inside


def _in_window(canonical: Canonical, window: Window) -> BoolArray:
    z = canonical.origin_lps[2] + canonical.spacing_mm * np.arange(canonical.hu.shape[0])
    x = canonical.origin_lps[0] + canonical.spacing_mm * np.arange(canonical.hu.shape[2])
    inside_z, inside_x = (
        (z >= window.low[2]) & (z <= window.high[2]),
        (x >= window.low[0]) & (x <= window.high[0]),
    )
    return np.asarray(inside_z[:, None] & inside_x[None, :])


def _near(skin: IndexArray, there: BoolArray, mm: float) -> BoolArray:
    """Rays whose surface belongs to the front of the face, not to what is seen past it."""
    if not there.any():
        return there
    foremost = np.percentile(skin[there], 2)
    return np.asarray((skin - foremost) * mm <= BEHIND_MM)


def _at(field: NDArray[Value], y: IndexArray) -> NDArray[Value]:
    """Values of a (z, y, x) field at one y per (z, x)."""
    return np.asarray(np.take_along_axis(field, y[:, None, :], axis=1)[:, 0])
