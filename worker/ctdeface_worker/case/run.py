"""One run of a case, shared by batch and service.

    finished before? → attempt in the warm child → publish or refuse → report

A case that an earlier process had prepared or published is resumed from its report and is not
attempted again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from ctdeface_shared.errors import CtDefaceError, InputChanged, SecretMissing
from ctdeface_shared.jobs.manifest import Manifest, digest_of_stats
from ctdeface_shared.jobs.messages import DefaceJob
from ctdeface_shared.jobs.options import DefaceOptions, HeaderPolicy, Originals
from ctdeface_shared.jobs.taken import taken_case
from ctdeface_shared.settings.loading import Settings
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.disk import require_free_space
from ctdeface_shared.storage.locks import owned_folder
from ctdeface_shared.storage.spool import ServiceSpool, Spool, case_path
from ctdeface_worker.case.child_process import OnStage, UnexpectedError, WarmChild
from ctdeface_worker.dicom.limits import ReadLimits
from ctdeface_worker.pipeline.result import CaseResult
from ctdeface_worker.pipeline.task import CaseTask
from ctdeface_worker.publishing.commit import Step, no_step, publish, resume
from ctdeface_worker.publishing.journal import find_report, keep_pictures
from ctdeface_worker.publishing.outbox import OutputRules, holds
from ctdeface_worker.report.model import CaseReport, State, describe, failed

Child = WarmChild[CaseTask, CaseResult]

_ENDED = frozenset({State.REFUSED, State.DONE})


def now() -> str:
    """Return the time as reports write it: UTC, ISO 8601, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseInput:
    """A case to deface.

    Attributes:
        job_id: identity of the job.
        case: name of the case.
        source: its folder; only read.
        manifest: the files that the folder must hold.
        stats: `digest_of_stats` of the folder from before its manifest was made, if others may
            change the folder; empty for a private one.
        options: how to deface.
        generation: raised by every replay.
        submitted_at: UTC, ISO 8601; the output of a newer submission replaces an older one.
        taken: id of the folder in `taken` that holds the originals; empty in a batch.
        owner: user id of who dropped them; None in a batch.
        originals_left: whether they are a copy, because the service may not move the dropped files.
    """

    job_id: str
    case: str
    source: Path
    manifest: Manifest
    stats: str = ""
    options: DefaceOptions
    generation: int = 0
    submitted_at: str = field(default_factory=now)
    taken: str = ""
    owner: int | None = None
    originals_left: bool = False

    def report(self, result: CaseResult) -> CaseReport:
        """Describe the result of an attempt."""
        report = describe(self.job_id, self.case, self.manifest, self.options, result)
        return replace(
            report,
            generation=self.generation,
            created_at=self.submitted_at,
            taken=self.taken,
            owner=self.owner,
            originals_left=self.originals_left,
        )


