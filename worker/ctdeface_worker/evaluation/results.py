"""Evaluation of one input in memory.

It runs every segmenter, fills the mask and runs the gate.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from time import perf_counter

import numpy as np

from ctdeface_shared.errors import PermanentError, VerificationFailed
from ctdeface_shared.jobs.options import FillRule, Profile
from ctdeface_worker.evaluation.inputs import Input, LoadedInput, load
from ctdeface_worker.evaluation.overlap import dice, hausdorff95_mm, tissue_of
from ctdeface_worker.imaging.domain import BoolArray, Volume
from ctdeface_worker.pipeline.fill import fill_value_hu
from ctdeface_worker.segmentation.base import Segmenter
from ctdeface_worker.training.labels import on_grid
from ctdeface_worker.verification.gate import verify_volume

Measure = Callable[[Input, Volume, Volume], Mapping[str, float]]
"""Further figures of an input before and after; picklable, for other processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmenterResult:
    """Result of one segmenter on one input.

    Attributes:
        segmenter: name of the segmenter.
        code: of the refusal; empty if released.
        reason: of the refusal, in words.
        skin_removed: share of the facial skin that was removed, by the gate's rays.
        overlap_voxels: voxels of the mask in the gate's cavity, plus those in the true cavity if
            it is known.
        mask_ml: removed volume in ml.
        dice: Dice with the true face on the training grid, in tissue and the air near it.
        tissue_dice: Dice in tissue only, on the stored voxels.
        face_kept: share of the true face's tissue outside the mask.
        truth95_mm: 95th percentile of the distance to the true border in tissue, in mm.
        segment_seconds: time of the segmenter.
        whole_seconds: time of loading, segmenter, fill and gate, without writing.
        measured: further figures.
    """

    segmenter: str
    code: str = ""
    reason: str = ""
    skin_removed: float | None = None
    overlap_voxels: int = 0
    mask_ml: float | None = None
    dice: float | None = None
    tissue_dice: float | None = None
    face_kept: float | None = None
    truth95_mm: float | None = None
    segment_seconds: float = 0.0
    whole_seconds: float = 0.0
    measured: Mapping[str, float] = field(default_factory=dict)

    @property
    def released(self) -> bool:
        """True if every check of the gate passed."""
        return not self.code


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Agreement of two segmenters' masks in tissue."""

    one: str
    other: str
    dice: float
    hausdorff95_mm: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InputResult:
    """Results of one input.

    Attributes:
        name: of the input.
        kind: of the input.
        face_ml: tissue of the true face in ml, None if unknown.
        spacing_mm: of the voxels (slice, row, column), empty if the input could not be loaded.
        results: one per segmenter.
        agreement: one per pair of segmenters with a mask.
        truth_measured: further figures of a perfect mask, the true face.
    """

    name: str
    kind: str
    face_ml: float | None = None
    spacing_mm: tuple[float, ...] = ()
    results: Sequence[SegmenterResult]
    agreement: Sequence[Agreement] = ()
    truth_measured: Mapping[str, float] = field(default_factory=dict)


def evaluate_input(
    wanted: Input, segmenters: Sequence[Segmenter], measure: Measure | None = None
) -> InputResult:
    """Load an input and evaluate every segmenter on it."""
    begun = perf_counter()
    try:
        loaded = load(wanted)
    except PermanentError as error:
        refused = [
            SegmenterResult(segmenter=each.name, code=error.code, reason=str(error))
            for each in segmenters
        ]
        return InputResult(name=wanted.name, kind=wanted.kind, results=refused)
    load_seconds = perf_counter() - begun
    evaluated = [
        _evaluated(wanted, loaded, segmenter, load_seconds, measure) for segmenter in segmenters
    ]
    return InputResult(
        name=wanted.name,
        kind=wanted.kind,
        face_ml=loaded.face_ml,
        spacing_mm=loaded.volume.geometry.spacing_mm,
        results=[result for result, _ in evaluated],
        agreement=_agreement(
            loaded.volume,
            [(result.segmenter, mask) for result, mask in evaluated if mask is not None],
        ),
        truth_measured=_of_truth(wanted, loaded, measure),
    )


def defaced(volume: Volume, face: BoolArray) -> Volume:
    """Fill the mask with the volume's air value."""
    hu = np.where(face & volume.valid, np.float32(fill_value_hu(volume, FillRule())), volume.hu)
    return Volume(hu=hu, valid=volume.valid, geometry=volume.geometry)


def _evaluated(
    wanted: Input,
    loaded: LoadedInput,
    segmenter: Segmenter,
    load_seconds: float,
    measure: Measure | None,
) -> tuple[SegmenterResult, BoolArray | None]:
    """Return the result, and the mask if there is one."""
    volume = loaded.volume
    begun = perf_counter()
    try:
        mask = segmenter.segment(volume, profile=Profile.SOFT_TISSUE, ears=False)
    except PermanentError as error:
        return SegmenterResult(
            segmenter=segmenter.name,
            code=error.code,
            reason=str(error),
            segment_seconds=perf_counter() - begun,
        ), None
    segmented = perf_counter() - begun
    after = defaced(volume, mask.face)
    checks = verify_volume(volume, after, mask.face, profile=Profile.SOFT_TISSUE)
    whole = load_seconds + perf_counter() - begun
    failed = [check.message for check in checks if not check.passed]
    figures = {check.name: check.figure for check in checks}
    measured = measure(wanted, volume, after) if measure and not failed else {}
    result = SegmenterResult(
        segmenter=segmenter.name,
        code=VerificationFailed("").code if failed else "",
        reason="; ".join(failed),
        skin_removed=figures.get("facial_skin_removed"),
        overlap_voxels=int(figures.get("brain_untouched") or 0) + _true_overlap(loaded, mask.face),
        mask_ml=figures.get("mask_size"),
        segment_seconds=segmented,
        whole_seconds=whole,
        measured=measured,
        **_against_truth(loaded, mask.face),
    )
    return result, mask.face


def _of_truth(wanted: Input, loaded: LoadedInput, measure: Measure | None) -> Mapping[str, float]:
    if measure is None or loaded.face is None or not loaded.face.any():
        return {}
    return measure(wanted, loaded.volume, defaced(loaded.volume, loaded.face))


def _true_overlap(loaded: LoadedInput, mask: BoolArray) -> int:
    return 0 if loaded.brain is None else int(np.count_nonzero(loaded.brain & mask))


def _against_truth(loaded: LoadedInput, mask: BoolArray) -> dict[str, float | None]:
    if loaded.face is None or not loaded.face.any():
        return {}
    tissue = tissue_of(loaded.volume)
    true, proposed = loaded.face & tissue, mask & tissue
    return {
        "dice": dice(on_grid(loaded.volume, loaded.face).face, on_grid(loaded.volume, mask).face),
        "tissue_dice": dice(true, proposed),
        "face_kept": int(np.count_nonzero(true & ~mask)) / max(int(np.count_nonzero(true)), 1),
        "truth95_mm": hausdorff95_mm(loaded.volume, loaded.face, mask),
    }


def _agreement(volume: Volume, masks: Sequence[tuple[str, BoolArray]]) -> list[Agreement]:
    tissue = tissue_of(volume) if len(masks) > 1 else None
    return [
        Agreement(
            one=one,
            other=other,
            dice=dice(first & tissue, second & tissue),
            hausdorff95_mm=hausdorff95_mm(volume, first, second),
        )
        for (one, first), (other, second) in combinations(masks, 2)
        if tissue is not None
    ]
