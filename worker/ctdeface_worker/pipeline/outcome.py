"""From the fates of series and files to the outcome of the case: pure rules (DESIGN section 8, rule 2)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ctdeface_shared.errors import NothingToRelease, PermanentError, VerificationFailed
from ctdeface_shared.jobs.options import OnSeriesFailure
from ctdeface_worker.dicom.reader import CaseFiles
from ctdeface_worker.dicom.selection import FileFate
from ctdeface_worker.imaging.domain import Fate, Series
from ctdeface_worker.pipeline.result import CaseResult, FileResult, SeriesResult
from ctdeface_worker.pipeline.verify import ProvenInstance


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesOutcome:
    """A series, what became of it, and its proven files when it may be released."""

    series: Series
    result: SeriesResult
    written: tuple[ProvenInstance, ...] = ()


def conclude(
    case: CaseFiles,
    others: Iterable[FileFate],
    attempts: Sequence[SeriesOutcome],
    on_series_failure: OnSeriesFailure,
) -> CaseResult:
    """Give every file its fate and decide whether the case is released.

    Released = at least one series released and none failed, unless failed series are to be
    withheld. A damaged file whose series is not known holds back the case in any event: it could be
    a slice of any series.
    """
    fates = {fate.file: fate for fate in others}
    files = {file.file: file for file in (*_of_others(case, fates), *_of_series(case, attempts))}
    if files.keys() != {file.name for file in case.files}:
        raise VerificationFailed("not every file of the case has its fate")
    listed = tuple(files[file.name] for file in case.files)
    series = tuple(attempt.result for attempt in attempts)
    refusal = _refusal(series, listed, on_series_failure)
    if refusal is None:
        return CaseResult(released=True, series=series, files=listed)
    code, reason = refusal
    return CaseResult(
        released=False,
        code=code,
        reason=reason,
        series=tuple(one.held_back(code) for one in series),
        files=tuple(file.held_back(code) for file in listed),
    )


def refuse(case: CaseFiles, error: PermanentError) -> CaseResult:
    """Refuse a whole case before any series was made out."""
    files = tuple(
        FileResult(
            file=file.name,
            size=file.size,
            sha256=file.sha256,
            fate=Fate.FAILED,
            code=error.code,
            reason=str(error),
        )
        for file in case.files
    )
    return CaseResult(released=False, code=error.code, reason=str(error), files=files)


def _of_others(case: CaseFiles, fates: Mapping[str, FileFate]) -> Iterator[FileResult]:
    for file in case.files:
        fate = fates.get(file.name)
        if fate is not None:
            yield FileResult(
                file=file.name,
                size=file.size,
                sha256=file.sha256,
                fate=fate.fate,
                code=fate.code,
                reason=fate.reason,
                series=fate.series_instance_uid or "",
            )


def _of_series(case: CaseFiles, attempts: Iterable[SeriesOutcome]) -> Iterator[FileResult]:
    sizes = {file.name: file.size for file in case.files}
    for attempt in attempts:
        proven = {instance.file: instance for instance in attempt.written}
        for instance in attempt.series.instances:
            output = proven.get(instance.file)
            yield FileResult(
                file=instance.file,
                size=sizes[instance.file],
                sha256=instance.sha256,
                fate=attempt.result.fate,
                code=attempt.result.code,
                reason=attempt.result.reason,
                series=attempt.result.series,
                output_sha256=output.sha256 if output else "",
                differences=output.differences if output else (),
                broken_signatures=output.broken_signatures if output else (),
            )


def _refusal(
    series: Sequence[SeriesResult], files: Sequence[FileResult], on_series_failure: OnSeriesFailure
) -> tuple[str, str] | None:
    """Code and reason of what holds the case back, or None; a file that cannot be read is told before what follows from its absence."""
    failures = [file for file in files if file.fate is Fate.FAILED]
    quarantine = on_series_failure is OnSeriesFailure.QUARANTINE
    failed = next(
        (file for file in failures if not file.series),
        failures[0] if failures and quarantine else None,
    )
    if failed is not None:
        return (
            failed.code,
            failed.reason if failed.file in failed.reason else f"{failed.file}: {failed.reason}",
        )
    if any(one.fate is Fate.RELEASED for one in series):
        return None
    if failures:
        return failures[0].code, failures[0].reason
    given = [*(one.reason for one in series), *(file.reason for file in files if file.series)]
    reasons = dict.fromkeys(given or ["the case holds no CT volume"])
    return NothingToRelease.code, f"no series can be released: {'; '.join(reasons)}"
