"""Render report.html: one self-contained page with the verdict first."""

from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from ctdeface_shared.jobs.remedies import remedy
from ctdeface_worker.imaging.domain import ExpectedDifference, Fate
from ctdeface_worker.pipeline.result import CaseResult, FileResult, SeriesResult
from ctdeface_worker.report.model import CaseReport


@dataclass(frozen=True, slots=True, kw_only=True)
class FileGroup:
    """Files with the same series, fate and reason.

    Attributes:
        series: title of the series, empty for files without one.
        fate: of all files.
        code: why they are not released; empty when released.
        reason: the same for a person.
        files: ordered by name.
        differences: intended differences that all files share.
    """

    series: str
    fate: Fate
    code: str
    reason: str
    files: tuple[FileResult, ...]
    differences: tuple[ExpectedDifference, ...]


def render(report: CaseReport, pictures: Mapping[str, bytes]) -> str:
    """Return the page with escaped text.

    Args:
        report: the content.
        pictures: PNG of each series, by the name of the series; embedded in the page.
    """
    encoded = {series: b64encode(picture).decode("ascii") for series, picture in pictures.items()}
    return _template().render(
        report=report,
        result=report.result,
        series=by_number(report.result.series),
        failures=failures(report.result),
        remedies=remedies(report.result),
        groups=file_groups(report.result),
        pictures=[
            (one, encoded[one.series])
            for one in report.result.series
            if one.fate is Fate.RELEASED and one.series in encoded
        ],
    )


def remedies(result: CaseResult) -> dict[str, str]:
    """Return the remedies by code; empty without failures."""
    codes = [result.code, *(one.code for one in result.series if one.fate is Fate.FAILED)]
    released = bool(result.released_series)
    texts = {code: remedy(code, others_are_released=released) for code in codes}
    return {code: text for code, text in texts.items() if text}


def failures(result: CaseResult) -> list[str]:
    """Return the reason of each failed file and series, or that of the case."""
    files = [
        one.reason if one.file in one.reason else f"{one.file}: {one.reason}"
        for one in result.files
        if one.fate is Fate.FAILED and not one.series and one.reason != result.reason
    ]
    series = [f"{one.title}: {one.reason}" for one in result.series if one.fate is Fate.FAILED]
    return files + series or [result.reason]


def by_number(series: Iterable[SeriesResult]) -> list[SeriesResult]:
    """Order series by SeriesNumber, those without number last."""
    return sorted(series, key=lambda one: (one.number is None, one.number or 0))


def file_groups(result: CaseResult) -> tuple[FileGroup, ...]:
    """Group files by series, fate and reason."""
    titles = {one.series: one.title for one in result.series}
    groups: dict[tuple[str, Fate, str, str], list[FileResult]] = defaultdict(list)
    for file in result.files:
        title = titles.get(file.series, file.series)
        groups[title, file.fate, file.code, file.reason].append(file)
    return tuple(
        FileGroup(
            series=title,
            fate=fate,
            code=code,
            reason=reason,
            files=tuple(files),
            differences=_shared_differences(files),
        )
        for (title, fate, code, reason), files in groups.items()
    )


def _shared_differences(files: Iterable[FileResult]) -> tuple[ExpectedDifference, ...]:
    first, *others = [file.differences for file in files]
    return tuple(one for one in first if all(one in other for other in others))


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("ctdeface_worker.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["megabytes"] = lambda size: f"{size / 1e6:.2f} MB"
    environment.filters["figure"] = lambda value: "" if value is None else f"{value:.4g}"
    environment.filters["code_parts"] = code_parts
    environment.filters["sentence"] = as_sentence
    environment.filters["capitalize_first"] = capitalize_first
    return environment.get_template("report.html.j2")


def code_parts(text: str) -> list[tuple[str, bool]]:
    """Split a text at its backticks.

    True marks a part that is code.
    """
    return [(part, number % 2 == 1) for number, part in enumerate(text.split("`"))]


def as_sentence(text: str) -> str:
    """Return the text as a sentence."""
    return capitalize_first(text) + ("" if text.endswith(".") else ".")


def capitalize_first(text: str) -> str:
    """Return the text with a capital first letter."""
    return text[:1].upper() + text[1:]
