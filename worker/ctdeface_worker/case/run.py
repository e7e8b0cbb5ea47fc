"""One attempt at a case: staging and work folders, the warm child, a report, and the publication of what was proven."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC
from pathlib import Path

from ctdeface_shared.errors import InputChanged, SecretMissing
from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.messages import DefaceJob
from ctdeface_shared.jobs.options import DefaceOptions, HeaderPolicy
from ctdeface_shared.settings.loading import Settings
from ctdeface_shared.storage.locks import owned_folder
from ctdeface_shared.storage.spool import ServiceSpool, Spool, case_path
from ctdeface_worker.case.child_process import Notify, WarmChild
from ctdeface_worker.pipeline.result import CaseResult
from ctdeface_worker.pipeline.task import CaseTask
from ctdeface_worker.publishing.commit import publish, resume
from ctdeface_worker.publishing.journal import keep_pictures, record
from ctdeface_worker.publishing.outbox import OutputRules
from ctdeface_worker.report.model import CaseReport, describe

Child = WarmChild[CaseTask, CaseResult]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseInput:
    """What is to be defaced.

    Attributes:
        job_id: identity of the job.
        case: name of the case.
        source: its folder; only read.
        manifest: what the folder must consist of, before and after.
        options: what was asked for.
        generation: raised by every replay.
        submitted_at: UTC, ISO 8601; a newer order replaces the output of an older one. None is now.
    """

    job_id: str
    case: str
    source: Path
    manifest: Manifest
    options: DefaceOptions
    generation: int = 0
    submitted_at: str | None = None

    def report(self, result: CaseResult) -> CaseReport:
        """Describe what became of the order."""
        report = describe(self.job_id, self.case, self.manifest, self.options, result)
        return replace(
            report, generation=self.generation, created_at=self.submitted_at or report.created_at
        )


def case_input(spool: ServiceSpool, job: DefaceJob) -> CaseInput:
    """Return what a job asks for."""
    return CaseInput(
        job_id=job.job_id,
        case=job.case,
        source=case_path(spool.inbox, job.case),
        manifest=job.manifest,
        options=job.options,
        generation=job.generation,
        submitted_at=job.submitted_at.astimezone(UTC).isoformat(timespec="milliseconds"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResources:
    """What a case is worked on with.

    Attributes:
        spool: where everything lies.
        rules: how released cases lie on the disk.
        settings: what an operator has set.
        child: runs the pipeline.
        write_nifti: whether defaced NIfTI files are wanted.
        keep_work: whether the undefaced input and the mask are wanted as NIfTI as well.
        keep: takes what is wanted out of the work folder, given the report, that folder and the
            staging folder.
        publish: how a proven case is published.
        resume: how a publication that was broken off is finished.
        attest: writes down for good how a case ended that shows nothing in the outbox; can be
            repeated.
    """

    spool: Spool
    rules: OutputRules
    settings: Settings
    child: Child
    write_nifti: bool = False
    keep_work: bool = False
    keep: Callable[[CaseReport, Path, Path], None] = lambda _report, _work, _staged: None
    publish: Callable[[Spool, CaseReport, Path, OutputRules], CaseReport] = publish
    resume: Callable[[Spool, CaseReport, OutputRules], CaseReport | None] = resume
    attest: Callable[[CaseReport], None] = lambda _: None


def attempt(order: CaseInput, resources: CaseResources, notify: Notify) -> CaseReport:
    """Work on a case once and publish it, or record why it is refused.

    Args:
        order: what to deface.
        bench: what to do it with.
        notify: hears each stage.

    Raises:
        TransientError: another attempt may succeed.
    """
    spool, settings = resources.spool, resources.settings
    key = settings.uid_key
    if (
        order.options.headers is HeaderPolicy.ANNOTATE and key is None
    ):  # a job may ask for more than the settings of its worker do
        raise SecretMissing(
            "the job asks for new UIDs, and this worker has no secret to make them with: set CTDEFACE_UID_KEY on every worker"
        )
    spool.check_free_space(settings.output.min_free_gb)
    if Manifest.scan(order.source) != order.manifest:
        raise InputChanged(
            "the case is not what it was when the job was made; run again when it is complete"
        )
    with owned_folder(spool.staging) as staged, owned_folder(spool.work) as work:
        (staged / "dicom").mkdir()
        task = CaseTask(
            source=order.source,
            staged=staged / "dicom",
            work=work,
            options=order.options,
            job_id=order.job_id,
            uid_key=key.get_secret_value().encode() if key else b"",
            write_nifti=resources.write_nifti,
            keep_work=resources.keep_work,
        )
        result = resources.child.run(
            task,
            notify=notify,
            timeout_seconds=settings.work.job_timeout,
            memory_limit_bytes=_bytes(settings),
        )
        if Manifest.scan(order.source) != order.manifest:
            raise InputChanged(
                "the case was changed while it was worked on; run again when it is complete"
            )
        report = order.report(result)
        resources.keep(report, work, staged)
        if not result.released:
            record(spool, report, stale_seconds=resources.rules.stale_seconds)
            return report
        notify("publish")
        keep_pictures(spool, report, work)
        return resources.publish(spool, report, staged, resources.rules)


def _bytes(settings: Settings) -> int | None:
    limit = settings.work.memory_limit_gb
    return None if limit is None else round(limit * 1e9)
