"""Decides what of a case is a volume to deface and gives every other file its fate."""

import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ctdeface_shared.errors import (
    InvalidSeries,
    MixedPatients,
    NotDicom,
    RepeatedPositions,
    UnreadableInstance,
)
from ctdeface_worker.dicom.eligibility import (
    NO_POLICY,
    ElementPolicy,
    Refusal,
    WithheldCode,
    as_instance,
)
from ctdeface_worker.dicom.reader import CaseFile, CaseFiles, FileKind
from ctdeface_worker.dicom.stacks import FEWEST_SLICES, arrange, same_positions, stacks
from ctdeface_worker.imaging.domain import Fate, Instance, Series


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFate:
    """What becomes of one file that is not defaced.

    Attributes:
        file: posix path relative to the case's folder.
        fate: withheld, or failed.
        code: stable name of the reason.
        reason: a sentence for a person.
        series_instance_uid: of the file's series, if it has one.
    """

    file: str
    fate: Fate
    code: str
    reason: str
    series_instance_uid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The volumes to deface, and the fate of every other file."""

    series: tuple[Series, ...]
    others: tuple[FileFate, ...]


def select(files: CaseFiles, *, policy: ElementPolicy = NO_POLICY) -> Selection:
    """Decide by the allow-list: only CT images that make a volume are defaced and released.

    Raises:
        NotDicom: the case holds no DICOM at all.
        MixedPatients: the case holds instances of more than one patient.
    """
    with warnings.catch_warnings(
        action="ignore"
    ):  # values that matter are checked where they are used
        if not any(file.kind is not FileKind.OTHER for file in files.files):
            raise NotDicom("the case holds no DICOM")
        _check_one_patient(files.files)
        others, by_series = _sort_out(files.files, policy)
    selected: list[Series] = []
    for uid, instances in sorted(by_series.items()):
        series, fates = _volumes(uid, instances)
        selected += series
        others += fates
    return Selection(
        series=tuple(selected), others=tuple(sorted(others, key=lambda fate: fate.file))
    )


def _check_one_patient(files: Iterable[CaseFile]) -> None:
    """Compare PatientID (PatientName where there is none) and issuer; an instance that names no issuer fits any."""
    headers = [file.dicom.header for file in files if file.kind is FileKind.DICOM and file.dicom]
    belonging = [header for header in headers if header.get("StudyInstanceUID")]
    patients = {
        str(header.get("PatientID") or "").strip() or f"name {header.get('PatientName', '')}"
        for header in belonging
    }
    issuers = {str(header.get("IssuerOfPatientID") or "").strip() for header in belonging} - {""}
    if len(patients) > 1 or len(issuers) > 1:
        raise MixedPatients(
            f"the case holds instances of {max(len(patients), len(issuers))} patients"
        )


def _sort_out(
    files: Iterable[CaseFile], policy: ElementPolicy
) -> tuple[list[FileFate], dict[str, list[Instance]]]:
    """Separate possible slices, by series, from everything else."""
    fates: list[FileFate] = []
    by_series: dict[str, list[Instance]] = defaultdict(list)
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
            fates.append(_failed(file.name, error.code, str(error), uid))
            if uid:
                damaged[uid] = file.name
            continue
        if isinstance(outcome, Instance):
            by_series[outcome.series_instance_uid].append(outcome)
            continue
        fates.append(_withheld(file.name, outcome.code, outcome.reason, uid))
        if uid and outcome.whole_series:
            spoiled[uid] = outcome
    for uid in sorted(damaged.keys() & by_series.keys()):
        reason = f"belongs to the series of {damaged[uid]}, which is damaged"
        fates += [
            _failed(instance.file, UnreadableInstance.code, reason, uid)
            for instance in by_series.pop(uid)
        ]
    for uid in sorted(spoiled.keys() & by_series.keys()):
        reason = f"belongs to a series of which another instance {spoiled[uid].reason}"
        fates += [
            _withheld(instance.file, spoiled[uid].code, reason, uid)
            for instance in by_series.pop(uid)
        ]
    return fates, by_series


def _fate_of_other(file: CaseFile) -> FileFate:
    if file.kind is FileKind.UNREADABLE:
        return _failed(file.name, UnreadableInstance.code, file.reason)
    if file.kind is FileKind.DICOMDIR:
        return _withheld(
            file.name,
            WithheldCode.DICOMDIR,
            "a DICOMDIR, which would no longer fit the files that are released",
        )
    return _withheld(file.name, WithheldCode.NOT_DICOM, file.reason)


def _withheld(
    file: str, code: WithheldCode, reason: str, series_instance_uid: str | None = None
) -> FileFate:
    return FileFate(
        file=file,
        fate=Fate.WITHHELD,
        code=code.value,
        reason=reason,
        series_instance_uid=series_instance_uid,
    )


def _failed(file: str, code: str, reason: str, series_instance_uid: str | None = None) -> FileFate:
    return FileFate(
        file=file,
        fate=Fate.FAILED,
        code=code,
        reason=reason,
        series_instance_uid=series_instance_uid,
    )


def _volumes(uid: str, instances: list[Instance]) -> tuple[list[Series], list[FileFate]]:
    volumes: list[tuple[Instance, ...]] = []
    fates: list[FileFate] = []
    for stack in stacks(instances):
        try:
            ordered = arrange(stack)
        except RepeatedPositions as error:
            fates += [
                _withheld(instance.file, WithheldCode.REPEATED_POSITIONS, str(error), uid)
                for instance in stack
            ]
        except InvalidSeries as error:
            fates += [_failed(instance.file, error.code, str(error), uid) for instance in stack]
        else:
            if len(same_positions(ordered)) >= FEWEST_SLICES:
                volumes.append(ordered)
            else:
                reason = f"fewer than {FEWEST_SLICES} parallel slices are no volume"
                fates += [
                    _withheld(instance.file, WithheldCode.NOT_A_VOLUME, reason, uid)
                    for instance in stack
                ]
    several = len(volumes) > 1
    parts = [
        Series(series_instance_uid=uid, part=n if several else 0, instances=volume)
        for n, volume in enumerate(volumes, start=1)
    ]
    return parts, fates
