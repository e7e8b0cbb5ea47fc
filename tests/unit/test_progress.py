"""What a person sees of a batch, on a terminal and elsewhere."""

import io
from dataclasses import replace

from rich.console import Console

from ctdeface_shared.console import printable
from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_worker.batch.progress import display, line_of, summary
from ctdeface_worker.imaging.domain import Fate
from ctdeface_worker.pipeline.result import CaseResult, SeriesResult
from ctdeface_worker.report.model import CaseReport, State, describe

LONG = "a-case-with-a-name-that-is-much-longer-than-eighty-columns-because-archives-really-hold-such-names"


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


REPORTS = [
    report_of(LONG, State.DONE),
    report_of("refused", State.REFUSED, "FaceNotFound", "no face is in view"),
    report_of("older", State.SUPERSEDED),
]


def printed(*, terminal: bool) -> str:
    """Let the summary be printed."""
    text = io.StringIO()
    summary(
        Console(file=text, force_terminal=terminal, width=80, color_system=None), REPORTS, ["again"]
    )
    return text.getvalue()


def test_without_a_terminal_each_case_is_one_line_with_tabs() -> None:
    """Nothing is wrapped, so the lines can be searched and cut."""
    assert [line.split("\t") for line in printed(terminal=False).splitlines()] == [
        [LONG, "released", "2.0"],
        ["older", "superseded", "2.0", "Superseded: a newer job of this case is published"],
        ["refused", "refused", "2.0", "FaceNotFound: no face is in view"],
        ["again", "skipped", "0.0", "already released with the same input and options"],
    ]


def test_on_a_terminal_there_is_a_table() -> None:
    """It counts the series and says how to repeat what was skipped."""
    text = printed(terminal=True)
    assert "1 of 1" in text
    assert "0 of 1" in text
    assert "1 already released" in text
    assert "--redo repeats" in text


def test_each_case_is_told_as_soon_as_it_ended() -> None:
    """A superseded one never counts as released; names that would break a terminal are spelled out."""
    text = io.StringIO()
    with display(Console(file=text, width=80), 3) as shown:
        for report in REPORTS:
            shown.stage(report.case, "read")
            shown.finished(report.case, line_of(replace(report, case="a\udcff[b]\x1b")))
    assert text.getvalue().splitlines() == [
        "a\\udcff[b]\\x1b: released in 2.0 s",
        "a\\udcff[b]\\x1b: refused, FaceNotFound: no face is in view",
        "a\\udcff[b]\\x1b: superseded, Superseded: a newer job of this case is published",
    ]


def test_letters_of_every_script_stay_as_they_are() -> None:
    """Only what no terminal can show is escaped."""
    assert printable("Müller 患者\t\udc80") == "Müller 患者\\t\\udc80"
