"""From the fates of series and files to the outcome of the case, row by row."""

from dataclasses import replace
from pathlib import Path

import pytest

from ctdeface_shared.errors import MissingSlices, VerificationFailed
from ctdeface_shared.jobs.options import OnSeriesFailure
from ctdeface_worker.dicom.reader import CaseFile, CaseFiles, FileKind, read_case
from ctdeface_worker.dicom.selection import FileFate, Selection, select
from ctdeface_worker.dicom.series_label import SeriesLabel
from ctdeface_worker.imaging.domain import (
    DifferenceKind,
    ExpectedDifference,
    Fate,
    Instance,
    PixelFormat,
    Placement,
    Series,
)
from ctdeface_worker.pipeline.outcome import SeriesOutcome, conclude_case, refuse_case
from ctdeface_worker.pipeline.result import CaseResult, SeriesResult
from ctdeface_worker.pipeline.verify import VerifiedInstance
from tests.support.ct_files import put, stack

QUARANTINE, WITHHOLD = OnSeriesFailure.QUARANTINE, OnSeriesFailure.WITHHOLD
FACE = ExpectedDifference(
    path="(7FE0,0010)", kind=DifferenceKind.CHANGED, reason="the face is replaced by air"
)


def outcome_of(uid: str, fate: Fate, code: str = "", reason: str = "") -> SeriesOutcome:
    """Return a series of one instance, file `uid`, with its fate."""
    instance = Instance(
        file=uid,
        sha256="in",
        content=b"",
        study_instance_uid="1",
        series_instance_uid=uid,
        sop_instance_uid=uid,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        placement=Placement(
            position=(0, 0, 0), orientation=(1, 0, 0, 0, 1, 0), pixel_spacing_mm=(1, 1)
        ),
        pixels=PixelFormat(rows=1, columns=1, bits_stored=16, signed=False, slope=1, intercept=0),
    )
    verified = VerifiedInstance(
        file=uid, sha256="out", differences=(FACE,), broken_signatures=("(FFFA,FFFA)",)
    )
    return SeriesOutcome(
        series=Series(series_instance_uid=uid, instances=(instance,)),
        result=SeriesResult(series=uid, fate=fate, code=code, reason=reason, slices=1),
        written=(verified,) if fate is Fate.RELEASED else (),
    )


def released(uid: str = "good") -> SeriesOutcome:
    """Return a series that may be released."""
    return outcome_of(uid, Fate.RELEASED)


def failed(uid: str = "bad") -> SeriesOutcome:
    """Return a series that failed."""
    return outcome_of(uid, Fate.FAILED, "VerificationFailed", "skin is left")


def withheld(uid: str = "crown") -> SeriesOutcome:
    """Return a series without a face in view."""
    return outcome_of(uid, Fate.WITHHELD, "FaceNotFound", "no face is in view")


def other(file: str, fate: Fate, code: str, series: str | None = None) -> FileFate:
    """Return the fate of a file outside every volume."""
    return FileFate(
        file=file, fate=fate, code=code, reason=f"{code} it is", series_instance_uid=series
    )


SCOUT = other("scout", Fate.WITHHELD, "Localizer", "9")
TEXT = other("notes.txt", Fate.WITHHELD, "NotDicom")
BROKEN = other("broken", Fate.FAILED, "UnreadableInstance")
LABELS = {"8": SeriesLabel(number=4, description="Brain Bone 5.0", kind="CT AXIAL")}
BROKEN_IN_SERIES = other("broken", Fate.FAILED, "UnreadableInstance", "8")


def concluded(
    attempts: list[SeriesOutcome], others: list[FileFate], rule: OnSeriesFailure
) -> CaseResult:
    """Conclude a case of exactly these series and files."""
    names = sorted(
        [*(one.series.instances[0].file for one in attempts), *(one.file for one in others)]
    )
    files = tuple(CaseFile(name=name, size=7, sha256="in", kind=FileKind.DICOM) for name in names)
    selected = Selection(series=(), others=tuple(others), labels=LABELS)
    return conclude_case(CaseFiles(root=Path(), files=files), selected, attempts, rule)


@pytest.mark.parametrize(
    ("attempts", "others", "rule", "code"),
    [
        ([released()], [], QUARANTINE, ""),
        ([released(), released("too")], [SCOUT, TEXT], QUARANTINE, ""),
        ([released(), withheld()], [], QUARANTINE, ""),
        ([released(), failed()], [], QUARANTINE, "VerificationFailed"),
        ([released(), failed()], [], WITHHOLD, ""),
        ([released(), failed(), withheld()], [SCOUT], WITHHOLD, ""),
        ([failed()], [], QUARANTINE, "VerificationFailed"),
        ([failed()], [], WITHHOLD, "VerificationFailed"),
        ([failed(), withheld()], [], WITHHOLD, "VerificationFailed"),
        ([withheld()], [], QUARANTINE, "NothingToRelease"),
        ([withheld()], [], WITHHOLD, "NothingToRelease"),
        ([], [SCOUT, TEXT], QUARANTINE, "NothingToRelease"),
        ([], [], QUARANTINE, "NothingToRelease"),
        ([released()], [BROKEN], QUARANTINE, "UnreadableInstance"),
        ([released()], [BROKEN], WITHHOLD, "UnreadableInstance"),
        ([released()], [BROKEN_IN_SERIES], QUARANTINE, "UnreadableInstance"),
        ([released()], [BROKEN_IN_SERIES], WITHHOLD, ""),
        ([], [BROKEN_IN_SERIES], WITHHOLD, "UnreadableInstance"),
        ([failed()], [BROKEN], WITHHOLD, "UnreadableInstance"),
    ],
)
def test_the_outcome_follows_from_the_fates(
    attempts: list[SeriesOutcome], others: list[FileFate], rule: OnSeriesFailure, code: str
) -> None:
    """A series must be released, none may fail, and no file may be of an unknown series."""
    result = concluded(attempts, others, rule)
    assert (result.released, result.code) == (not code, code)
    assert bool(result.reason) is bool(code)


