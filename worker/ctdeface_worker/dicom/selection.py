"""Select the volumes of a case to deface."""

import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pydicom

from ctdeface_shared.errors import (
    InvalidSeries,
    MixedPatients,
    NotDicom,
    RepeatedPositions,
    UnreadableInstance,
)
from ctdeface_shared.jobs.identity import PatientIdentity, contradiction
from ctdeface_worker.dicom.eligibility import (
    NO_POLICY,
    ElementPolicy,
    PossibleSlice,
    Refusal,
    WithheldCode,
    as_instance,
)
from ctdeface_worker.dicom.opaque import (
    OpaqueValue,
    budget_problem,
    series_budget_problem,
    tags_to_blank,
    without,
)
from ctdeface_worker.dicom.reader import CaseFile, CaseFiles, FileKind
from ctdeface_worker.dicom.series_label import SeriesLabel, labels_of
from ctdeface_worker.dicom.stacks import (
    FEWEST_SLICES,
    order_slices,
    same_positions,
    split_into_stacks,
)
from ctdeface_worker.imaging.domain import Fate, Instance, Series


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFate:
    """Fate of one file that is not defaced.

    Attributes:
        file: posix path relative to the case's folder.
        fate: withheld or failed.
        code: stable name of the reason.
        reason: a sentence for a person.
        series_instance_uid: series of the file, None if it has none.
        follows: True when another file of the series is the cause.
    """

    file: str
    fate: Fate
    code: str
    reason: str
    series_instance_uid: str | None = None
    follows: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Volumes to deface and fates of other files.

    Attributes:
        series: volumes, ordered by SeriesInstanceUID and part.
        others: one fate for each file outside these volumes, ordered by file.
        labels: number, description and kind of every series, by SeriesInstanceUID.
    """

    series: tuple[Series, ...]
    others: tuple[FileFate, ...]
    labels: Mapping[str, SeriesLabel] = field(default_factory=dict)


def select(files: CaseFiles, *, policy: ElementPolicy = NO_POLICY) -> Selection:
    """Select the CT images that form volumes.

    Raises:
        NotDicom: the case holds no DICOM.
        MixedPatients: the case holds instances of more than one patient.
    """
    # pydicom warns about invalid values; the values that matter are checked where they are used.
    with warnings.catch_warnings(action="ignore"):
        if all(file.kind is FileKind.OTHER for file in files.files):
            raise NotDicom(
                f"none of the {len(files.files)} files is DICOM; a case needs the DICOM files of "
                "one patient"
            )
        _check_one_patient(files.files)
        labels = labels_of(files.files)
        others, by_series = _classify_files(files.files, policy)
    selected: list[Series] = []
    for uid, instances in sorted(by_series.items()):
        series, fates = _volumes_of_series(uid, instances)
        selected += series
        others += fates
    return Selection(
        series=tuple(selected),
        others=tuple(sorted(others, key=lambda fate: fate.file)),
        labels=labels,
    )


def _check_one_patient(files: Iterable[CaseFile]) -> None:
    """Compare ID, issuer, name, birth date and sex of all instances."""
    patients = (
        (file.name, PatientIdentity.of(file.dicom.header))
        for file in files
        if file.dicom is not None and _names_a_patient(file.dicom.header)
    )
    found = contradiction(patients)
    if found:
        first, other = found.files
        raise MixedPatients(
            f"the case holds instances of more than one patient, such as {first} and {other} "
            f"(different {', '.join(found.attributes)}); a case must hold one patient only: put "
            "each patient into a folder of their own"
        )


def _names_a_patient(header: pydicom.Dataset) -> bool:
    """Return False for directories and objects without a patient, such as color palettes."""
    return any(
        header.get(keyword)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "PatientID", "PatientName")
    )


def _classify_files(
    files: Iterable[CaseFile], policy: ElementPolicy
) -> tuple[list[FileFate], dict[str, list[Instance]]]:
    """Separate possible slices, by series, from all other files."""
    fates: list[FileFate] = []
    by_series: dict[str, list[Instance]] = defaultdict(list)
    values: dict[str, list[Sequence[OpaqueValue]]] = defaultdict(list)
    spoiled: dict[str, Refusal] = {}
    damaged: dict[str, str] = {}
    for file in files:
        if file.kind is not FileKind.DICOM or file.dicom is None:
            fates.append(_fate_of_other(file))
            continue
        uid = str(file.dicom.header.get("SeriesInstanceUID", "")) or None
        try:
            outcome = as_instance(file, file.dicom, policy)
        except UnreadableInstance as error:
            fates.append(_failed(file.name, error, uid))
            if uid:
                damaged[uid] = file.name
            continue
        if isinstance(outcome, PossibleSlice):
            by_series[outcome.instance.series_instance_uid].append(outcome.instance)
            values[outcome.instance.series_instance_uid].append(outcome.values)
            continue
        fates.append(_withheld(file.name, outcome.code, outcome.reason, uid))
        if uid and outcome.whole_series:
            spoiled[uid] = outcome
    fates += _fates_of_incomplete_series(by_series, damaged, spoiled)
    fates += _fates_of_overfull_series(by_series, values)
    return fates, by_series


def _fates_of_overfull_series(
    by_series: dict[str, list[Instance]], values: Mapping[str, list[Sequence[OpaqueValue]]]
) -> list[FileFate]:
    """Blank private elements that could hold a picture; remove series where that is not enough."""
    fates: list[FileFate] = []
    for uid, instances in sorted(by_series.items()):
        blanked = tags_to_blank(values[uid])
        kept = without(values[uid], blanked)
        problems = [budget_problem(one) for one in kept]
        of_series = series_budget_problem(kept)
        if of_series or any(problems):
            del by_series[uid]
            fates += _fates_of_opaque_bytes(instances, problems, of_series)
        elif blanked:
            by_series[uid] = [replace(one, blanked=blanked) for one in instances]
    return fates


def _fates_of_opaque_bytes(
    instances: Sequence[Instance], problems: Sequence[str], of_series: str
) -> Iterator[FileFate]:
    """Withhold a series whose instances, alone or together, could hold a picture."""
    first = next(filter(None, problems), "")
    for instance, problem in zip(instances, problems, strict=True):
        reason = f"belongs to a series of which another instance {first}"
        if problem or not first:
            reason = problem or f"belongs to a series that {of_series}"
        yield _withheld(
            instance.file,
            WithheldCode.UNSUPPORTED_OBJECT,
            reason,
            instance.series_instance_uid,
            follows=bool(first) and not problem,
        )


def _fates_of_incomplete_series(
    by_series: dict[str, list[Instance]],
    damaged: Mapping[str, str],
    spoiled: Mapping[str, Refusal],
) -> list[FileFate]:
    """Remove series with an unusable instance; return fates."""
    fates: list[FileFate] = []
    for uid in sorted(damaged.keys() & by_series.keys()):
        error = UnreadableInstance(f"belongs to the series of {damaged[uid]}, which is damaged")
        fates += [_failed(one.file, error, uid, follows=True) for one in by_series.pop(uid)]
    for uid in sorted(spoiled.keys() & by_series.keys()):
        code = spoiled[uid].code
        reason = f"belongs to a series of which another instance {spoiled[uid].reason}"
        fates += [
            _withheld(one.file, code, reason, uid, follows=True) for one in by_series.pop(uid)
        ]
    return fates


def _fate_of_other(file: CaseFile) -> FileFate:
    if file.kind is FileKind.UNREADABLE:
        return _failed(file.name, UnreadableInstance(file.reason))
    if file.kind is FileKind.DICOMDIR:
        return _withheld(
            file.name,
            WithheldCode.DICOMDIR,
            "a DICOMDIR, which would no longer match the released files",
        )
    return _withheld(file.name, WithheldCode.NOT_DICOM, file.reason)


def _withheld(
    file: str, code: WithheldCode, reason: str, uid: str | None = None, *, follows: bool = False
) -> FileFate:
    return FileFate(
        file=file,
        fate=Fate.WITHHELD,
        code=code.value,
        reason=reason,
        series_instance_uid=uid,
        follows=follows,
    )


def _failed(
    file: str, error: InvalidSeries, uid: str | None = None, *, follows: bool = False
) -> FileFate:
    return FileFate(
        file=file,
        fate=Fate.FAILED,
        code=error.code,
        reason=str(error),
        series_instance_uid=uid,
        follows=follows,
    )


def _volumes_of_series(uid: str, instances: list[Instance]) -> tuple[list[Series], list[FileFate]]:
    """Return the volumes of a series and remaining fates."""
    volumes: list[tuple[Instance, ...]] = []
    fates: list[FileFate] = []
    for stack in split_into_stacks(instances):
        try:
            ordered = order_slices(stack)
        except RepeatedPositions as error:
            code = WithheldCode.REPEATED_POSITIONS
            fates += [_withheld(instance.file, code, str(error), uid) for instance in stack]
        except InvalidSeries as error:
            fates += [_failed(instance.file, error, uid) for instance in stack]
        else:
            count = len(same_positions(ordered))
            if count >= FEWEST_SLICES:
                volumes.append(ordered)
                continue
            reason = f"{count} parallel slices; a volume needs at least {FEWEST_SLICES}"
            code = WithheldCode.NOT_A_VOLUME
            fates += [_withheld(instance.file, code, reason, uid) for instance in stack]
    several = len(volumes) > 1
    series = [
        Series(series_instance_uid=uid, part=part if several else 0, instances=volume)
        for part, volume in enumerate(volumes, start=1)
    ]
    return series, fates
