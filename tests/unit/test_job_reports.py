"""The one reader of reports and the one parser of options."""

import json
from pathlib import Path
from typing import Any

import pytest

from ctdeface_shared.jobs.messages import read_options
from ctdeface_shared.jobs.options import DefaceOptions, Profile
from ctdeface_shared.jobs.reports import parse_report, read_report
from ctdeface_shared.jobs.states import JobState

OPTIONS = DefaceOptions(profile=Profile.BULKY, ears=True, withhold=("1.2.3",))
REPORT: dict[str, Any] = {
    "schema_version": 1,
    "state": "done",
    "generation": 2,
    "created_at": "2026-11-28T08:00:00.000+00:00",
    "manifest": {"files": 1, "bytes": 4, "digest": "d" * 64},
    "result": {
        "code": "",
        "reason": "",
        "files": [{"file": "0.dcm", "size": 4, "sha256": "a" * 64, "output_sha256": "b" * 64}],
    },
    "options": OPTIONS.as_plain(),
    "added_by_a_later_version": True,
}


def test_options_are_read_as_they_were_written() -> None:
    """Messages, reports and replays share this parser."""
    assert read_options(OPTIONS.as_plain()) == OPTIONS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ears": "false"}, r"ears \(bool_type\)"),
        ({"ears": 1}, r"ears \(bool_type\)"),
        ({"segmenter": "../x y"}, r"segmenter \(string_pattern_mismatch\)"),
        ({"profile": "thin"}, r"profile \(enum\)"),
        ({"fill": "100"}, r"fill \(value_error\)"),
        ({"withhold": "1.2.3"}, r"withhold \(tuple_type\)"),
        ({"blur": True}, r"blur \(extra_forbidden\)"),
        ({"headers": None}, r"headers \(enum\)"),
    ],
)
def test_options_with_a_wrong_type_or_an_unknown_name_are_refused(
    change: dict[str, object], message: str
) -> None:
    """`ears: "false"` once turned ears on, and unknown names were ignored."""
    with pytest.raises(ValueError, match=message):
        read_options({**OPTIONS.as_plain(), **change})


def test_a_missing_option_is_refused() -> None:
    """A default could release more than was requested."""
    plain = OPTIONS.as_plain()
    del plain["headers"]
    with pytest.raises(ValueError, match=r"headers \(missing\)"):
        read_options(plain)


def test_a_report_is_read_whatever_a_later_version_adds() -> None:
    """Unknown fields are ignored."""
    report = parse_report(json.dumps(REPORT).encode())
    assert report.state is JobState.DONE
    assert (report.generation, report.manifest.digest) == (2, "d" * 64)
    assert [file.output_sha256 for file in report.result.files] == ["b" * 64]
    assert read_options(report.options) == OPTIONS


@pytest.mark.parametrize(
    "change",
    [
        {"state": "nonsense"},
        {"state": "ordered"},
        {"state": "abandoned"},
        {"created_at": "yesterday"},
        {"created_at": "2026-11-28T08:00:00.000"},
        {"created_at": "0001-01-01T00:00:00+14:00"},
        {"created_at": "9999-12-31T23:59:59-12:00"},
        {"manifest": {}},
        {"result": None},
        {"result": {"code": "", "files": [{"file": "0.dcm"}]}},
    ],
)
def test_what_is_not_a_report_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    """Derived states never stand in a report."""
    content = json.dumps({**REPORT, **change}).encode()
    with pytest.raises(ValueError, match=r"."):
        parse_report(content)
    (tmp_path / "report.json").write_bytes(content)
    assert read_report(tmp_path / "report.json") is None


def test_a_missing_report_is_none(tmp_path: Path) -> None:
    """Folders without a report are normal."""
    assert read_report(tmp_path / "report.json") is None