def test_every_file_keeps_its_own_fate_in_a_released_case() -> None:
    """Ordered by name, each with code and reason, and what was proven about the released ones."""
    result = concluded([released(), failed()], [SCOUT, TEXT], WITHHOLD)
    assert [(file.file, file.fate, file.code) for file in result.files] == [
        ("bad", Fate.FAILED, "VerificationFailed"),
        ("good", Fate.RELEASED, ""),
        ("notes.txt", Fate.WITHHELD, "NotDicom"),
        ("scout", Fate.WITHHELD, "Localizer"),
    ]
    good = result.files[1]
    assert (good.output_sha256, good.differences, good.broken_signatures) == (
        "out",
        (FACE,),
        ("(FFFA,FFFA)",),
    )
    assert result.released_series == ("good",)


def test_a_refused_case_shows_no_file_as_released() -> None:
    """Releasable files are withheld with their case; the reason says how to release them."""
    result = concluded([released(), failed()], [], QUARANTINE)
    assert [(file.fate, file.code, file.output_sha256) for file in result.files] == [
        (Fate.FAILED, "VerificationFailed", ""),
        (Fate.WITHHELD, "VerificationFailed", ""),
    ]
    assert {one.fate for one in result.series} == {Fate.FAILED, Fate.WITHHELD}
    assert result.reason == (
        "series bad: skin is left. 1 other series passed; to release them, repeat with "
        "--on-series-failure withhold"
    )
    assert [one.is_held_back for one in result.series] == [True, False]


def test_every_series_has_a_row_and_a_refusal_lists_several_reasons() -> None:
    """Also a series without a volume; reasons name number and UID, never free text."""
    result = concluded([released(), failed()], [BROKEN_IN_SERIES, SCOUT], QUARANTINE)
    assert [(one.series, one.number, one.description, one.kind) for one in result.series[2:]] == [
        ("8", 4, "Brain Bone 5.0", "CT AXIAL"),
        ("9", None, "", ""),
    ]
    assert result.reason.startswith(
        "series bad: skin is left; series 4 (8): broken: UnreadableInstance it is"
    )


def test_a_file_of_no_known_series_holds_the_case_back_first() -> None:
    """No option would release the others, so none is suggested."""
    result = concluded([released(), failed()], [BROKEN], QUARANTINE)
    assert result.reason == "broken: UnreadableInstance it is; series bad: skin is left"


def test_the_result_counts_what_is_released() -> None:
    """A case without one of its series is released in part."""
    whole = concluded([released()], [SCOUT, TEXT], QUARANTINE)
    part = concluded([released(), failed()], [SCOUT], WITHHOLD)
    assert [(one.is_partial, one.released_files, len(one.files)) for one in (whole, part)] == [
        (False, 1, 3),
        (True, 1, 3),
    ]
    assert (part.released_series, part.failed_series) == (("good",), ("bad",))


def test_a_case_with_nothing_to_release_says_why() -> None:
    """Each reason once, with its series; text beside the images does not count."""
    reason = concluded([withheld(), withheld("crown 2")], [SCOUT, TEXT], QUARANTINE).reason
    assert (
        reason
        == "no series can be released: 2 series: no face is in view; series 9: Localizer it is"
    )


def test_a_file_without_a_fate_is_no_case_to_conclude() -> None:
    """Nothing is dropped silently: a hole in the account is an error."""
    files = tuple(
        CaseFile(name=name, size=7, sha256="in", kind=FileKind.DICOM) for name in ("good", "lost")
    )
    with pytest.raises(VerificationFailed, match="lost has no fate"):
        conclude_case(
            CaseFiles(root=Path(), files=files),
            Selection(series=(), others=()),
            [released()],
            QUARANTINE,
        )


def test_a_case_refused_as_a_whole_still_accounts_for_every_file() -> None:
    """Two patients, or no DICOM at all: all files share the case's code."""
    files = tuple(CaseFile(name=name, size=7, sha256="in", kind=FileKind.DICOM) for name in "ab")
    result = refuse_case(CaseFiles(root=Path(), files=files), MissingSlices("a slice is missing"))
    assert (result.released, result.code, result.reason) == (
        False,
        "MissingSlices",
        "a slice is missing",
    )
    assert [(file.file, file.fate, file.code) for file in result.files] == [
        ("a", Fate.FAILED, "MissingSlices"),
        ("b", Fate.FAILED, "MissingSlices"),
    ]


def test_a_damaged_slice_fails_the_series_that_it_names(tmp_path: Path) -> None:
    """The other files of that series are not released without it."""
    *good, last = stack(5)
    put(tmp_path, [*good, replace(last, elements={"Rows": [6, 6]}), *stack(4, series="2")])
    selection = select(read_case(tmp_path))
    assert [series.series_instance_uid.rsplit(".", 1)[1] for series in selection.series] == ["2"]
    assert {(fate.file, fate.fate, fate.code) for fate in selection.others} == {
        (f"1-{number:04d}.dcm", Fate.FAILED, "UnreadableInstance") for number in range(1, 6)
    }
