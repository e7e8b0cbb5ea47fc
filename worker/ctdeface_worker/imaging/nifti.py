"""Read and write volumes as NIfTI.

SimpleITK converts LPS to the RAS of NIfTI, so axes flip only in this module.
"""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ctdeface_shared.errors import UnreadableInstance
from ctdeface_worker.imaging.domain import FloatArray, Geometry, Volume

EXACT_MM = 0.01
"""Largest error of an affine that counts as exact."""


def write_nifti(volume: Volume, path: Path) -> None:
    """Write a volume in HU as compressed NIfTI.

    Values are int16 if all of them are whole numbers that fit, else float32. A NIfTI file holds one
    box of evenly spaced slices at right angles. For uneven or tilted slices (`is_approximate`) the
    voxels are unchanged and the affine is the nearest box, so positions are approximate. The DICOM
    output has no such limit.
    """
    hu = volume.hu
    whole = bool(
        (np.rint(hu) == hu).all()
        and hu.min() >= np.iinfo(np.int16).min
        and hu.max() <= np.iinfo(np.int16).max
    )
    image = sitk.GetImageFromArray(hu.astype(np.int16) if whole else hu)
    affine = _box_affine_lps(volume.geometry)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, path, useCompression=True, compressionLevel=1)


def read_nifti(path: Path) -> Volume:
    """Read a NIfTI file in HU.

    Slices come in ascending order along the normal.

    Raises:
        UnreadableInstance: the file is not NIfTI, or is damaged.
    """
    try:
        image = sitk.ReadImage(path)
    except RuntimeError as error:  # the only class that SimpleITK raises
        raise UnreadableInstance(f"{path.name} cannot be read as NIfTI; check the file") from error
    hu = sitk.GetArrayFromImage(image).astype(np.float32)
    steps = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine = np.eye(4)
    affine[:3, :3] = steps[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    if np.cross(affine[:3, 2], affine[:3, 1]) @ affine[:3, 0] < 0:
        affine[:3, 3] += affine[:3, 0] * (hu.shape[0] - 1)
        affine[:3, 0] *= -1
        hu = hu[::-1].copy()
    return Volume(
        hu=hu, valid=np.ones(hu.shape, dtype=bool), geometry=Geometry.from_affine(hu.shape, affine)
    )


def is_approximate(geometry: Geometry) -> bool:
    """Return whether an affine only approximates the slices."""
    affine = _box_affine_lps(geometry)
    fitted = affine[:3, 3] + np.arange(geometry.shape[0])[:, None] * affine[:3, 2]
    return bool(np.abs(fitted - geometry.slice_origins_lps).max() > EXACT_MM)


def _box_affine_lps(geometry: Geometry) -> FloatArray:
    """Return the affine of the nearest box.

    It maps (column, row, slice, 1) to LPS mm.

    Its slice axis is the normal; the middle of the stack keeps its position.
    """
    mean_step = geometry.affine_lps[:3, 0] @ geometry.normal_lps
    affine = np.eye(4)
    affine[:3, 0] = geometry.column_step_lps
    affine[:3, 1] = (
        np.cross(geometry.normal_lps, geometry.column_step_lps)
        * geometry.spacing_mm[1]
        / geometry.spacing_mm[2]
    )
    affine[:3, 2] = geometry.normal_lps * mean_step
    affine[:3, 3] = (
        geometry.slice_origins_lps.mean(axis=0) - affine[:3, 2] * (geometry.shape[0] - 1) / 2
    )
    return affine
