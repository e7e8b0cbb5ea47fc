"""What the network learns to find: the face mask near the face, on a coarse upright grid."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctdeface_worker.imaging import morphology
from ctdeface_worker.imaging.canonical import mask_to_canonical, to_canonical
from ctdeface_worker.imaging.domain import BoolArray, Geometry, HuArray, Volume

GRID_MM = 2.5
SHELL_MM = 9.0
"""Air nearer to the face than this is labeled with it; what lies farther in front is added by a rule, not by the network."""
TISSUE_HU = -300.0
SMALLEST_PIECE = 0.05
"""Of the largest piece; smaller ones are the teacher's slips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labeled:
    """A volume and its face on the training grid.

    Attributes:
        volume: evenly spaced along superior, posterior and left; outside the field of view there is
            air.
        face: what the network is to find.
    """

    volume: Volume
    face: BoolArray


def on_grid(volume: Volume, face: BoolArray) -> Labeled:
    """Bring a volume of any orientation and its face mask to the training grid.

    Args:
        volume: the scan.
        face: stored voxels (slice, row, column), True = removed.
    """
    canonical = to_canonical(volume, spacing_mm=GRID_MM)
    inside = mask_to_canonical(face, volume.geometry, spacing_mm=GRID_MM) & canonical.valid
    affine = np.zeros((4, 4))
    affine[2, 0] = affine[1, 1] = affine[0, 2] = GRID_MM
    affine[:, 3] = np.append(canonical.origin_lps, 1.0)
    hu = np.clip(canonical.hu, -1000.0, None)
    upright = Volume(
        hu=hu,
        valid=np.ones(hu.shape, dtype=bool),
        geometry=Geometry.from_affine(canonical.hu.shape, affine),
    )
    return Labeled(volume=upright, face=near_tissue(hu, inside))


def near_tissue(hu: HuArray, face: BoolArray) -> BoolArray:
    """Return the part of a face mask that holds tissue or lies just in front of it."""
    tissue = face & (hu > TISSUE_HU)
    return face & morphology.grown(tissue, round(SHELL_MM / GRID_MM))


def cleaned(face: BoolArray) -> BoolArray:
    """Smooth the border of a teacher's mask by a majority of 27 neighbors and drop small pieces."""
    smooth = ndimage.uniform_filter(face.astype(np.float32), 3) > 0.5
    pieces, count = ndimage.label(smooth)
    if count < 2:
        return smooth
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    kept: BoolArray = (sizes >= SMALLEST_PIECE * sizes.max())[pieces] & (pieces > 0)
    return kept
