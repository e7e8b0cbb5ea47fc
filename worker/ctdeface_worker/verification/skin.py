"""Trace parallel rays from the front through input and output.

In the output they must no longer meet the skin of the input; docs/gate.md gives the reasons.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctdeface_worker.imaging.canonical import Canonical, to_canonical
from ctdeface_worker.imaging.domain import BoolArray, FloatArray, Geometry, Volume
from ctdeface_worker.imaging.morphology import holes
from ctdeface_worker.verification.components import largest
from ctdeface_worker.verification.hounsfield import BONE_HU, SKIN_HU
from ctdeface_worker.verification.location import place_of_points
from ctdeface_worker.verification.window import Window

IndexArray: TypeAlias = NDArray[np.intp]
Value = TypeVar("Value", bound=np.generic)

EDGE_MM = 5.0
"""Skin nearer to the edge of the field of view is a cut face."""
LEAST_DEEPER_MM = 3.0
LEAST_DEEPER_VOXELS = 1.5
ROUGH_MM = 1.5
BEHIND_MM = 60.0
"""Surfaces this far behind the foremost skin do not belong to the front of the face."""
BONE_BEHIND_MM = 25.0
"""Largest depth of bone behind the skin that a soft-tissue mask exposes.

Deeper bone is behind mouth or orbit.
"""
ON_BONE_MM = 3.0
PARTIAL_VOLUME_MM = 1.0
"""Partial volume hides bone this close to the surface; deeper bone is bone under skin."""
LAYER_MM = 10.0
"""Depth of flesh behind the skin that still has the relief of the face.

Under a cloth on the skin, it is the face itself.
"""
FOREMOST_MM = 10.0
"""Depth of the foremost part of the face, usually the nose."""
NOSE_BASE_MM = 16.0
"""Depth to which the foremost part must be removed; tissue within it still shows a nose."""
COVER_MM, AIR_MM = 40.0, 2.0
"""Largest depth of skin behind a cloth, and the thickness of the air before it.

A removed layer of such a surface proves nothing.
"""
TISSUE_INSIDE_MM = 2.0
"""Half the thickness of what belongs to the patient; straps and tubes are thinner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontSurface:
    """Surfaces of the input along rays from the front.

    There is one ray per (z, x).

    z rises to superior, x to the patient's left.

    Attributes:
        within: lowest and highest LPS corner in mm of the traced box.
        origin_lps: LPS mm (x, y, z) of the first step of ray (0, 0).
        geometry: of the input, to name slices.
        mm: distance between rays and length of a step.
        deeper_mm: distance behind the skin at which a surface is a different one.
        skin: step at which each ray meets the patient.
        counted: rays that meet facial skin.
        bright: rays whose first surface is bone or metal; they are not counted.
        bone_behind: counted rays with bone at most `BONE_BEHIND_MM` behind the skin, but not in the
            first two voxels.
        bone: step at which each ray meets the first bone behind the skin.
        has_bone: rays that meet any bone.
        foremost: counted rays that meet the foremost `FOREMOST_MM` of the facial skin.
        front_share: share of the rays to the patient in the window that meet the front of the face;
            the others meet something far behind the foremost surface.
        behind_air: tissue (z, y, x) less than `LAYER_MM` behind a surface with air before it.
    """

    within: tuple[FloatArray, FloatArray]
    origin_lps: FloatArray
    geometry: Geometry
    mm: float
    deeper_mm: float
    skin: IndexArray
    counted: BoolArray
    bright: BoolArray
    bone_behind: BoolArray
    bone: IndexArray
    has_bone: BoolArray
    foremost: BoolArray
    front_share: float
    behind_air: BoolArray

    def place(self, rays: BoolArray) -> str:
        """Describe where rays (z, x) meet the skin."""
        z, x = np.nonzero(rays)
        steps = np.stack([x, self.skin[z, x], z], axis=-1)
        columns = np.flatnonzero(self.counted.any(axis=0))
        middle = (columns[0] + columns[-1]) / 2 if columns.size else self.counted.shape[1] / 2
        middle_mm = float(self.origin_lps[0] + middle * self.mm)
        return place_of_points(self.origin_lps + steps * self.mm, self.geometry, middle_mm)


