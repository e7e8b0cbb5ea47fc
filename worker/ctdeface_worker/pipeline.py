"""One case from its folder to a staged, proven output: read, select, load, segment, fill, write, prove.

Nothing here is visible to users: the caller publishes the staged folder, or throws it away.
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ctdeface_shared.errors import FaceNotFound, PermanentError, StorageUnavailable
from ctdeface_shared.options import DefaceOptions, HeaderPolicy
from ctdeface_worker import defacing, nifti
from ctdeface_worker.conclusion import Attempt, conclude, refuse
from ctdeface_worker.dicom import annotation, reader, selection, writer
from ctdeface_worker.dicom import volume as volumes
from ctdeface_worker.domain import FaceMask, Fate, Series, Volume
from ctdeface_worker.preview import write_preview
from ctdeface_worker.proof import Places, prove
from ctdeface_worker.result import CaseResult, SeriesResult
from ctdeface_worker.segmentation.base import Segmenter
from ctdeface_worker.stages import Stages

_STORAGE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS})


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseTask:
    """What to do with one case.

    Attributes:
        source: the case's folder; only read.
        staged: empty folder for the defaced DICOM.
        work: folder for the preview, NIfTI files and intermediates.
        options: what the user asked for.
        uid_key: secret behind new UIDs, for `headers: annotate`.
        write_nifti: whether defaced NIfTI files are wanted.
        keep_work: whether the undefaced input and the mask are kept as NIfTI as well.
    """

    source: Path
    staged: Path
    work: Path
    options: DefaceOptions
    uid_key: bytes = field(default=b"", repr=False)
    write_nifti: bool = False
    keep_work: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What every series of the case is worked on with."""

    task: CaseTask
    segmenter: Segmenter
    headers: writer.Headers
    stages: Stages


def deface_case(task: CaseTask, segmenter: Segmenter, notify: Callable[[str], None]) -> CaseResult:
    """Deface every CT volume of a case into the staged folder and prove it; `notify` hears each stage.

    A case that cannot be released comes back as a result with its code and reason, not as an exception.

    Raises:
        TransientError: storage or memory failed; another attempt may succeed.
    """
    stages = Stages(notify)
    with _storage_errors():
        with stages.stage("read"):
            case = reader.read_case(task.source)
        try:
            with stages.stage("select"):
                chosen = selection.select(case)
        except PermanentError as error:
            return refuse(case, error).with_run(segmenter, stages.seconds)
        run = _Run(task=task, segmenter=segmenter, headers=_headers(task, chosen.series), stages=stages)
        attempts = [_attempt(series, run) for series in chosen.series]
        result = conclude(case, chosen.others, attempts, task.options.on_series_failure)
        return result.with_run(segmenter, stages.seconds)


def _headers(task: CaseTask, series: tuple[Series, ...]) -> writer.Headers:
    annotate = task.options.headers is HeaderPolicy.ANNOTATE
    return writer.Headers(policy=task.options.headers, uids=annotation.new_uids(series, task.uid_key) if annotate else {})


def _attempt(series: Series, run: _Run) -> Attempt:
    """Deface one series; whatever goes wrong takes its files out of the staged folder again."""
    written: tuple[writer.WrittenInstance, ...] = ()
    facts = SeriesResult(series=series.name, fate=Fate.FAILED, slices=len(series.instances))
    try:
        with run.stages.stage("load"):
            loaded = volumes.load(series)
        facts = replace(facts, slices=loaded.volume.geometry.shape[0], spacing_mm=loaded.volume.geometry.spacing_mm)
        with run.stages.stage("segment"):
            mask = run.segmenter.segment(loaded.volume, profile=run.task.options.profile, ears=run.task.options.ears)
        fill_hu = defacing.fill_value_hu(loaded.volume, run.task.options.fill)
        facts = replace(facts, orientation=mask.orientation, mask_ml=_milliliters(mask), fill_hu=fill_hu)
        with run.stages.stage("write"):
            written = writer.write_series(loaded, defacing.fill_stored(loaded, mask, fill_hu), run.task.staged, run.headers)
        with run.stages.stage("verify"):
            places = Places(source=run.task.source, staged=run.task.staged)
            proof = prove(loaded, mask, written, places, run.task.options)
        facts = replace(facts, checks=proof.checks)
        proof.raise_unless_passed()
        with run.stages.stage("preview"):
            _pictures(series, loaded.volume, proof.after, mask, run.task)
    except FaceNotFound as error:
        return Attempt(series=series, result=facts.refused(Fate.WITHHELD, error))
    except PermanentError as error:
        for instance in written:
            (run.task.staged / instance.file).unlink()
        return Attempt(series=series, result=facts.refused(Fate.FAILED, error))
    return Attempt(series=series, result=replace(facts, fate=Fate.RELEASED), written=proof.written)


def _milliliters(mask: FaceMask) -> float:
    return float(np.count_nonzero(mask.face) * np.prod(mask.geometry.spacing_mm) / 1000)


def _pictures(series: Series, before: Volume, after: Volume, mask: FaceMask, task: CaseTask) -> None:
    """Write the *after* preview and the NIfTI files that were asked for into the work folder."""
    write_preview(after, task.work / "preview" / f"{series.name}.png")
    if task.write_nifti:
        nifti.write_nifti(after, task.work / "nifti" / f"{series.name}_defaced.nii.gz")
    if task.keep_work:
        nifti.write_nifti(before, task.work / "nifti_in" / f"{series.name}_0000.nii.gz")
        face = Volume(hu=mask.face.astype(np.float32), valid=before.valid, geometry=mask.geometry)
        nifti.write_nifti(face, task.work / "nifti_out" / f"{series.name}_mask.nii.gz")


@contextmanager
def _storage_errors() -> Iterator[None]:
    """Turn what the operating system says about full or lost storage into an error that is worth another attempt."""
    try:
        yield
    except OSError as error:
        if error.errno in _STORAGE_ERRORS:
            message = f"storage failed: {error.strerror}"
            raise StorageUnavailable(message) from error
        raise
