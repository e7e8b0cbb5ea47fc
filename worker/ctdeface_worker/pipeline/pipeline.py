"""One case from its folder to a staged, proven output: read, select, load, segment, fill, write, prove.

Nothing here is visible to users: the caller publishes the staged folder, or throws it away.
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
from ctdeface_worker.imaging import nifti
from ctdeface_worker.imaging.domain import FaceMask, Fate, Series, Volume
from ctdeface_worker.pipeline import fill, withhold
from ctdeface_worker.pipeline.outcome import SeriesOutcome, conclude, refuse
from ctdeface_worker.pipeline.preview import write_preview
from ctdeface_worker.pipeline.result import CaseResult, SeriesResult
from ctdeface_worker.pipeline.stages import Stages
from ctdeface_worker.pipeline.task import CaseTask
from ctdeface_worker.pipeline.verify import Places, prove
from ctdeface_worker.segmentation.base import Segmenter

_NOT_TO_RELEASE = (FaceNotFound, UnsupportedObject, UnsupportedTransferSyntax, WithheldOnRequest)
"""What a series is withheld for; anything else means that it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What every series of the case is worked on with."""

    task: CaseTask
    segmenter: Segmenter
    headers: writer.Headers
    stages: Stages


def deface_case(task: CaseTask, segmenter: Segmenter, notify: Callable[[str], None]) -> CaseResult:
    """Deface every CT volume of a case into the staged folder and prove it; `notify` hears each stage.

    A case that cannot be released comes back as a result with its code and reason, not as an
    exception.

    Raises:
        TransientError: storage or memory failed; another attempt may succeed.
    """
    stages = Stages(notify)
    with atomic.storage_errors():
        with stages.stage("read"):
            case = reader.read_case(task.source)
        try:
            with stages.stage("select"):
                chosen = withhold.leave_out(selection.select(case), task.options.withhold)
        except PermanentError as error:
            return refuse(case, error).with_run(segmenter, stages)
        run = _Run(
            task=task, segmenter=segmenter, headers=_headers(task, chosen.series), stages=stages
        )
        attempts = [_attempt(series, run) for series in chosen.series]
        result = conclude(case, chosen.others, attempts, task.options.on_series_failure)
        return result.with_run(segmenter, stages)


def _headers(task: CaseTask, series: tuple[Series, ...]) -> writer.Headers:
    annotate = task.options.headers is HeaderPolicy.ANNOTATE
    return writer.Headers(
        policy=task.options.headers,
        uids=annotation.new_uids(series, task.uid_key) if annotate else {},
    )


def _attempt(series: Series, run: _Run) -> SeriesOutcome:
    """Deface one series; whatever goes wrong takes its files out of the staged folder again."""
    facts = SeriesResult(series=series.name, fate=Fate.FAILED, slices=len(series.instances))
    try:
        withhold.check(series, run.task.options.withhold)
        with run.stages.stage("load"):
            loaded = volumes.load(series)
        shape = loaded.volume.geometry.shape
        facts = replace(
            facts, slices=shape[0], voxels=prod(shape), spacing_mm=loaded.volume.geometry.spacing_mm
        )
        with run.stages.stage("segment"):
            mask = run.segmenter.segment(
                loaded.volume, profile=run.task.options.profile, ears=run.task.options.ears
            )
        fill_hu = fill.fill_value_hu(loaded.volume, run.task.options.fill)
        facts = replace(
            facts, orientation=mask.orientation, mask_ml=_milliliters(mask), fill_hu=fill_hu
        )
        with run.stages.stage("write"):
            written = writer.write_series(
                loaded, fill.fill_stored(loaded, mask, fill_hu), run.task.staged, run.headers
            )
        with run.stages.stage("verify"):
            places = Places(source=run.task.source, staged=run.task.staged)
            proof = prove(loaded, mask, written, places, run.task.options)
        facts = replace(facts, checks=proof.checks)
        proof.raise_unless_passed()
        with run.stages.stage("preview"):
            _pictures(facts, loaded.volume, proof.after, mask, run.task)
    except PermanentError as error:
        for instance in series.instances:
            (run.task.staged / instance.file).unlink(missing_ok=True)
        fate = Fate.WITHHELD if isinstance(error, _NOT_TO_RELEASE) else Fate.FAILED
        return SeriesOutcome(series=series, result=facts.refused(fate, error))
    return SeriesOutcome(
        series=series, result=replace(facts, fate=Fate.RELEASED), written=proof.written
    )


def _milliliters(mask: FaceMask) -> float:
    return float(np.count_nonzero(mask.face) * np.prod(mask.geometry.spacing_mm) / 1000)


def _pictures(
    facts: SeriesResult, before: Volume, after: Volume, mask: FaceMask, task: CaseTask
) -> None:
    """Write the *after* preview and the NIfTI files that were asked for into the work folder."""
    name = facts.series
    write_preview(
        after, task.work / "preview" / f"{name}.png", title=f"Job {task.job_id} · {facts.in_short}"
    )
    if task.write_nifti:
        nifti.write_nifti(after, task.work / "nifti" / f"{name}_defaced.nii.gz")
    if task.keep_work:
        nifti.write_nifti(before, task.work / "nifti_in" / f"{name}_0000.nii.gz")
        face = Volume(hu=mask.face.astype(np.float32), valid=before.valid, geometry=mask.geometry)
        nifti.write_nifti(face, task.work / "nifti_out" / f"{name}_mask.nii.gz")
