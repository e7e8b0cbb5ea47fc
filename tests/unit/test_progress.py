"""What a person sees of a batch, on a terminal and elsewhere."""

import io
from dataclasses import replace

from rich.console import Console

from ctdeface_shared.console import printable
from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_worker.batch.progress import display, line_of, summary
from ctdeface_worker.case.run import CaseRun
from ctdeface_worker.imaging.domain import Fate
from ctdeface_worker.pipeline.result import CaseResult, FileResult, SeriesResult
from ctdeface_worker.report.model import CaseReport, State, describe

LONG = "a-case-with-a-name-that-is-longer-than-eighty-columns-as-archives-really-hold-such-names"


def report_of(case: str, state: State, code: str = "", reason: str = "") -> CaseReport:
    """Make a report of one series that took two seconds."""
    fate = Fate.FAILED if code else Fate.RELEASED
    series = (SeriesResult(series="1.2.3", fate=fate, slices=2),)
    result = CaseResult(
        released=not code,
        code=code,
        reason=reason,
        series=series,
        seconds={"read": 0.5, "verify": 1.5},
    )
    return replace(
        describe("job", case, Manifest(files=1, bytes=1, digest=""), DefaceOptions(), result),
        state=state,
    )


def partial_release() -> CaseReport:
    """Return the report of a case released without its failed series."""
    series = tuple(
        SeriesResult(series=f"1.2.{number}", fate=fate, slices=2)
        for number, fate in enumerate((Fate.RELEASED, Fate.FAILED, Fate.FAILED, Fate.WITHHELD))
    )
    files = tuple(
        FileResult(
            file=f"{one.series}.dcm",
            size=1,
            sha256="",
            fate=one.fate,
            series=one.series,
            output_sha256="d" * 64 if one.fate is Fate.RELEASED else "",
        )
        for one in series
    )
    result = CaseResult(released=True, series=series, files=files, seconds={"read": 39.5})
    return replace(report_of("tilted", State.DONE), result=result)


AGAIN = CaseRun(report=report_of("again", State.DONE), resumed_from=State.DONE)
RUNS = [
    CaseRun(report=report_of(LONG, State.DONE)),
    CaseRun(report=report_of("refused", State.REFUSED, "FaceNotFound", "no face is in view")),
    CaseRun(report=report_of("older", State.SUPERSEDED)),
    CaseRun(report=partial_release()),
    CaseRun(report=report_of("replaced", State.DONE), replaced=True),
]
REPLACED = "replaces the earlier output, which is kept in archive/outputs of the state folder"


def printed(*, terminal: bool) -> str:
    """Return the printed summary."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100, color_system=None)
    summary(console, [*RUNS, AGAIN])
    return text.getvalue()


def test_without_a_terminal_each_case_is_one_line_with_tabs() -> None:
    """Case, outcome, seconds, reason and files, never wrapped."""
    assert [line.split("\t") for line in printed(terminal=False).splitlines()] == [
        [LONG, "released", "2.0", "", "0 of 1"],
        [
            "older",
            "superseded",
            "2.0",
            "Superseded: a newer job of this case is published",
            "0 of 1",
        ],
        ["refused", "refused", "2.0", "FaceNotFound: no face is in view", "0 of 1"],
        ["replaced", "released", "2.0", REPLACED, "0 of 1"],
        ["tilted", "released in part", "39.5", "1 of 4 files; 2 series failed", "1 of 4"],
        [
            "again",
            "skipped",
            "0.0",
            "already released with the same input and options",
            "0 of 1",
        ],
    ]


def test_on_a_terminal_there_is_a_table() -> None:
    """It counts series and files, names partial releases and says how to repeat skipped cases."""
    text = printed(terminal=True)
    for part in ("1 of 1", "0 of 1", "1 of 4", "released in part", "1 already released"):
        assert part in text
    assert "--redo repeats" in text


def test_each_case_is_shown_as_soon_as_it_ended() -> None:
    """A superseded case never counts as released; names that would break a terminal are escaped."""
    text = io.StringIO()
    with display(Console(file=text, width=80), 3) as shown:
        for run in [*RUNS, AGAIN]:
            shown.stage(run.report.case, "read")
            report = replace(run.report, case="a\udcff[b]\x1b")
            shown.finished(run.report.case, line_of(replace(run, report=report)))
    assert [line.removeprefix("a\\udcff[b]\\x1b: ") for line in text.getvalue().splitlines()] == [
        "released in 2.0 s",
        "refused, FaceNotFound: no face is in view",
        "superseded, Superseded: a newer job of this case is published",
        "released in part (1 of 4 files; 2 series failed) in 39.5 s",
        f"released in 2.0 s; {REPLACED}",
        "already released, skipped",
    ]


def test_letters_of_every_script_stay_as_they_are() -> None:
    """Only what no terminal can show is escaped."""
    assert printable("Müller 患者\t\udc80") == "Müller 患者\\t\\udc80"