def case_input(spool: ServiceSpool, job: DefaceJob, originals: Originals) -> CaseInput:
    """Return the case of a job.

    Args:
        spool: folders of the service.
        job: of version 2 of the contract.
        originals: what happens to dropped files.
    """
    return CaseInput(
        job_id=job.job_id,
        case=job.case,
        source=taken_case(spool, job.taken).files,
        manifest=job.manifest,
        options=job.options,
        generation=job.generation,
        submitted_at=job.submitted_at.astimezone(UTC).isoformat(timespec="milliseconds"),
        taken=job.taken,
        owner=job.owner,
        originals_left=job.left_in_inbox and originals is not Originals.KEEP,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResources:
    """Folders, rules and callbacks that every case is run with.

    Attributes:
        spool: folders of the service or batch.
        rules: modes and group of released cases.
        settings: settings of the operator.
        child: runs the pipeline.
        refuse: records the end of a case that is not released, and returns the report that stands;
            can be repeated.
        is_complete: called with the report of a case that is released already; returns whether
            nothing that was asked for is missing.
        recorded_end_stands: trust the report of a submission that has ended, also when its output
            is gone; a batch looks at the output instead.
        redo: attempt the case even if it is released already.
        write_nifti: write the defaced volumes as NIfTI as well.
        keep_work: keep the undefaced input and the mask as NIfTI as well.
        keep: takes files from the work folder; called with report, work folder and staging folder.
        step: called after each step of a publication; tests stop there.
    """

    spool: Spool
    rules: OutputRules
    settings: Settings
    child: Child
    refuse: Callable[[CaseReport], CaseReport]
    is_complete: Callable[[CaseReport], bool] = lambda _: True
    recorded_end_stands: bool = False
    redo: bool = False
    write_nifti: bool = False
    keep_work: bool = False
    keep: Callable[[CaseReport, Path, Path], None] = lambda _report, _work, _staged: None
    step: Step = no_step


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRun:
    """The end of a run of a case.

    Attributes:
        report: final report of the job.
        resumed_from: state of the report that the run found and finished without a new attempt;
            None after an attempt.
        replaced: whether the output of an earlier job or run was moved to the archive.
    """

    report: CaseReport
    resumed_from: State | None = None
    replaced: bool = False

    @property
    def had_ended(self) -> bool:
        """Return whether the job had ended before this run."""
        return self.resumed_from in {State.REFUSED, State.DONE, State.SUPERSEDED}


def run_case(
    case: CaseInput,
    resources: CaseResources,
    on_stage: OnStage,
    begin_attempt: Callable[[], None] = lambda: None,
) -> CaseRun:
    """Release or refuse a case, resuming earlier work.

    Args:
        case: the input.
        resources: what the case is run with.
        on_stage: called with the name of each stage.
        begin_attempt: called before a new attempt begins; an error prevents the attempt.

    Raises:
        TransientError: another attempt may succeed.
        PermanentError: the case cannot be released; `refuse_case` records that.
        OSError: storage failed.
    """
    spool = resources.spool
    released = None
    earlier = None if resources.redo else find_report(spool, case.case, case.job_id)
    if earlier is not None:
        earlier = replace(earlier, taken=case.taken)
        # The end of the same submission stands, also when its output was collected since.
        same = resources.recorded_end_stands and earlier.created_at >= case.submitted_at
        ended = same and earlier.state in _ENDED
        final = earlier if ended else _resume(case, earlier, resources)
        if final is not None and not final.is_published:
            report = _refuse(final, resources, on_stage)
            return CaseRun(report=report, resumed_from=earlier.state)
        if final is not None and resources.is_complete(final):
            return CaseRun(report=final, resumed_from=earlier.state)
        released = final
    begin_attempt()
    _check(case, resources)
    with owned_folder(spool.staging) as staged, owned_folder(spool.work) as work:
        report = case.report(_attempt(case, resources, staged, work, on_stage))
        resources.keep(report, work, staged)
        if not report.result.released:
            return CaseRun(report=_refuse(report, resources, on_stage))
        on_stage("publish")
        if released is not None and released.outputs == report.outputs:
            # The same files are released already; only what was missing beside them is added.
            with atomic.storage_errors():
                resources.rules.before_done(replace(released, staged=staged.name))
            return CaseRun(report=released)
        keep_pictures(spool, report, work)
        replaced = case_path(spool.outbox, case.case).exists()
        final = publish(spool, report, staged, resources.rules, step=resources.step)
    if not final.is_published:
        return CaseRun(report=_refuse(final, resources, on_stage))
    return CaseRun(report=final, replaced=replaced)


def refuse_case(case: CaseInput, error: Exception, resources: CaseResources) -> CaseReport:
    """Record that a case was refused because of an error.

    Returns:
        The report that stands; see `CaseResources.refuse`.

    Raises:
        StorageUnavailable: the refusal cannot be recorded now.
        OSError: storage failed.
    """
    return resources.refuse(case.report(failed(_with_code(error))))


def _resume(case: CaseInput, earlier: CaseReport, resources: CaseResources) -> CaseReport | None:
    """Finish a case from its earlier report.

    Returns None when the case needs an attempt.
    """
    submitted_again = earlier.created_at < case.submitted_at
    output = case_path(resources.spool.outbox, case.case)
    if submitted_again and earlier.state is not State.PREPARED and not holds(output, earlier):
        return None
    return resume(resources.spool, earlier, resources.rules, step=resources.step)


def _refuse(report: CaseReport, resources: CaseResources, on_stage: OnStage) -> CaseReport:
    """Record the end of a case that is refused or superseded."""
    if report.state is State.REFUSED:
        on_stage("quarantine")
    return resources.refuse(report)


def _check(case: CaseInput, resources: CaseResources) -> None:
    """Check that an attempt can begin.

    Raises:
        SecretMissing: the job wants new UIDs and this machine has no key for them.
        StorageUnavailable: too little free disk space.
        InputChanged: the input is not what the job describes.
    """
    settings = resources.settings
    # A job may want more than the settings of its worker offer.
    if case.options.headers is HeaderPolicy.ANNOTATE and settings.uid_key is None:
        raise SecretMissing(
            "the job asks for new UIDs, and this worker has no key to make them: "
            "set CTDEFACE_UID_KEY on every worker"
        )
    require_free_space(resources.spool.disk_places, settings.output.min_free_gb)
    _require_unchanged(case)


def _attempt(
    case: CaseInput, resources: CaseResources, staged: Path, work: Path, on_stage: OnStage
) -> CaseResult:
    """Deface a case in the warm child.

    Raises:
        TransientError: the attempt failed, or the input changed meanwhile.
    """
    key, limits = resources.settings.uid_key, _limits(resources.settings)
    (staged / "dicom").mkdir()
    task = CaseTask(
        source=case.source,
        staged=staged / "dicom",
        work=work,
        options=case.options,
        job_id=case.job_id,
        uid_key=key.get_secret_value().encode() if key else b"",
        write_nifti=resources.write_nifti,
        keep_work=resources.keep_work,
        limits=limits,
    )
    result = resources.child.run(
        task,
        on_stage=on_stage,
        timeout_seconds=resources.settings.work.job_timeout,
        memory_limit_bytes=limits.memory_bytes,
    )
    if case.stats:
        _require_unchanged(case)
    return result


def _limits(settings: Settings) -> ReadLimits:
    limit_gb = settings.work.memory_limit_gb
    return ReadLimits(
        file_bytes=settings.limits.tree().file_bytes,
        memory_bytes=round(limit_gb * 1e9) if limit_gb else None,
    )


def _require_unchanged(case: CaseInput) -> None:
    """Check that the source holds the files of the manifest.

    The content of a private source is read; of any other, only the status of each file.

    Raises:
        InputChanged: it does not.
        OSError: the source cannot be read.
    """
    if case.stats:
        if digest_of_stats(case.source) != case.stats:
            raise InputChanged(
                "the case was changed while it was worked on: run again when it is complete"
            )
    elif Manifest.scan(case.source) != case.manifest:
        raise InputChanged(
            "the files of the case are not those that the job was made for: drop the case again"
        )


def _with_code(error: Exception) -> CtDefaceError:
    """Return the error with a stable code for the report."""
    if isinstance(error, CtDefaceError):
        return error
    if isinstance(error, OSError):
        return UnexpectedError(f"the case cannot be read: {error.strerror}")
    return UnexpectedError(f"{type(error).__name__}: {error}")
