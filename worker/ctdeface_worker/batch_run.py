"""Runs a batch: every case of a folder through the pipeline in warm child processes; only this process publishes."""

import os
import queue
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console

from ctdeface_shared import durable
from ctdeface_shared.cli import EXIT_INTERRUPTED, EXIT_OK, EXIT_REFUSED, EXIT_USAGE
from ctdeface_shared.errors import ConfigurationError, CtDefaceError, InputChanged
from ctdeface_shared.lifecycle import boundary, stop_on_signals
from ctdeface_shared.manifest import Manifest, job_id
from ctdeface_shared.options import DefaceOptions
from ctdeface_shared.ownership import owned_folder, sweep
from ctdeface_shared.settings import Settings
from ctdeface_shared.spool import PRIVATE, Spool, case_path
from ctdeface_worker.cases import Case, find_cases
from ctdeface_worker.executor import Notify, Run, UnexpectedError, WarmChild
from ctdeface_worker.journal import find_report, keep_pictures, record
from ctdeface_worker.outbox import OutputRules
from ctdeface_worker.pipeline import CaseTask, deface_case
from ctdeface_worker.progress import Display, display, summary
from ctdeface_worker.publishing import publish, recover, resume
from ctdeface_worker.report.model import CaseReport, describe, failed
from ctdeface_worker.result import CaseResult
from ctdeface_worker.segmentation.choice import segmenter_named

