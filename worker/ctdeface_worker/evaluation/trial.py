"""One input through every segmenter, fill and gate, in memory, and what came of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from time import perf_counter

import numpy as np

from ctdeface_shared.errors import PermanentError, VerificationFailed
from ctdeface_shared.jobs.options import FillRule, Profile
from ctdeface_worker.evaluation.inputs import Input, Subject, load
from ctdeface_worker.evaluation.overlap import dice, hausdorff95_mm, tissue_of
from ctdeface_worker.imaging.domain import BoolArray, Volume
from ctdeface_worker.pipeline.fill import fill_value_hu
from ctdeface_worker.segmentation.base import Segmenter
from ctdeface_worker.training.labels import on_grid
from ctdeface_worker.verification.gate import verify_volume

Measure = Callable[[Input, Volume, Volume], Mapping[str, float]]
"""Figures of an input before and after; a module's function, so that it can go to other processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one segmenter made of one input.

    Attributes:
        segmenter: its name.
        code: why it was refused, empty when released.
        reason: the same for a person.
        skin_removed: share of the facial skin that is gone, by the gate's rays.
        overlap_voxels: of mask and cavity, the gate's and, where it is known, the true one.
        mask_ml: removed tissue.
        dice: with the true face, as networks learn it: on their grid, tissue and the air near it.
        tissue_dice: in tissue alone, on the stored voxels.
        face_kept: share of the true face's tissue that is not in the mask.
        truth95_mm: 95 % of the mask's border in tissue lies nearer to the true one.
        segment_seconds: for the segmenter.
        whole_seconds: load, segmenter, fill and gate, without writing.
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
        """Whether the gate let it pass."""
        return not self.code


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How alike the masks of two segmenters are, in tissue."""

    one: str
    other: str
    dice: float
    hausdorff95_mm: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of one input.

    Attributes:
        name: of the input.
        kind: of the input.
        face_ml: tissue of the true face in view, None where nobody knows it.
        spacing_mm: of the voxels (slice, row, column), empty where it could not be loaded.
        results: one per segmenter.
        agreement: one per pair of segmenters that both made a mask.
        truth_measured: further figures of the true face's own removal: what a perfect mask would
            get from that measure.
    """

    name: str
    kind: str
    face_ml: float | None = None
    spacing_mm: tuple[float, ...] = ()
    results: Sequence[Result]
    agreement: Sequence[Agreement] = ()
    truth_measured: Mapping[str, float] = field(default_factory=dict)


def try_input(
    wanted: Input, segmenters: Sequence[Segmenter], measure: Measure | None = None
) -> Row:
    """Load an input and put it through every segmenter."""
    begun = perf_counter()
    try:
        subject = load(wanted)
    except PermanentError as error:
        refused = [
            Result(segmenter=each.name, code=error.code, reason=str(error)) for each in segmenters
        ]
        return Row(name=wanted.name, kind=wanted.kind, results=refused)
    loaded = perf_counter() - begun
    tried = [_tried(wanted, subject, segmenter, loaded, measure) for segmenter in segmenters]
    return Row(
        name=wanted.name,
        kind=wanted.kind,
        face_ml=subject.face_ml,
        spacing_mm=subject.volume.geometry.spacing_mm,
        results=[result for result, _ in tried],
        agreement=_agreement(
            subject.volume, [(result.segmenter, mask) for result, mask in tried if mask is not None]
        ),
        truth_measured=_of_truth(wanted, subject, measure),
    )


def defaced(volume: Volume, face: BoolArray) -> Volume:
    """Fill a mask with the volume's own air."""
    hu = np.where(face & volume.valid, np.float32(fill_value_hu(volume, FillRule())), volume.hu)
    return Volume(hu=hu, valid=volume.valid, geometry=volume.geometry)


def _tried(
    wanted: Input,
    subject: Subject,
    segmenter: Segmenter,
    loaded_seconds: float,
    measure: Measure | None,
) -> tuple[Result, BoolArray | None]:
    """Return the result and, where there is one, the mask."""
    volume = subject.volume
    begun = perf_counter()
    try:
        mask = segmenter.segment(volume, profile=Profile.SOFT_TISSUE, ears=False)
    except PermanentError as error:
        return Result(
            segmenter=segmenter.name,
            code=error.code,
            reason=str(error),
            segment_seconds=perf_counter() - begun,
        ), None
    segmented = perf_counter() - begun
    after = defaced(volume, mask.face)
    checks = verify_volume(volume, after, mask.face, profile=Profile.SOFT_TISSUE)
    whole = loaded_seconds + perf_counter() - begun
    failed = [check.message for check in checks if not check.passed]
    figures = {check.name: check.figure for check in checks}
    measured = measure(wanted, volume, after) if measure and not failed else {}
    result = Result(
        segmenter=segmenter.name,
        code=VerificationFailed("").code if failed else "",
        reason="; ".join(failed),
        skin_removed=figures.get("facial_skin_removed"),
        overlap_voxels=int(figures.get("brain_untouched") or 0) + _true_overlap(subject, mask.face),
        mask_ml=figures.get("mask_size"),
        segment_seconds=segmented,
        whole_seconds=whole,
        measured=measured,
        **_against_truth(subject, mask.face),
    )
    return result, mask.face


def _of_truth(wanted: Input, subject: Subject, measure: Measure | None) -> Mapping[str, float]:
    if measure is None or subject.face is None or not subject.face.any():
        return {}
    return measure(wanted, subject.volume, defaced(subject.volume, subject.face))


def _true_overlap(subject: Subject, mask: BoolArray) -> int:
    return 0 if subject.brain is None else int(np.count_nonzero(subject.brain & mask))


def _against_truth(subject: Subject, mask: BoolArray) -> dict[str, float | None]:
    if subject.face is None or not subject.face.any():
        return {}
    tissue = tissue_of(subject.volume)
    true, proposed = subject.face & tissue, mask & tissue
    return {
        "dice": dice(
            on_grid(subject.volume, subject.face).face, on_grid(subject.volume, mask).face
        ),
        "tissue_dice": dice(true, proposed),
        "face_kept": int(np.count_nonzero(true & ~mask)) / max(int(np.count_nonzero(true)), 1),
        "truth95_mm": hausdorff95_mm(subject.volume, subject.face, mask),
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
