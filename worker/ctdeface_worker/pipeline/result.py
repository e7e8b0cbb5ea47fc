"""What became of a case: plain values that the pipeline returns and reports are made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from ctdeface_shared.errors import PermanentError
from ctdeface_worker.imaging.domain import ExpectedDifference, Fate
from ctdeface_worker.pipeline.stages import StageRun, Stages
from ctdeface_worker.segmentation.base import Segmenter
from ctdeface_worker.verification.check import Check

_WITH_ITS_CASE = "could be released, but its case was refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileResult:
    """One file of the case with its fate.

    Attributes:
        file: posix path relative to the case's folder.
        size: bytes of the input.
        sha256: of the input.
        fate: released, withheld or failed.
        code: why it is not released; empty when released.
        reason: the same for a person.
        series: name of the series it belongs to, empty where none.
        output_sha256: of the released file, else empty.
        differences: what differs from the input on purpose.
        broken_signatures: digital signatures in it that no longer verify.
    """

    file: str
    size: int
    sha256: str
    fate: Fate
    code: str = ""
    reason: str = ""
    series: str = ""
    output_sha256: str = ""
    differences: tuple[ExpectedDifference, ...] = ()
    broken_signatures: tuple[str, ...] = ()

    def held_back(self, code: str) -> Self:
        """Return the same file when its case is refused: what could have been released is withheld with it."""
        return (
            self
            if self.fate is not Fate.RELEASED
            else replace(
                self,
                fate=Fate.WITHHELD,
                code=code,
                reason=_WITH_ITS_CASE,
                output_sha256="",
                differences=(),
                broken_signatures=(),
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesResult:
    """One series with its fate and the proof.

    Attributes:
        series: SeriesInstanceUID, with the part's number where one series holds several stacks.
        fate: released, withheld or failed.
        code: why it is not released; empty when released.
        reason: the same for a person.
        slices: number of slices.
        voxels: of the volume, 0 when it was not loaded.
        spacing_mm: (slice, row, column).
        orientation: "verified", "not verifiable", or "" when it did not come to that.
        mask_ml: volume of the face mask, 0 when it did not come to that.
        fill_hu: fill value, None when it did not come to that.
        checks: what the gate found.
    """

    series: str
    fate: Fate
    code: str = ""
    reason: str = ""
    slices: int
    voxels: int = 0
    spacing_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    orientation: str = ""
    mask_ml: float = 0.0
    fill_hu: float | None = None
    checks: tuple[Check, ...] = ()

    @property
    def in_short(self) -> str:
        """What was removed, in figures; no name."""
        share = next(
            (
                check.figure
                for check in self.checks
                if check.name == "facial_skin_removed" and check.figure is not None
            ),
            None,
        )
        skin = "" if share is None else f", {share:.2%} of the facial skin gone"
        return f"{self.slices} slices, mask of {self.mask_ml:.0f} ml{skin}"

    def refused(self, fate: Fate, error: PermanentError) -> Self:
        """Return the same series, not released because of an error."""
        return replace(self, fate=fate, code=error.code, reason=str(error))

    def held_back(self, code: str) -> Self:
        """Return the same series when its case is refused: what could have been released is withheld with it."""
        return (
            self
            if self.fate is not Fate.RELEASED
            else replace(self, fate=Fate.WITHHELD, code=code, reason=_WITH_ITS_CASE)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """A case with everything a person may want to know about it.

    Attributes:
        released: True when the staged output may be published.
        code: why not; empty when released.
        reason: the same for a person.
        series: every volume of the case.
        files: every file of the case.
        seconds: per stage.
        timeline: every run of a stage, in the order of their ends.
        segmenter: name of what made the masks.
        model_digest: SHA-256 of the model or of the rules.
        model_origin: "built-in" rules, "shipped" with this package, "verified" by a digest given at
            installation, or "unverified".
    """

    released: bool
    code: str = ""
    reason: str = ""
    series: tuple[SeriesResult, ...] = ()
    files: tuple[FileResult, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    timeline: tuple[StageRun, ...] = ()
    segmenter: str = ""
    model_digest: str = ""
    model_origin: str = ""

    @property
    def released_series(self) -> tuple[str, ...]:
        """Names of the series that are released."""
        return tuple(one.series for one in self.series if one.fate is Fate.RELEASED)

    def with_run(self, segmenter: Segmenter, stages: Stages) -> Self:
        """Add what made the masks and how long each stage took."""
        made = replace(
            self,
            segmenter=segmenter.name,
            model_digest=segmenter.digest,
            model_origin=segmenter.origin,
        )
        return replace(made, seconds=dict(stages.seconds), timeline=tuple(stages.runs))
