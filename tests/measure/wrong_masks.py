"""Deliberately wrong face masks, made from a right one (DESIGN section 10)."""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from ctdeface_worker.canonical import Canonical, mask_to_stored, to_canonical
from ctdeface_worker.domain import BoolArray, FloatArray, Geometry, Volume

SHIFT_MM = 15.0
THIN_MM = 1.0
PEELED_MM = 5.0
MIDDLE_MM = 20.0
"""To either side of the nose, above and below it."""
CLOTH_HU = 60.0
CHIN_MM = 40.0
"""Below the chin and the chin itself."""
TISSUE_HU = -300.0
SIDES = {"right": (-1, 0, 0), "left": (1, 0, 0), "front": (0, -1, 0), "back": (0, 1, 0), "up": (0, 0, 1), "down": (0, 0, -1)}
"""LPS directions (x, y, z)."""


def wrong_masks(volume: Volume, face: BoolArray) -> Iterator[tuple[str, BoolArray]]:
    """Yield every wrong mask that one volume and its right mask give; the stored axes must run along the patient's, give or take a tilt."""
    axes = _stored_axes(volume.geometry)
    for side, direction in SIDES.items():
        yield f"shifted {SHIFT_MM:.0f} mm {side}", shifted(face, volume.geometry, SHIFT_MM * np.array(direction, dtype=np.float64))
    yield "mirrored left to right", np.flip(face, axes[0])
    yield "mirrored front to back", np.flip(face, axes[1])
    yield "mirrored top to bottom", np.flip(face, axes[2])
    for name, direction, share in (
        ("right half only", (-1, 0, 0), 0.5),
        ("left half only", (1, 0, 0), 0.5),
        ("upper half only", (0, 0, 1), 0.5),
        ("lower half only", (0, 0, -1), 0.5),
    ):
        yield name, _part(volume, face, np.array(direction, dtype=np.float64), share)
    yield "chin missed", _without_lowest(volume, face, CHIN_MM)
    yield f"{THIN_MM:.0f} mm thin", face & (_depth_mm(volume) <= THIN_MM)
    yield f"middle of the face left {PEELED_MM:.0f} mm deep", face & ~(_middle(volume, face) & _behind_skin(volume, PEELED_MM))
    yield "empty", np.zeros_like(face)
    yield "everything", np.ones_like(face)


def draped(volume: Volume, face: BoolArray, *, gap_mm: float, thick_mm: float) -> tuple[Volume, BoolArray]:
    """Lay a wet cloth before a face; return the volume and its right mask: face, cloth, and the air before the skin."""
    axis = _stored_axes(volume.geometry)[1]
    skin = _behind_skin(volume, 0.0)
    even = ndimage.binary_dilation(skin, np.ones((3, 3, 3), dtype=bool)) if gap_mm else skin
    near, far = (shifted(even, volume.geometry, np.array([0.0, -mm, 0.0])) for mm in (gap_mm, gap_mm + thick_mm))
    before = face.any(axis=axis, keepdims=True) & ~skin
    hu = np.where(far & ~near & before & (volume.hu <= TISSUE_HU), np.float32(CLOTH_HU), volume.hu)
    return Volume(hu=hu, valid=volume.valid, geometry=volume.geometry), face | before


def under_cloth(volume: Volume, face: BoolArray, right: BoolArray) -> Iterator[tuple[str, BoolArray]]:
    """Yield masks that take the cloth and leave skin behind it; `volume` and `face` are those without the cloth."""
    skin = _behind_skin(volume, 0.0)
    yield "the cloth only", right & ~skin
    yield "the middle of the face stays", right & ~(_middle(volume, face) & skin)


def moved_to(volume: Volume, face: BoolArray, other: Volume, others: BoolArray) -> BoolArray:
    """Return another patient's mask, brought to this one's grid so that the tips of both noses fall together."""
    foreign = to_canonical(Volume(hu=others.astype(np.float32), valid=other.valid, geometry=other.geometry))
    moved = Canonical(
        hu=foreign.hu,
        valid=foreign.valid,
        origin_lps=foreign.origin_lps + _foremost(volume, face) - _foremost(other, others),
        spacing_mm=foreign.spacing_mm,
    )
    return mask_to_stored(foreign.hu >= 0.5, moved, volume.geometry)