@dataclass(frozen=True, slots=True, kw_only=True)
class RayResult:
    """What the rays meet in the output, index (z, x).

    Attributes:
        front: the same rays in the input.
        removed: rays that no longer meet the skin of the input.
        ends_on_bone: rays that now end on the bone behind the skin, neither before nor behind it.
        ends_in_layer: rays, bright ones included, that now end in flesh less than `LAYER_MM` behind
            the first surface.
        ends_behind_air: counted rays that now end in flesh less than `LAYER_MM` behind a surface of
            the input with air before it, and less than `COVER_MM` behind the skin.
        ends_above_nose_base: counted rays that now end in flesh less than `NOSE_BASE_MM` behind the
            skin.
    """

    front: FrontSurface
    removed: BoolArray
    ends_on_bone: BoolArray
    ends_in_layer: BoolArray
    ends_behind_air: BoolArray
    ends_above_nose_base: BoolArray


def trace_input(before: Volume, window: Window) -> FrontSurface:
    """Trace rays from the front through the input.

    They are 1 mm apart, or one voxel if that is more.
    """
    spacing = before.geometry.spacing_mm
    mm = max(1.0, min(spacing))
    room = np.array([EDGE_MM, 0.0, EDGE_MM]) + mm
    within = (window.low - room, window.high + room)
    old = to_canonical(before, spacing_mm=mm, within=within)
    body = _patient(old) | (
        to_canonical(_inner_air(before), spacing_mm=mm, within=within).hu >= 0.5
    )
    meets_patient: BoolArray = np.asarray(body.any(axis=1))
    skin = body.argmax(axis=1)
    air_before = _at(old.valid, np.maximum(skin - 1, 0)) & (skin > 0)
    inside = _at(_well_inside(old), skin)
    here, behind = _at(old.hu, skin), _at(old.hu, np.minimum(skin + 1, old.hu.shape[1] - 1))
    bright = here + np.maximum(behind - here, 0) * min(PARTIAL_VOLUME_MM / mm, 1.0) > BONE_HU
    in_window = meets_patient & _in_window(old, window)
    at_front = _at_front(skin, meets_patient, mm)
    facial = in_window & at_front & air_before & inside
    counted = facial & ~bright
    bone, has_bone = _bone_behind(old, skin)
    bone_at_skin = np.maximum(here, behind) > BONE_HU  # removing such skin removes bone as well
    depth_mm = np.where(has_bone, (bone - skin) * mm, np.inf)
    foremost_step = np.percentile(skin[counted], 1) if counted.any() else 0.0
    return FrontSurface(
        within=within,
        origin_lps=old.origin_lps,
        geometry=before.geometry,
        mm=mm,
        deeper_mm=max(LEAST_DEEPER_MM, LEAST_DEEPER_VOXELS * min(max(spacing[1:]), 5.0)),
        skin=skin,
        counted=counted,
        bright=facial & bright,
        bone_behind=counted & ~bone_at_skin & (depth_mm <= BONE_BEHIND_MM),
        bone=bone,
        has_bone=has_bone,
        foremost=counted & (skin * mm <= foremost_step * mm + FOREMOST_MM),
        front_share=float((in_window & at_front).sum() / max(in_window.sum(), 1)),
        behind_air=_behind_air(old),
    )


