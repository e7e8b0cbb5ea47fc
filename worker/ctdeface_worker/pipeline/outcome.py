"""Decide the outcome of a case from all fates.

The rules are pure. A case is released when at least one series is released and none failed, or when
failed series may be withheld.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ctdeface_shared.errors import NothingToRelease, PermanentError, VerificationFailed
from ctdeface_shared.jobs.options import OnSeriesFailure
from ctdeface_worker.dicom.reader import CaseFiles
from ctdeface_worker.dicom.selection import FileFate, Selection
from ctdeface_worker.dicom.series_label import NO_LABEL
from ctdeface_worker.imaging.domain import Fate, Series
from ctdeface_worker.pipeline.result import CaseResult, FileResult, SeriesResult
from ctdeface_worker.pipeline.verify import VerifiedInstance

_MOST_REASONS = 3
"""Reasons that a refusal spells out; the report lists all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesOutcome:
    """A volume with its result and verified files."""

    series: Series
    result: SeriesResult
    written: tuple[VerifiedInstance, ...] = ()


def conclude_case(
    case: CaseFiles,
    selected: Selection,
    outcomes: Sequence[SeriesOutcome],
    on_series_failure: OnSeriesFailure,
) -> CaseResult:
    """Give every file its fate; release or refuse.

    A damaged file of an unknown series always holds back the case: it could be a slice of any
    series.

    Args:
        case: all files.
        selected: fates of the files outside the volumes, and labels of all series.
        outcomes: one for each volume.
        on_series_failure: whether a failed series holds back the others.

    Raises:
        VerificationFailed: a file of the case has no fate.
    """
    fates = {fate.file: fate for fate in selected.others}
    results = (*_files_outside_volumes(case, fates), *_files_of_volumes(case, outcomes))
    by_name = {file.file: file for file in results}
    if by_name.keys() != {file.name for file in case.files}:
        missing = sorted({file.name for file in case.files} ^ by_name.keys())
        raise VerificationFailed(
            f"{missing[0]} has no fate, or is not in the case; each file needs exactly one"
        )
    files = tuple(by_name[file.name] for file in case.files)
    series = (*(outcome.result for outcome in outcomes), *_series_outside_volumes(selected))
    refusal = _refusal(series, files, on_series_failure)
    if refusal is None:
        return CaseResult(released=True, series=series, files=files)
    code, reason = refusal
    return CaseResult(
        released=False,
        code=code,
        reason=reason,
        series=tuple(one.held_back(code) for one in series),
        files=tuple(file.held_back(code) for file in files),
    )


def refuse_case(case: CaseFiles, error: PermanentError) -> CaseResult:
    """Refuse a whole case before its series are known."""
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


def _files_outside_volumes(case: CaseFiles, fates: Mapping[str, FileFate]) -> Iterator[FileResult]:
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


def _files_of_volumes(case: CaseFiles, outcomes: Iterable[SeriesOutcome]) -> Iterator[FileResult]:
    sizes = {file.name: file.size for file in case.files}
    for outcome in outcomes:
        written = {instance.file: instance for instance in outcome.written}
        for instance in outcome.series.instances:
            output = written.get(instance.file)
            yield FileResult(
                file=instance.file,
                size=sizes[instance.file],
                sha256=instance.sha256,
                fate=outcome.result.fate,
                code=outcome.result.code,
                reason=outcome.result.reason,
                series=outcome.result.series,
                output_sha256=output.sha256 if output else "",
                differences=output.differences if output else (),
                broken_signatures=output.broken_signatures if output else (),
            )


def _series_outside_volumes(selected: Selection) -> Iterator[SeriesResult]:
    """Yield results of series that are not volumes."""
    groups: dict[tuple[str, str], list[FileFate]] = defaultdict(list)
    for fate in selected.others:
        if fate.series_instance_uid:
            groups[fate.series_instance_uid, fate.code].append(fate)
    for (uid, code), fates in sorted(groups.items()):
        causes = [fate for fate in fates if not fate.follows] or fates
        yield SeriesResult(
            series=uid,
            fate=causes[0].fate,
            code=code,
            reason=_joined(_reasons(causes)),
            slices=len(fates),
        ).labeled(selected.labels.get(uid, NO_LABEL))


def _reasons(fates: Iterable[FileFate]) -> list[str]:
    """Return each reason once.

    The reason of a single failed file names the file.
    """
    files: dict[str, list[FileFate]] = defaultdict(list)
    for fate in fates:
        files[fate.reason].append(fate)
    return [
        _named(alike[0].file, reason)
        if len(alike) == 1 and alike[0].fate is Fate.FAILED
        else reason
        for reason, alike in files.items()
    ]


def _refusal(
    series: Sequence[SeriesResult],
    files: Sequence[FileResult],
    on_series_failure: OnSeriesFailure,
) -> tuple[str, str] | None:
    """Return code and reason of a refusal, else None.

    An unreadable file comes first, because the errors of the series may follow from it. Failed
    series follow in the order of their files, and the first one gives the code.
    """
    unassigned = [file for file in files if file.fate is Fate.FAILED and not file.series]
    failed = _by_files((one for one in series if one.fate is Fate.FAILED), files)
    released = [one for one in series if one.fate is Fate.RELEASED]
    may_withhold = not failed or on_series_failure is OnSeriesFailure.WITHHOLD
    if released and not unassigned and may_withhold:
        return None
    reasons = [_named(file.file, file.reason) for file in unassigned]
    reasons += [f"{one.identity}: {one.reason}" for one in failed]
    if not reasons:
        return NothingToRelease.code, _nothing_to_release(series)
    rest = ""
    if released and not unassigned:
        rest = (
            f". {len(released)} other series passed; to release them, repeat with "
            "--on-series-failure withhold"
        )
    code = unassigned[0].code if unassigned else failed[0].code
    return code, _joined(reasons) + rest


def _by_files(
    series: Iterable[SeriesResult], files: Sequence[FileResult]
) -> Sequence[SeriesResult]:
    """Return series in the order of their first failed files."""
    order = dict.fromkeys((file.series, file.code) for file in files if file.fate is Fate.FAILED)
    places = {key: number for number, key in enumerate(order)}
    return sorted(series, key=lambda one: places.get((one.series, one.code), len(places)))


def _named(file: str, reason: str) -> str:
    return reason if file in reason else f"{file}: {reason}"


def _nothing_to_release(series: Iterable[SeriesResult]) -> str:
    """Return the reason of a case without releasable series."""
    groups: dict[str, list[SeriesResult]] = defaultdict(list)
    for one in series:
        groups[one.reason].append(one)
    reasons = [
        f"{alike[0].identity if len(alike) == 1 else f'{len(alike)} series'}: {reason}"
        for reason, alike in groups.items()
    ]
    return f"no series can be released: {_joined(reasons or ['the case holds no CT volume'])}"


def _joined(reasons: Iterable[str]) -> str:
    """Join the first reasons and count the others."""
    listed = list(reasons)
    more = len(listed) - _MOST_REASONS
    return "; ".join(listed[:_MOST_REASONS]) + (f"; and {more} more" if more > 0 else "")
