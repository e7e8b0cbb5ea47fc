"""The measured real volumes: DICOM heads and coarse NIfTI volumes."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ctdeface_worker.dicom import reader, selection
from ctdeface_worker.dicom import volume as volumes
from ctdeface_worker.imaging.domain import Geometry, Volume
from tests.support.measure.heads import HEADS


def names(real_data: Path) -> tuple[str, ...]:
    """Return the heads, then the coarse volumes by number."""
    coarse = sorted(
        (real_data / "openkbp").glob("*.nii.gz"),
        key=lambda file: int(file.name.split("_")[1].partition(".")[0]),
    )
    return (*HEADS, *(file.name.removesuffix(".nii.gz") for file in coarse))


def load(real_data: Path, name: str) -> Volume:
    """Load one volume by its name."""
    if name in HEADS:
        return volumes.load(selection.select(reader.read_case(real_data / name)).series[0]).volume
    return _nifti(real_data / "openkbp" / f"{name}.nii.gz")


def _nifti(path: Path) -> Volume:
    """Read a NIfTI file; SimpleITK gives LPS, slices are put in the order of the normal."""
    image = sitk.ReadImage(str(path))
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
