"""Results of a case, its series and files."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from ctdeface_shared.errors import PermanentError
from ctdeface_worker.dicom.series_label import SeriesLabel
from ctdeface_worker.imaging.domain import ExpectedDifference, Fate
from ctdeface_worker.pipeline.stages import StageRun, Stages
from ctdeface_worker.segmentation.base import Segmenter
from ctdeface_worker.verification.check import Check

_HELD_BACK = "passed its checks; withheld because the case was refused"


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
        differences: intended differences from the input.
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
        """Return the file withheld with its refused case."""
        if self.fate is not Fate.RELEASED:
            return self
        return replace(
            self,
            fate=Fate.WITHHELD,
            code=code,
            reason=_HELD_BACK,
            output_sha256="",
            differences=(),
            broken_signatures=(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesResult:
    """One series with its fate and checks.

    Attributes:
        series: SeriesInstanceUID, with the part's number where one series holds several stacks.
        number: SeriesNumber, None when absent.
        description: SeriesDescription, empty when absent.
        kind: such as "CT AXIAL", or the SOP class of objects other than CT.
        fate: released, withheld or failed.
        code: why it is not released; empty when released.
        reason: the same for a person.
        slices: number of slices; of files, where they do not make a volume.
        voxels: of the volume, 0 when it was not loaded.
        spacing_mm: (slice, row, column).
        orientation: "verified", "not verifiable", or "" when it was not examined.
        mask_ml: volume of the face mask, air included; 0 when there is none.
        tissue_ml: volume of the tissue in the mask, without air; 0 when there is none.
        fill_hu: fill value, None when nothing was filled.
        checks: all checks of the gate.
    """

    series: str
    number: int | None = None
    description: str = ""
    kind: str = ""
    fate: Fate
    code: str = ""
    reason: str = ""
    slices: int
    voxels: int = 0
    spacing_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    orientation: str = ""
    mask_ml: float = 0.0
    tissue_ml: float = 0.0
    fill_hu: float | None = None
    checks: tuple[Check, ...] = ()

    @property
    def identity(self) -> str:
        """Number and UID, without free text, for reasons that terminals show."""
        if self.number is None:
            return f"series {self.series}"
        return f"series {self.number} ({self.series})"

    @property
    def title(self) -> str:
        """Number, description and UID, for the pages of the report."""
        if not self.description:
            return self.identity
        number = "" if self.number is None else f" {self.number}"
        return f'series{number} "{self.description}" ({self.series})'

    @property
    def is_held_back(self) -> bool:
        """Whether only the refusal of its case withholds it."""
        return self.fate is Fate.WITHHELD and self.reason == _HELD_BACK

    @property
    def figures(self) -> str:
        """Figures of the removal in one line, without names."""
        share = next(
            (
                check.figure
                for check in self.checks
                if check.name == "facial_skin_removed" and check.figure is not None
            ),
            None,
        )
        skin = "" if share is None else f", {share:.2%} of the facial skin gone"
        removed = f"{self.tissue_ml:.0f} ml of tissue removed (mask of {self.mask_ml:.0f} ml)"
        return f"{self.slices} slices, {removed}{skin}"

    def labeled(self, label: SeriesLabel) -> Self:
        """Return the result with the label of the series."""
        return replace(self, number=label.number, description=label.description, kind=label.kind)

    def refused(self, fate: Fate, error: PermanentError) -> Self:
        """Return the result of a series that an error ended."""
        return replace(self, fate=fate, code=error.code, reason=str(error))

    def held_back(self, code: str) -> Self:
        """Return the series withheld with its refused case."""
        if self.fate is not Fate.RELEASED:
            return self
        return replace(self, fate=Fate.WITHHELD, code=code, reason=_HELD_BACK)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """Outcome of a case with series and files.

    Attributes:
        released: True when the staged output may be published.
        code: why not; empty when released.
        reason: the same for a person.
        series: every series of the case; first those that were defaced or tried.
        files: every file of the case.
        seconds: per stage.
        timeline: every run of a stage, in the order of their ends.
        segmenter: name of the segmenter that made the masks.
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

    @property
    def failed_series(self) -> tuple[str, ...]:
        """Names of the series that failed."""
        return tuple(one.series for one in self.series if one.fate is Fate.FAILED)

    @property
    def released_files(self) -> int:
        """Number of released files."""
        return sum(file.fate is Fate.RELEASED for file in self.files)

    @property
    def is_partial(self) -> bool:
        """Whether the case is released without failed series."""
        return self.released and any(file.fate is Fate.FAILED for file in self.files)

    def with_run(self, segmenter: Segmenter, stages: Stages) -> Self:
        """Return the result with segmenter and times."""
        return replace(
            self,
            segmenter=segmenter.name,
            model_digest=segmenter.digest,
            model_origin=segmenter.origin,
            seconds=dict(stages.seconds),
            timeline=tuple(stages.runs),
        )