def trace_output(front: FrontSurface, after: Volume) -> RayResult:
    """Trace the same rays through the output."""
    new = to_canonical(after, spacing_mm=front.mm, within=front.within)
    tissue = (new.hu > SKIN_HU) & new.valid
    meets_tissue = tissue.any(axis=1)
    end = tissue.argmax(axis=1)
    hard = (
        np.maximum(_at(new.hu, end), _at(new.hu, np.minimum(end + 1, new.hu.shape[1] - 1)))
        > BONE_HU
    )
    deeper_mm = np.where(meets_tissue, (end - front.skin) * front.mm, np.inf)
    on_bone: BoolArray = np.asarray(
        front.has_bone & (np.abs(end - front.bone) * front.mm <= ON_BONE_MM), dtype=bool
    )
    flesh = meets_tissue & ~hard
    return RayResult(
        front=front,
        removed=(deeper_mm >= front.deeper_mm) | (meets_tissue & hard & (end > front.skin)),
        ends_on_bone=on_bone & meets_tissue,
        ends_in_layer=(front.counted | front.bright) & flesh & (deeper_mm < LAYER_MM),
        ends_behind_air=front.counted & flesh & _at(front.behind_air, end) & (deeper_mm < COVER_MM),
        ends_above_nose_base=front.counted & flesh & (deeper_mm < NOSE_BASE_MM),
    )


def _bone_behind(old: Canonical, skin: IndexArray) -> tuple[IndexArray, BoolArray]:
    """Return the first bone behind the skin, and rays with any."""
    behind = np.arange(old.hu.shape[1])[None, :, None] >= skin[:, None, :]
    bone = (old.hu > BONE_HU) & old.valid & behind
    return bone.argmax(axis=1), np.asarray(bone.any(axis=1))


def _behind_air(old: Canonical) -> BoolArray:
    """Return tissue close behind a surface with air before it.

    The air must be measured and at least `AIR_MM` thick.
    """
    dense = (old.hu > SKIN_HU) & old.valid
    air = (old.hu <= SKIN_HU) & old.valid
    surface = dense.copy()
    for step in range(1, max(round(AIR_MM / old.spacing_mm), 1) + 1):
        surface[:, step:] &= air[:, :-step]
        surface[:, :step] = False
    near = surface.copy()
    for step in range(1, math.ceil(LAYER_MM / old.spacing_mm)):
        near[:, step:] |= surface[:, :-step]
    return np.asarray(dense & near)


def _inner_air(before: Volume) -> Volume:
    """Return 1 for air enclosed in its stored slice, else 0.

    A ray that enters a sinus cut by the field of view meets no skin.
    """
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
    """Return the largest tissue, without parts thinner than 4 mm."""
    dense = (canonical.hu > SKIN_HU) & canonical.valid
    rounds = max(round(TISSUE_INSIDE_MM / canonical.spacing_mm), 1)
    core = ndimage.binary_opening(dense, iterations=rounds)
    if not core.any():
        return dense
    grown = ndimage.binary_dilation(largest(core), iterations=rounds + 1)
    return np.asarray(dense & grown, dtype=bool)


def _well_inside(canonical: Canonical) -> BoolArray:
    """Return voxels at least `EDGE_MM` inside the field of view.

    The borders of the grid count as edges, because it is cut from a larger volume.
    """
    reach = 2 * round(EDGE_MM / canonical.spacing_mm) + 1
    inside: BoolArray = ndimage.minimum_filter(
        canonical.valid, size=reach, mode="constant", cval=False
    )
    return inside


def _in_window(canonical: Canonical, window: Window) -> BoolArray:
    """Return the rays (z, x) within the window."""
    z = canonical.origin_lps[2] + canonical.spacing_mm * np.arange(canonical.hu.shape[0])
    x = canonical.origin_lps[0] + canonical.spacing_mm * np.arange(canonical.hu.shape[2])
    inside_z, inside_x = (
        (z >= window.low[2]) & (z <= window.high[2]),
        (x >= window.low[0]) & (x <= window.high[0]),
    )
    return np.asarray(inside_z[:, None] & inside_x[None, :])


def _at_front(skin: IndexArray, meets_patient: BoolArray, mm: float) -> BoolArray:
    """Return the rays that meet the front of the face."""
    if not meets_patient.any():
        return meets_patient
    foremost = np.percentile(skin[meets_patient], 2)
    return np.asarray((skin - foremost) * mm <= BEHIND_MM)


def _at(field: NDArray[Value], y: IndexArray) -> NDArray[Value]:
    """Return a (z, y, x) field at one y per (z, x)."""
    return np.asarray(np.take_along_axis(field, y[:, None, :], axis=1)[:, 0])
