"""Deface one volume in memory, verify it, and measure it by the tests' own rays."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ctdeface_shared.errors import PermanentError, VerificationFailed
from ctdeface_shared.jobs.options import FillRule, Profile
from ctdeface_worker.imaging.domain import FaceMask, Volume
from ctdeface_worker.pipeline.fill import fill_value_hu
from ctdeface_worker.segmentation.base import Segmenter
from ctdeface_worker.verification.gate import verify_volume
from tests.support.measure.heads import HEADS
from tests.support.measure.nose import window_by_nose
from tests.support.measure.skin import VIEWS, facial_skin


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeResult:
    """The result of one volume.

    Attributes:
        name: which volume.
        code: of the refusal; empty if the volume was released.
        reason: the messages of the failed checks.
        counted: rays of the tests' measure; 0 where no face was found to measure.
        removed: share of facial skin that is gone, None where not measured.
        bright: share of rays not counted for brightness, None where not measured.
        worst_oblique: smallest share removed of the oblique views, None where not measured.
        cavity_ml: intracranial cavity in view.
        overlap_voxels: of mask and cavity.
        mask_ml: of the mask, air before the face included.
        segment_seconds: for the segmenter.
        verify_seconds: for the gate.
    """

    name: str
    code: str
    reason: str = ""
    counted: int = 0
    removed: float | None = None
    bright: float | None = None
    worst_oblique: float | None = None
    cavity_ml: float = 0.0
    overlap_voxels: int = 0
    mask_ml: float = 0.0
    segment_seconds: float = 0.0
    verify_seconds: float = 0.0

    @property
    def released(self) -> bool:
        """True if every check of the gate passed."""
        return not self.code


def defaced(volume: Volume, mask: FaceMask) -> Volume:
    """Fill the mask with air as in the volume; keep the padding."""
    hu = volume.hu.copy()
    hu[mask.face & volume.valid] = fill_value_hu(volume, FillRule())
    return Volume(hu=hu, valid=volume.valid, geometry=volume.geometry)


def deface_volume(
    name: str, volume: Volume, segmenter: Segmenter, views: Iterable[str] = tuple(VIEWS)
) -> VolumeResult:
    """Deface a volume in memory, verify it, and measure the views of a face."""
    profile = Profile.SOFT_TISSUE
    begun = time.perf_counter()
    try:
        mask = segmenter.segment(volume, profile=profile, ears=False)
    except PermanentError as error:
        return VolumeResult(
            name=name,
            code=error.code,
            reason=str(error),
            segment_seconds=time.perf_counter() - begun,
        )
    segmented = time.perf_counter()
    after = defaced(volume, mask)
    checks = verify_volume(volume, after, mask.face, profile=profile)
    verified = time.perf_counter()
    figures = {check.name: check.figure or 0.0 for check in checks}
    failures = [check.message for check in checks if not check.passed]
    window = HEADS.get(name) or window_by_nose(volume)
    skin = facial_skin(volume, after, window, views) if window and not failures else None
    measured = skin is not None and skin.counted > 0
    return VolumeResult(
        name=name,
        code=VerificationFailed("").code if failures else "",
        reason="; ".join(failures),
        counted=skin.counted if skin else 0,
        removed=skin.removed if skin and measured else None,
        bright=skin.bright if skin and measured else None,
        worst_oblique=skin.worst_oblique if skin and measured and len(skin.views) > 1 else None,
        cavity_ml=figures.get("cavity_found", 0.0),
        overlap_voxels=int(figures.get("brain_untouched", 0)),
        mask_ml=float(np.count_nonzero(mask.face) * np.prod(volume.geometry.spacing_mm) / 1000),
        segment_seconds=segmented - begun,
        verify_seconds=verified - segmented,
    )
