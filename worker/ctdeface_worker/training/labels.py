"""Training labels: the face mask near tissue.

They are on an upright grid of `TRAINING_GRID_MM`.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctdeface_worker.imaging import morphology
from ctdeface_worker.imaging.canonical import mask_to_canonical, to_canonical
from ctdeface_worker.imaging.domain import BoolArray, Geometry, HuArray, Volume
from ctdeface_worker.imaging.hounsfield import AIR_HU, SKIN_HU

TRAINING_GRID_MM = 2.5
SHELL_MM = 9.0
"""Air within this distance of the face is labeled; a rule adds the air beyond."""
SMALLEST_PIECE = 0.05
"""Share of the largest piece; smaller pieces are errors of the geometric mask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labeled:
    """A volume and its face on the training grid.

    Attributes:
        volume: evenly spaced along (superior, posterior, left), with air outside the field of
            view.
        face: the label, True = face.
    """

    volume: Volume
    face: BoolArray


def on_grid(volume: Volume, face: BoolArray) -> Labeled:
    """Resample a volume and its mask to the training grid.

    Args:
        volume: the scan.
        face: in stored voxels (slice, row, column), True = removed.
    """
    canonical = to_canonical(volume, spacing_mm=TRAINING_GRID_MM)
    inside = mask_to_canonical(face, volume.geometry, spacing_mm=TRAINING_GRID_MM) & canonical.valid
    affine = np.zeros((4, 4))
    affine[2, 0] = affine[1, 1] = affine[0, 2] = TRAINING_GRID_MM
    affine[:, 3] = np.append(canonical.origin_lps, 1.0)
    hu = np.clip(canonical.hu, AIR_HU, None)
    upright = Volume(
        hu=hu,
        valid=np.ones(hu.shape, dtype=bool),
        geometry=Geometry.from_affine(canonical.hu.shape, affine),
    )
    return Labeled(volume=upright, face=near_tissue(hu, inside))


def near_tissue(hu: HuArray, face: BoolArray) -> BoolArray:
    """Return the part of a face mask near tissue.

    It includes the air in front of tissue within `SHELL_MM`.
    """
    tissue = face & (hu > SKIN_HU)
    return face & morphology.grown(tissue, round(SHELL_MM / TRAINING_GRID_MM))


def cleaned(face: BoolArray) -> BoolArray:
    """Smooth a mask and drop small pieces.

    Each voxel gets the majority of its 27 neighbors.
    """
    smooth = ndimage.uniform_filter(face.astype(np.float32), 3) > 0.5
    pieces, count = ndimage.label(smooth)
    if count < 2:
        return smooth
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    kept: BoolArray = (sizes >= SMALLEST_PIECE * sizes.max())[pieces] & (pieces > 0)
    return kept
