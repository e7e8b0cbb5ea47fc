"""One case of a batch."""

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ctdeface_shared import logs
from ctdeface_shared.console import printable
from ctdeface_shared.errors import MixedPatients, StorageUnavailable, TooLarge
from ctdeface_shared.jobs.manifest import Manifest, digest_of_stats, job_id
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_shared.jobs.reports import REPORT, read_report
from ctdeface_shared.lifecycle import boundary
from ctdeface_shared.settings.loading import Settings
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.spool import PRIVATE, Spool, case_path
from ctdeface_worker.batch.case_size import require_allowed
from ctdeface_worker.batch.discovery import Case
from ctdeface_worker.case.child_process import OnStage, UnexpectedError
from ctdeface_worker.case.run import CaseInput, CaseResources, CaseRun, Child, refuse_case, run_case
from ctdeface_worker.publishing.journal import record_refusal, show_in_index
from ctdeface_worker.publishing.outbox import OutputRules
from ctdeface_worker.report.model import CaseReport, State, failed

NIFTI = "nifti"

_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Folders, options and settings of a batch.

    Attributes:
        spool: folders of the batch.
        options: how to deface each case.
        settings: all other settings.
        nifti_root: folder for defaced NIfTI files; None for none.
        keep_work: whether intermediates are kept in the work folder.
        redo: whether released cases are repeated.
        stop: set when the batch must end.
        attest: writes an entry about the end of a case to the audit log.
    """

    spool: Spool
    options: DefaceOptions
    settings: Settings
    nifti_root: Path | None
    keep_work: bool
    redo: bool
    stop: threading.Event
    attest: Callable[[CaseReport], None] = lambda _: None

    @property
    def rules(self) -> OutputRules:
        """The rules for released cases.

        NIfTI files are written before a job is done.
        """
        output = self.settings.output
        return OutputRules(
            folder_mode=output.folder_mode,
            file_mode=output.file_mode,
            group=output.outbox_group,
            stale_seconds=self.settings.work.stale_seconds,
            before_done=self.before_done,
        )

    def resources(self, case: Case, child: Child) -> CaseResources:
        """Return what a case is run with.

        Args:
            case: named in the refusal when a stray file has moved its boundary.
            child: runs the pipeline.
        """
        return CaseResources(
            spool=self.spool,
            rules=self.rules,
            settings=self.settings,
            child=child,
            refuse=partial(self.refuse, case),
            is_complete=self.has_nifti,
            redo=self.redo,
            write_nifti=self.nifti_root is not None,
            keep_work=self.keep_work,
            keep=self.keep_files,
        )

    def before_done(self, report: CaseReport) -> None:
        """Finish a published case: NIfTI files, audit entry, index."""
        if self.nifti_root is not None:
            folder = case_path(self.nifti_root, report.case)
            for file in sorted((self.spool.staging / report.staged / NIFTI).glob("*.nii.gz")):
                atomic.make_folder(folder, mode=self.settings.output.folder_mode)
                atomic.copy_file(file, folder / file.name, mode=self.settings.output.file_mode)
        self.attest(report)
        show_in_index(self.spool, report, stale_seconds=self.settings.work.stale_seconds)

    def has_nifti(self, report: CaseReport) -> bool:
        """Return whether a published case has its NIfTI files."""
        if self.nifti_root is None:
            return True
        folder = case_path(self.nifti_root, report.case)
        return all(
            (folder / f"{name}_defaced.nii.gz").is_file() for name in report.result.released_series
        )

    def keep_files(self, report: CaseReport, work: Path, staged: Path) -> None:
        """Take NIfTI files and intermediates out of the work folder."""
        with atomic.storage_errors():
            if self.keep_work:
                for name in ("nifti_in", "nifti_out"):
                    _copy_files(work / name, case_path(self.spool.work, report.case) / name)
            if self.nifti_root is not None:
                _copy_files(work / NIFTI, staged / NIFTI)

    def refuse(self, case: Case, report: CaseReport) -> CaseReport:
        """Record a refused or superseded case and write its audit entry.

        A case that was interrupted by a stop of the batch is not recorded. An error of storage is
        shown to the user; the next run repeats the case.
        """
        report = _with_stray_file(case, report)
        if self.stop.is_set():
            return report
        stale_seconds = self.settings.work.stale_seconds
        what = "report"
        try:
            if report.state is State.REFUSED:
                record_refusal(self.spool, report, stale_seconds=stale_seconds)
            show_in_index(self.spool, report, stale_seconds=stale_seconds)
            what = "audit entry"
            self.attest(report)
        except (StorageUnavailable, OSError) as error:
            sys.stderr.write(
                f"ctdeface: the {what} of {printable(report.case)} could not be written: "
                f"{printable(str(error))}\n"
            )
        return report


def deface_case(batch: Batch, case: Case, child: Child, on_stage: OnStage) -> CaseRun:
    """Run one case; an error costs this case only."""
    resources = batch.resources(case, child)
    input_ = _input(batch, case)
    with logs.about_job(input_.job_id):
        check = partial(require_allowed, case.folder, batch.settings.limits.tree())
        outcome = boundary(partial(run_case, input_, resources, on_stage, check))
        if isinstance(outcome, Exception):
            refused = boundary(partial(refuse_case, input_, outcome, resources))
            if isinstance(refused, Exception):
                sys.stderr.write(f"ctdeface: {printable(case.name)} could not be recorded\n")
                refused = input_.report(failed(UnexpectedError("the refusal cannot be recorded")))
            outcome = CaseRun(report=refused)
        if outcome.resumed_from is None:
            report = outcome.report
            _log.info(
                "case_ended",
                code=report.result.code or report.state.value,
                seconds=round(sum(report.result.seconds.values()), 3),
                files=report.manifest.files,
            )
        return outcome


def _input(batch: Batch, case: Case) -> CaseInput:
    """Return the input of a case.

    A folder that cannot be read, or is too large, has an empty manifest.
    """
    stats = ""
    try:
        require_allowed(case.folder, batch.settings.limits.tree())
        stats = digest_of_stats(case.folder)
        manifest = Manifest.scan(case.folder)
    except (OSError, TooLarge):
        # The run meets the error again, and refuses the case.
        manifest = Manifest(files=0, bytes=0, digest="")
    return CaseInput(
        job_id=_job_id(batch, case, manifest),
        case=case.name,
        source=case.folder,
        manifest=manifest,
        stats=stats,
        options=batch.options,
    )


def _job_id(batch: Batch, case: Case, manifest: Manifest) -> str:
    """Return the id of the job for these files and options.

    Release 0.1.0 made ids of modification times. A report that lists the same content keeps its id,
    so that what was released by that release is not repeated.
    """
    made = job_id(case.name, manifest, batch.options)
    folder = case_path(batch.spool.reports, case.name)
    if (folder / made / REPORT).exists():
        return made
    for path in sorted(folder.glob(f"*/{REPORT}")):
        report = read_report(path)
        if (
            report is not None
            and report.content_digest == manifest.digest
            and report.options == batch.options.as_plain()
        ):
            return path.parent.name
    return made


def _with_stray_file(case: Case, report: CaseReport) -> CaseReport:
    """Name the stray file that joined several patients."""
    if report.result.code != MixedPatients.code or case.stray is None:
        return report
    reason = f"{report.result.reason}; {case.stray_warning}"
    return replace(report, result=replace(report.result, reason=reason))


def _copy_files(source: Path, target: Path) -> None:
    for file in sorted(source.glob("*.nii.gz")):
        atomic.make_folder(target, mode=PRIVATE)
        atomic.copy_file(file, target / file.name)
