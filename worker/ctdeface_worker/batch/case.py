"""One case of a batch, from its folder to its report: skipped, gone on with, or worked on."""

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ctdeface_shared import logs
from ctdeface_shared.console import printable
from ctdeface_shared.errors import CtDefaceError
from ctdeface_shared.jobs.manifest import Manifest, job_id
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_shared.lifecycle import boundary
from ctdeface_shared.settings.loading import Settings
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.spool import PRIVATE, Spool, case_path
from ctdeface_worker.batch.discovery import Case
from ctdeface_worker.case.child_process import Notify, UnexpectedError
from ctdeface_worker.case.run import CaseInput, CaseResources, Child, attempt
from ctdeface_worker.publishing.audit_entry import UNSEEN
from ctdeface_worker.publishing.commit import publish, resume
from ctdeface_worker.publishing.journal import find_report, record
from ctdeface_worker.publishing.outbox import OutputRules
from ctdeface_worker.report.model import CaseReport, failed

NIFTI = "nifti"

_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What every case of a batch is worked on with.

    Attributes:
        spool: where everything lies.
        options: what is done to each case.
        settings: everything else that can be set.
        nifti_root: where defaced NIfTI files go; None for nowhere.
        keep_work: whether intermediates are kept in the work folder.
        redo: whether released cases are repeated.
        stop: set when the batch shall end.
        attest: writes down for good how a case ended.
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
        """How released cases lie on the disk; their NIfTI files are there before a job is done."""
        output = self.settings.output
        return OutputRules(
            folder_mode=output.folder_mode,
            file_mode=output.file_mode,
            group=output.outbox_group,
            stale_seconds=self.settings.work.stale_seconds,
            before_done=self.complete,
        )

    def complete(self, report: CaseReport) -> None:
        """Do what a published case still needs before it is done."""
        self.place_nifti(report)
        self.attest(report)

    def place_nifti(self, report: CaseReport) -> None:
        """Copy the staged NIfTI files of a published case to where they were asked for."""
        if self.nifti_root is None:
            return
        folder = case_path(self.nifti_root, report.case)
        for file in sorted((self.spool.staging / report.staged / NIFTI).glob("*.nii.gz")):
            atomic.make_folder(folder, mode=self.settings.output.folder_mode)
            atomic.copy_file(file, folder / file.name, mode=self.settings.output.file_mode)

    def is_complete(self, report: CaseReport) -> bool:
        """Whether everything that was asked for of a published case is there."""
        if self.nifti_root is None:
            return True
        folder = case_path(self.nifti_root, report.case)
        return all(
            (folder / f"{name}_defaced.nii.gz").is_file() for name in report.result.released_series
        )


def bring(batch: Batch, case: Case, child: Child, notify: Notify) -> CaseReport | None:
    """Bring a case to its report; None when it was already released. Whatever goes wrong costs this case only."""
    manifest = _scan(case.folder)
    order = _order(
        batch,
        case,
        manifest if isinstance(manifest, Manifest) else Manifest(files=0, bytes=0, digest=""),
    )
    with logs.about_job(order.job_id):
        outcome = (
            manifest
            if isinstance(manifest, Exception)
            else boundary(partial(_work_on, batch, order, child, notify))
        )
        report = _refused(batch, order, outcome) if isinstance(outcome, Exception) else outcome
        if isinstance(outcome, CaseReport) and outcome.state in UNSEEN:
            _attest(batch, outcome)
        if report is not None:
            seconds = round(sum(report.result.seconds.values()), 3)
            _log.info(
                "case_ended",
                code=report.result.code or report.state.value,
                seconds=seconds,
                files=report.manifest.files,
            )
        return report


def _scan(folder: Path) -> Manifest | OSError:
    try:
        return Manifest.scan(folder)
    except OSError as error:
        return error


def _order(batch: Batch, case: Case, manifest: Manifest) -> CaseInput:
    identity = job_id(case.name, manifest, batch.options)
    return CaseInput(
        job_id=identity,
        case=case.name,
        source=case.folder,
        manifest=manifest,
        options=batch.options,
    )


def _work_on(batch: Batch, order: CaseInput, child: Child, notify: Notify) -> CaseReport | None:
    """Work on a case unless it is released already.

    Raises:
        CtDefaceError: it was broken off.
    """
    earlier = find_report(batch.spool, order.case, order.job_id)
    there = None if earlier is None or batch.redo else resume(batch.spool, earlier, batch.rules)
    if there is not None and there.is_published and batch.is_complete(there):
        return None
    resources = CaseResources(
        spool=batch.spool,
        rules=batch.rules,
        settings=batch.settings,
        child=child,
        write_nifti=batch.nifti_root is not None,
        keep_work=batch.keep_work,
        keep=partial(_keep, batch),
        publish=partial(_publish, there if there is not None and there.is_published else None),
    )
    return attempt(order, resources, notify)


def _keep(batch: Batch, report: CaseReport, work: Path, staged: Path) -> None:
    """Take NIfTI files and intermediates out of the work folder."""
    with atomic.storage_errors():
        if batch.keep_work:
            for name in ("nifti_in", "nifti_out"):
                _copy_files(work / name, case_path(batch.spool.work, report.case) / name)
        if batch.nifti_root is not None:
            _copy_files(work / NIFTI, staged / NIFTI)


def _publish(
    there: CaseReport | None, spool: Spool, report: CaseReport, staged: Path, rules: OutputRules
) -> CaseReport:
    """Publish a case; one that is released with the very same files only gets what was asked for beside them."""
    if there is None or there.outputs != report.outputs:
        return publish(spool, report, staged, rules)
    with atomic.storage_errors():
        rules.before_done(replace(there, staged=staged.name))
    return there


def _refused(batch: Batch, order: CaseInput, error: Exception) -> CaseReport:
    """Describe a case that was broken off, and record that unless a person broke it off."""
    report = order.report(failed(_known(error)))
    if not batch.stop.is_set():
        recorded = boundary(
            partial(record, batch.spool, report, stale_seconds=batch.settings.work.stale_seconds)
        )
        if isinstance(recorded, Exception):
            sys.stderr.write(
                f"ctdeface: the report of {printable(order.case)} could not be written: {printable(str(recorded))}\n"
            )
        else:
            _attest(batch, report)
    return report


def _attest(batch: Batch, report: CaseReport) -> None:
    """Write down that a case was refused; a person is told when that fails, and the next run repeats the case."""
    written = boundary(partial(batch.attest, report))
    if isinstance(written, Exception):
        sys.stderr.write(
            f"ctdeface: the audit entry of {printable(report.case)} could not be written: {printable(str(written))}\n"
        )


def _known(error: Exception) -> CtDefaceError:
    if isinstance(error, CtDefaceError):
        return error
    if isinstance(error, OSError):
        return UnexpectedError(f"the case cannot be read: {error.strerror}")
    return UnexpectedError(f"{type(error).__name__}: {error}")


def _copy_files(source: Path, target: Path) -> None:
    for file in sorted(source.glob("*.nii.gz")):
        atomic.make_folder(target, mode=PRIVATE)
        atomic.copy_file(file, target / file.name)