def shifted(face: BoolArray, geometry: Geometry, by_mm: FloatArray) -> BoolArray:
    """Move a mask by whole voxels; what leaves the volume is gone."""
    steps = _steps(geometry)
    voxels = [round(float(by_mm @ step / (step @ step))) for step in steps]
    out: BoolArray = np.zeros_like(face)
    to = tuple(slice(max(n, 0), size + min(n, 0)) for n, size in zip(voxels, face.shape, strict=True))
    come_from = tuple(slice(max(-n, 0), size + min(-n, 0)) for n, size in zip(voxels, face.shape, strict=True))
    out[to] = face[come_from]
    return out


def coarser(volume: Volume, part: tuple[slice, slice, slice]) -> Volume:
    """Keep some slices, rows and columns, such as every other one, which makes trials cheap."""
    g = volume.geometry
    first, by = [each.start or 0 for each in part], [each.step or 1 for each in part]
    hu = volume.hu[part].copy()
    return Volume(
        hu=hu,
        valid=volume.valid[part].copy(),
        geometry=Geometry(
            shape=(hu.shape[0], hu.shape[1], hu.shape[2]),
            row_step_lps=g.row_step_lps * by[1],
            column_step_lps=g.column_step_lps * by[2],
            slice_origins_lps=g.slice_origins_lps[part[0]] + first[1] * g.row_step_lps + first[2] * g.column_step_lps,
            frame_of_reference_uid=g.frame_of_reference_uid,
        ),
    )


def _steps(geometry: Geometry) -> tuple[FloatArray, FloatArray, FloatArray]:
    return geometry.normal_lps * geometry.spacing_mm[0], geometry.row_step_lps, geometry.column_step_lps


def _stored_axes(geometry: Geometry) -> tuple[int, int, int]:
    """Which stored axis runs along x, y and z."""
    along = [int(np.abs(step).argmax()) for step in _steps(geometry)]
    return along.index(0), along.index(1), along.index(2)


def _points(volume: Volume, voxels: BoolArray) -> FloatArray:
    k, i, j = np.nonzero(voxels)
    g = volume.geometry
    return np.asarray(g.slice_origins_lps[k] + i[:, None] * g.row_step_lps + j[:, None] * g.column_step_lps, dtype=np.float64)


def _part(volume: Volume, face: BoolArray, direction: FloatArray, share: float) -> BoolArray:
    """Keep the part of a mask that lies farthest in a direction, by its share of the tissue."""
    tissue = face & (volume.hu > TISSUE_HU)
    along = _points(volume, tissue) @ direction
    out: BoolArray = np.zeros_like(face)
    out[face] = _points(volume, face) @ direction >= np.quantile(along, 1 - share)
    return out


def _middle(volume: Volume, face: BoolArray) -> BoolArray:
    """Return what lies about the foremost point of the face, as seen from the front."""
    out: BoolArray = np.zeros_like(face)
    out[face] = (np.abs(_points(volume, face) - _foremost(volume, face))[:, [0, 2]] <= MIDDLE_MM).all(axis=1)
    return out


def _without_lowest(volume: Volume, face: BoolArray, mm: float) -> BoolArray:
    """Leave out what lies lowest; in a head that is cut above the chin that is another part of the face."""
    lowest = _points(volume, face & (volume.hu > TISSUE_HU))[:, 2].min()
    out: BoolArray = np.zeros_like(face)
    out[face] = _points(volume, face)[:, 2] >= lowest + mm
    return out


def _behind_skin(volume: Volume, by_mm: float) -> BoolArray:
    """Return what lies at least so far behind the first tissue that is met from the front."""
    axis = _stored_axes(volume.geometry)[1]
    from_front = slice(None, None, 1 if _steps(volume.geometry)[axis][1] > 0 else -1)
    line = tuple(from_front if each == axis else slice(None) for each in range(3))
    met = np.maximum.accumulate((volume.hu > TISSUE_HU)[line], axis=axis)[line]
    return shifted(met, volume.geometry, np.array([0.0, by_mm, 0.0]))


def _depth_mm(volume: Volume) -> FloatArray:
    """How deep each voxel's near side lies in tissue."""
    spacing = volume.geometry.spacing_mm
    return np.asarray(ndimage.distance_transform_edt(volume.hu > TISSUE_HU, sampling=spacing) - min(spacing) / 2, dtype=np.float64)


def _foremost(volume: Volume, face: BoolArray) -> FloatArray:
    points = _points(volume, face & (volume.hu > TISSUE_HU))
    return np.asarray(points[points[:, 1].argmin()], dtype=np.float64)
