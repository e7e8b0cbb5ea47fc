"""Deface one case, stage by stage.

The stages are read, select, load, segment, write, verify and preview.

The output is staged, not visible: the caller publishes or removes it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from ctdeface_shared.errors import (
    FaceNotFound,
    PermanentError,
    UnsupportedObject,
    UnsupportedTransferSyntax,
    WithheldOnRequest,
)
from ctdeface_shared.jobs.options import HeaderPolicy
from ctdeface_shared.storage import atomic
from ctdeface_worker.dicom import annotation, reader, selection, writer
from ctdeface_worker.dicom import volume as volumes
from ctdeface_worker.dicom.series_label import NO_LABEL, SeriesLabel
from ctdeface_worker.imaging import nifti
from ctdeface_worker.imaging.domain import BoolArray, FaceMask, Fate, Geometry, Series, Volume
from ctdeface_worker.imaging.hounsfield import SKIN_HU
from ctdeface_worker.pipeline import fill, withhold
from ctdeface_worker.pipeline.outcome import SeriesOutcome, conclude_case, refuse_case
from ctdeface_worker.pipeline.preview import write_preview
from ctdeface_worker.pipeline.result import CaseResult, SeriesResult
from ctdeface_worker.pipeline.stages import Stages
from ctdeface_worker.pipeline.task import CaseTask
from ctdeface_worker.pipeline.verify import CaseFolders, verify_written
from ctdeface_worker.segmentation.base import Segmenter

_WITHHOLDING_ERRORS = (
    FaceNotFound,
    UnsupportedObject,
    UnsupportedTransferSyntax,
    WithheldOnRequest,
)
"""Errors that withhold a series; any other error makes it fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _CaseRun:
    """Inputs that all series of the case share."""

    task: CaseTask
    segmenter: Segmenter
    headers: writer.Headers
    stages: Stages


def deface_case(task: CaseTask, segmenter: Segmenter, notify: Callable[[str], None]) -> CaseResult:
    """Deface and verify every CT volume of a case.

    A refused case is returned as a result with code and reason, not raised as an error.

    Args:
        task: the case and the folders to write to.
        segmenter: makes the face masks.
        notify: called with the name of each stage that begins.

    Raises:
        TransientError: storage or memory failed; another attempt may succeed.
        TooLarge: the case was not read, because it exceeds the limits of the task.
    """
    stages = Stages(notify)
    with atomic.storage_errors():
        with stages.stage("read"):
            case = reader.read_case(task.source, task.limits)
        try:
            with stages.stage("select"):
                everything = selection.select(case)
                selected = withhold.withhold_excluded(everything, task.options.withhold)
        except PermanentError as error:
            return refuse_case(case, error).with_run(segmenter, stages)
        headers = _headers(task, selected.series)
        run = _CaseRun(task=task, segmenter=segmenter, headers=headers, stages=stages)
        outcomes = [
            _deface_series(series, selected.labels.get(series.series_instance_uid, NO_LABEL), run)
            for series in selected.series
        ]
        result = conclude_case(case, selected, outcomes, task.options.on_series_failure)
        return result.with_run(segmenter, stages)


def _headers(task: CaseTask, series: tuple[Series, ...]) -> writer.Headers:
    annotate = task.options.headers is HeaderPolicy.ANNOTATE
    return writer.Headers(
        policy=task.options.headers,
        uids=annotation.new_uids(series, task.uid_key) if annotate else {},
    )


def _deface_series(series: Series, label: SeriesLabel, run: _CaseRun) -> SeriesOutcome:
    """Deface one series.

    An error removes its files from the staged folder.
    """
    task, options, stages = run.task, run.task.options, run.stages
    result = SeriesResult(
        series=series.name, fate=Fate.FAILED, slices=len(series.instances)
    ).labeled(label)
    try:
        withhold.raise_if_excluded(series, options.withhold)
        with stages.stage("load"):
            loaded = volumes.load(series, task.limits)
        volume = loaded.volume
        result = _with_volume(result, volume.geometry)
        with stages.stage("segment"):
            mask = run.segmenter.segment(volume, profile=options.profile, ears=options.ears)
        fill.require_same_shape(mask, volume)
        fill_hu = fill.fill_value_hu(volume, options.fill)
        result = _with_mask(result, volume, mask, fill_hu)
        with stages.stage("write"):
            filled = fill.fill_stored(loaded, mask, fill_hu)
            written = writer.write_series(loaded, filled, task.staged, run.headers)
        with stages.stage("verify"):
            folders = CaseFolders(source=task.source, staged=task.staged)
            verification = verify_written(loaded, mask, written, folders, options)
        result = replace(result, checks=verification.checks)
        verification.raise_unless_passed()
        with stages.stage("preview"):
            _write_pictures(result, volume, verification.after, mask, task)
    except PermanentError as error:
        for instance in series.instances:
            (task.staged / instance.file).unlink(missing_ok=True)
        fate = Fate.WITHHELD if isinstance(error, _WITHHOLDING_ERRORS) else Fate.FAILED
        return SeriesOutcome(series=series, result=result.refused(fate, error))
    released = replace(result, fate=Fate.RELEASED)
    return SeriesOutcome(series=series, result=released, written=verification.written)


def _with_volume(result: SeriesResult, geometry: Geometry) -> SeriesResult:
    return replace(
        result,
        slices=geometry.shape[0],
        voxels=prod(geometry.shape),
        spacing_mm=geometry.spacing_mm,
    )


def _with_mask(
    result: SeriesResult, volume: Volume, mask: FaceMask, fill_hu: float
) -> SeriesResult:
    tissue = volume.hu[mask.face & volume.valid] > SKIN_HU
    return replace(
        result,
        orientation=mask.orientation,
        mask_ml=_milliliters(mask.face, volume.geometry),
        tissue_ml=_milliliters(tissue, volume.geometry),
        fill_hu=fill_hu,
    )


def _milliliters(voxels: BoolArray, geometry: Geometry) -> float:
    return float(np.count_nonzero(voxels) * np.prod(geometry.spacing_mm) / 1000)


def _write_pictures(
    result: SeriesResult, before: Volume, after: Volume, mask: FaceMask, task: CaseTask
) -> None:
    """Write the preview and the requested NIfTI files."""
    name = result.series
    title = f"Job {task.job_id} · {result.figures}"
    write_preview(after, task.work / "preview" / f"{name}.png", title=title)
    if task.write_nifti:
        nifti.write_nifti(after, task.work / "nifti" / f"{name}_defaced.nii.gz")
    if task.keep_work:
        nifti.write_nifti(before, task.work / "nifti_in" / f"{name}_0000.nii.gz")
        face = Volume(hu=mask.face.astype(np.float32), valid=before.valid, geometry=mask.geometry)
        nifti.write_nifti(face, task.work / "nifti_out" / f"{name}_mask.nii.gz")