GRACE_SECONDS = 300.0
"""Folders that nobody touched for the job timeout and this long are abandoned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """What the command line asked for beyond the settings; see `ctdeface deface --help`."""

    root_in: Path
    root_out: Path
    state_root: Path
    work_root: Path | None
    nifti_root: Path | None
    keep_work: bool
    case_depth: int
    jobs: int
    redo: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """What every case of the batch is worked on with."""

    plan: BatchPlan
    spool: Spool
    options: DefaceOptions
    settings: Settings

    @property
    def rules(self) -> OutputRules:
        output = self.settings.output
        return OutputRules(
            folder_mode=output.folder_mode, file_mode=output.file_mode, group=output.outbox_group, stale_seconds=self.stale_seconds
        )

    @property
    def stale_seconds(self) -> float:
        return self.settings.work.job_timeout + GRACE_SECONDS


def run_batch(plan: BatchPlan, settings: Settings) -> int:
    """Deface every case and return the exit code.

    Raises:
        ConfigurationError: a folder or a setting must be put right first.
    """
    console = Console(stderr=False)
    cases = _cases(plan)
    if not cases:
        Console(stderr=True).print(f"No DICOM cases found under {plan.root_in}", soft_wrap=True, highlight=False, markup=False)
        return EXIT_USAGE
    spool = Spool.beside(plan.root_out, plan.state_root, plan.work_root)
    batch = _Batch(plan=plan, spool=spool, options=settings.deface.options(), settings=settings)
    segmenter_named(batch.options.segmenter)  # a wrong name shall be told before anything is made
    spool.prepare(outbox_mode=settings.output.folder_mode)
    recover(spool, batch.rules)
    for folder in (spool.staging, spool.work, spool.locks):
        sweep(folder, stale_seconds=batch.stale_seconds)
    reports, skipped, stopped = _work_through(batch, cases, console)
    console.print(summary(reports, skipped))
    console.print(f"reports: {spool.reports}", soft_wrap=True, highlight=False, markup=False)
    if stopped:
        return EXIT_INTERRUPTED
    return EXIT_OK if all(report.result.released for report in reports) else EXIT_REFUSED


def _cases(plan: BatchPlan) -> tuple[Case, ...]:
    root_in, places = plan.root_in.resolve(), [plan.root_out, plan.state_root, plan.work_root, plan.nifti_root]
    for place in (folder.resolve() for folder in places if folder is not None):
        if place == root_in or root_in in place.parents:
            message = f"{place} lies in {root_in}, which is never changed: choose a folder elsewhere"
            raise ConfigurationError(message)
    return find_cases(plan.root_in, depth=plan.case_depth)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tally:
    """What came of the batch so far; threads only append."""

    reports: list[CaseReport] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def _work_through(batch: _Batch, cases: tuple[Case, ...], console: Console) -> tuple[list[CaseReport], int, bool]:
    """Work on all cases in `jobs` threads, each with a child process of its own.

    Returns:
        The reports, how many cases were skipped, and whether it was stopped.
    """
    waiting: queue.SimpleQueue[Case] = queue.SimpleQueue()
    for case in cases:
        waiting.put(case)
    tally = _Tally()
    jobs = min(batch.plan.jobs, len(cases))
    threads = batch.settings.work.threads or max((os.cpu_count() or 1) // jobs, 1)
    os.environ.update({name: str(threads) for name in ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")})
    children = [WarmChild(partial(prepare, batch.options.segmenter)) for _ in range(jobs)]
    with display(console, len(cases)) as shown, stop_on_signals() as stop:
        crew = [
            threading.Thread(target=_work, args=(batch, child, waiting, partial(_settle, tally, shown, stop), shown, stop))
            for child in children
        ]
        for worker in crew:
            worker.start()
        while any(worker.is_alive() for worker in crew):
            if stop.wait(0.1):
                for child in children:
                    child.interrupt()
        for child in children:
            child.close()
        return tally.reports, len(tally.skipped), stop.is_set()


def _work(  # noqa: PLR0913, PLR0917  the arguments of a thread
    batch: _Batch,
    child: WarmChild[CaseTask, CaseResult],
    waiting: "queue.SimpleQueue[Case]",
    settle: Callable[[Case, CaseReport | None], None],
    shown: Display,
    stop: threading.Event,
) -> None:
    """Take cases from the queue until it is empty or the batch is stopped."""
    while not stop.is_set():
        try:
            case = waiting.get_nowait()
        except queue.Empty:
            return
        settle(case, _deface(batch, case, child, shown))


def _settle(tally: _Tally, shown: Display, stop: threading.Event, case: Case, report: CaseReport | None) -> None:
    """Count a case; one that was broken off by a stop is no outcome."""
    if report is None:
        tally.skipped.append(case.name)
        shown.finished(case.name, f"{case.name}: already released, skipped")
    elif report.result.released or not stop.is_set():
        tally.reports.append(report)
        shown.finished(case.name, _line(report))


def prepare(segmenter_name: str) -> Run[CaseTask, CaseResult]:
    """Make a child ready for cases: load the segmenter once."""
    segmenter = segmenter_named(segmenter_name)

    def run(task: CaseTask, notify: Notify) -> CaseResult:
        return deface_case(task, segmenter, notify)

    return run


def _deface(batch: _Batch, case: Case, child: WarmChild[CaseTask, CaseResult], shown: Display) -> CaseReport | None:
    """Bring one case to its report; None when it was already released. Whatever goes wrong costs this case only."""
    manifest = Manifest(files=0, bytes=0, digest="")
    identity = ""
    try:
        manifest = Manifest.scan(case.folder)
        identity = job_id(case.name, manifest, batch.options)
        earlier = None if batch.plan.redo else find_report(batch.spool, case.name, identity)
        if earlier is not None and resume(batch.spool, earlier, batch.rules) is not None:
            return None
    except OSError as error:
        result = failed(UnexpectedError(f"the case cannot be read: {error.strerror}"))
        return describe(identity or job_id(case.name, manifest, batch.options), case.name, manifest, batch.options, result)
    outcome = boundary(partial(_attempt, batch, case, child, partial(shown.stage, case.name)))
    if isinstance(outcome, Exception):
        known = outcome if isinstance(outcome, CtDefaceError) else UnexpectedError(f"{type(outcome).__name__}: {outcome}")
        outcome = describe(identity, case.name, manifest, batch.options, failed(known))
        recorded = boundary(partial(record, batch.spool, outcome))
        if isinstance(recorded, Exception):
            sys.stderr.write(f"ctdeface: the report of {case.name} could not be written: {recorded}\n")
    return outcome


def _attempt(batch: _Batch, case: Case, child: WarmChild[CaseTask, CaseResult], notify: Notify) -> CaseReport:
    spool, plan = batch.spool, batch.plan
    spool.check_free_space(batch.settings.output.min_free_gb)
    manifest = Manifest.scan(case.folder)
    with owned_folder(spool.staging) as staged, owned_folder(spool.work) as work:
        (staged / "dicom").mkdir()
        key = batch.settings.uid_key
        task = CaseTask(
            source=case.folder,
            staged=staged / "dicom",
            work=work,
            options=batch.options,
            uid_key=key.get_secret_value().encode() if key else b"",
            write_nifti=plan.nifti_root is not None,
            keep_work=plan.keep_work,
        )
        result = child.run(task, notify=notify, timeout_seconds=batch.settings.work.job_timeout)
        if Manifest.scan(case.folder) != manifest:
            message = "the case was changed while it was worked on; run again when it is complete"
            raise InputChanged(message)
        report = describe(job_id(case.name, manifest, batch.options), case.name, manifest, batch.options, result)
        if plan.keep_work:
            _copy_tree(work, case_path(spool.work, case.name), ("nifti_in", "nifti_out"))
        if not result.released:
            record(spool, report)
            return report
        notify("publish")
        keep_pictures(spool, report, work)
        report = publish(spool, report, staged, batch.rules)
        if plan.nifti_root is not None:
            _copy_tree(work / "nifti", case_path(plan.nifti_root, case.name), (".",))
        return report


def _copy_tree(source: Path, target: Path, names: tuple[str, ...]) -> None:
    """Copy files of sub-folders, each appearing at once under its final name."""
    for name in names:
        for file in sorted((source / name).glob("*.*")):
            durable.make_folder(target / name, mode=PRIVATE)
            place = target / name / file.name
            beside = place.with_name(f".{file.name}.part")
            shutil.copyfile(file, beside)
            beside.replace(place)


def _line(report: CaseReport) -> str:
    result = report.result
    seconds = sum(result.seconds.values())
    return f"{report.case}: released in {seconds:.1f} s" if result.released else f"{report.case}: refused, {result.code}: {result.reason}"
