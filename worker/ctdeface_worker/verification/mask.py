"""Whether a mask is plausible as a face at all: size, place and pieces."""

import numpy as np
from scipy import ndimage

from ctdeface_worker.imaging.canonical import Canonical
from ctdeface_worker.imaging.domain import BoolArray
from ctdeface_worker.verification.check import Check

TISSUE_HU = -300.0
BONE_HU = 300.0
TISSUE_ML = (15.0, 1600.0)
MOST_BONE = 0.12
"""Of the tissue a soft-tissue mask removes; metal streaks and thin facial bones make some, a misplaced mask makes more."""


def check_mask(
    canonical: Canonical, face: BoolArray, cavity: BoolArray, *, bone_stays: bool
) -> tuple[Check, ...]:
    """Check a face mask on the canonical grid against the input."""
    voxel_ml = canonical.spacing_mm**3 / 1000
    tissue = face & (canonical.hu > TISSUE_HU) & canonical.valid
    ml = float(tissue.sum() * voxel_ml)
    size = Check(
        name="mask_size",
        passed=TISSUE_ML[0] <= ml <= TISSUE_ML[1],
        figure=ml,
        bound=TISSUE_ML[0] if ml < TISSUE_ML[0] else TISSUE_ML[1],
        message=f"the mask removes {ml:.0f} ml of tissue; {TISSUE_ML[0]:.0f} to {TISSUE_ML[1]:.0f} ml are plausible",
    )
    if not tissue.any():
        return (size,)
    bone = float((tissue & (canonical.hu > BONE_HU)).sum() / tissue.sum())
    skeleton = Check(
        name="bone_stays",
        passed=not bone_stays or bone <= MOST_BONE,
        figure=bone,
        bound=MOST_BONE if bone_stays else None,
        message=f"{bone:.1%} of what is removed is bone or metal",
    )
    return (size, skeleton, _anterior(canonical, tissue, cavity), _pieces(face, tissue))


def _anterior(canonical: Canonical, tissue: BoolArray, cavity: BoolArray) -> Check:
    ahead = (
        float(np.nonzero(cavity)[1].mean() - np.nonzero(tissue)[1].mean()) * canonical.spacing_mm
    )
    return Check(
        name="mask_is_anterior",
        passed=ahead > 0,
        figure=ahead,
        bound=0.0,
        message=f"the middle of the mask lies {ahead:.0f} mm in front of the middle of the brain",
    )


def _pieces(face: BoolArray, tissue: BoolArray) -> Check:
    """Air of the mask that lies between its pieces joins them, as a cloth and the skin behind it; what is apart must be small."""
    before = np.logical_or.accumulate(tissue, axis=1)
    behind = np.logical_or.accumulate(tissue[:, ::-1], axis=1)[:, ::-1]
    labels, _ = ndimage.label(face & before & behind, np.ones((3, 3, 3)))
    sizes = np.bincount(labels[tissue])
    share = 1 - float(sizes.max() / sizes.sum())
    return Check(
        name="mask_is_one_piece",
        passed=share <= 0.1,
        figure=share,
        bound=0.1,
        message=f"{share:.1%} of the mask's tissue does not hang together with the rest, by itself or through removed air between them",
    )
