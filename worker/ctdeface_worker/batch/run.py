"""A batch: all cases of a folder through warm child processes.

Only this process publishes.
"""

import os
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

from rich.console import Console

from ctdeface_shared import logs
from ctdeface_shared.audit.entry import Outcome
from ctdeface_shared.audit.writer import audit_log
from ctdeface_shared.console import printable
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.exit_codes import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_PARTIAL,
    EXIT_REFUSED,
    EXIT_USAGE,
)
from ctdeface_shared.lifecycle import limit_threads, stop_on_signals, threads_per_case
from ctdeface_shared.settings.loading import Settings
from ctdeface_shared.settings.memory import with_memory_share
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.locks import sweep
from ctdeface_shared.storage.spool import Spool
from ctdeface_worker.batch.case import Batch, deface_case
from ctdeface_worker.batch.discovery import Case, find_cases, left_out
from ctdeface_worker.batch.progress import Display, display, line_of, summary
from ctdeface_worker.case.child_process import Run, WarmChild
from ctdeface_worker.case.run import CaseRun, Child
from ctdeface_worker.pipeline.result import CaseResult
from ctdeface_worker.pipeline.task import CaseTask
from ctdeface_worker.publishing.audit_entry import attest
from ctdeface_worker.publishing.commit import recover
from ctdeface_worker.segmentation.choice import segmenter_named

LOG = "log.jsonl"
MOST_NAMES = 20
"""Largest number of left-out entries that are listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """Arguments of the command line; see `ctdeface deface --help`."""

    root_in: Path
    root_out: Path
    state_root: Path
    work_root: Path | None
    nifti_root: Path | None
    keep_work: bool
    case_depth: int
    jobs: int
    redo: bool


def run_batch(plan: BatchPlan, settings: Settings) -> int:
    """Deface every case and return the exit code.

    Raises:
        ConfigurationError: a folder or a setting must be corrected first.
    """
    check_roots(plan)
    cases = find_cases(plan.root_in, depth=plan.case_depth)
    if not cases:
        _print(Console(stderr=True), f"No DICOM cases found under {plan.root_in}")
        return EXIT_USAGE
    # Report a wrong name before any folder is created.
    segmenter_named(settings.deface.segmenter, settings.models.place)
    _warn_of_strays(cases)
    spool = Spool.beside(plan.root_out, plan.state_root, plan.work_root)
    spool.prepare(outbox_mode=settings.output.folder_mode)
    if plan.nifti_root is not None:
        prepare_nifti_root(plan.nifti_root, settings.output.folder_mode)
    console, stale_seconds = Console(), settings.work.stale_seconds
    with (
        _logging_to(plan.state_root / LOG),
        stop_on_signals() as stop,
        audit_log(spool, settings.audit, stale_seconds=stale_seconds) as log,
    ):
        batch = Batch(
            spool=spool,
            options=settings.deface.options(),
            settings=with_memory_share(settings, min(plan.jobs, len(cases))),
            nifti_root=plan.nifti_root,
            keep_work=plan.keep_work,
            redo=plan.redo,
            stop=stop,
            attest=partial(attest, log, spool, Outcome.REJECTED),
        )
        with atomic.storage_errors():
            recover(spool, batch.rules)
            for folder in (spool.staging, spool.work, spool.locks):
                sweep(folder, stale_seconds=stale_seconds)
        runs = _run_cases(batch, cases, plan, console)
        summary(console, runs)
        _print_left_out(left_out(plan.root_in, cases))
        _print(console, f"reports: {spool.reports}")
        if stop.is_set():
            _print(
                console,
                f"stopped: {len(runs)} of {len(cases)} cases have ended; "
                "run the same command again to go on with the others",
            )
            return EXIT_INTERRUPTED
        return _exit_code(runs)


def _exit_code(runs: Sequence[CaseRun]) -> int:
    if not all(run.report.is_published for run in runs):
        return EXIT_REFUSED
    return EXIT_PARTIAL if any(run.report.is_partial for run in runs) else EXIT_OK


def _warn_of_strays(cases: Sequence[Case]) -> None:
    """Warn of each file that joins several folders."""
    for case in cases:
        if case.stray is not None:
            _print(Console(stderr=True), f"warning: {case.stray_warning}")


def _print_left_out(names: Sequence[str]) -> None:
    """Print which entries of the input are not cases."""
    if names:
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        _print(
            Console(stderr=True),
            "left out, as no DICOM was found in them (links and zip files are not opened): "
            f"{', '.join(names[:MOST_NAMES])}{more}",
        )


def check_roots(plan: BatchPlan) -> None:
    """Check that the folders of a batch do not overlap.

    Links are resolved first.

    Raises:
        ConfigurationError: names the two folders.
    """
    root_in, root_out = plan.root_in.resolve(), plan.root_out.resolve()
    others = [
        folder.resolve()
        for folder in (plan.state_root, plan.work_root, plan.nifti_root)
        if folder is not None
    ]
    for other in (root_out, *others):
        if _overlap(root_in, other):
            raise ConfigurationError(
                f"{other} and the input {root_in} overlap, but the input is never "
                "changed: choose a folder elsewhere"
            )
    for other in others:
        if _overlap(root_out, other):
            raise ConfigurationError(
                f"{other} and the output {root_out} overlap, but OUT holds released "
                "cases only: choose another folder"
            )


def prepare_nifti_root(folder: Path, mode: int) -> None:
    """Create the folder for NIfTI files if it is missing.

    Raises:
        ConfigurationError: it cannot be created or written.
    """
    try:
        atomic.make_folder(folder, mode=mode)
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be created: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(f"{folder} is not writable by this user")


def prepare(segmenter: str, log: Path, models: Path) -> Run[CaseTask, CaseResult]:
    """Prepare a child that logs to the batch's file."""
    from ctdeface_worker.case import child_main

    logs.configure(_open_log(log))
    return child_main.prepare(segmenter, models=models)


def _overlap(one: Path, other: Path) -> bool:
    return one == other or one in other.parents or other in one.parents


def _run_cases(
    batch: Batch, cases: Sequence[Case], plan: BatchPlan, console: Console
) -> list[CaseRun]:
    """Run all cases in threads, each with its child."""
    waiting: queue.SimpleQueue[Case] = queue.SimpleQueue()
    for case in cases:
        waiting.put(case)
    runs: list[CaseRun] = []
    jobs = min(plan.jobs, len(cases))
    limit_threads(threads_per_case(jobs, batch.settings.work.threads))
    ready = partial(
        prepare, batch.options.segmenter, plan.state_root / LOG, batch.settings.models.place
    )
    children: list[Child] = [WarmChild(ready) for _ in range(jobs)]
    with display(console, len(cases)) as shown:
        threads = [
            threading.Thread(target=_take_cases, args=(batch, child, waiting, runs, shown))
            for child in children
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if batch.stop.wait(0.1):
                for child in children:
                    child.interrupt()
        for child in children:
            child.close()
    return runs


def _take_cases(
    batch: Batch,
    child: Child,
    waiting: "queue.SimpleQueue[Case]",
    runs: list[CaseRun],
    shown: Display,
) -> None:
    """Run cases until none is waiting or the batch is stopped.

    A case that the stop has interrupted has no end.
    """
    while not batch.stop.is_set():
        try:
            case = waiting.get_nowait()
        except queue.Empty:
            return
        run = deface_case(batch, case, child, partial(shown.stage, case.name))
        if run.report.is_published or not batch.stop.is_set():
            runs.append(run)
            shown.finished(case.name, line_of(run))


@contextmanager
def _logging_to(file: Path) -> Iterator[None]:
    """Log to a file of the state root."""
    with _open_log(file) as stream:
        logs.configure(stream)
        try:
            yield
        finally:
            logs.configure()


def _open_log(file: Path) -> TextIO:
    return os.fdopen(
        os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        "w",
        buffering=1,
        encoding="utf-8",
    )


def _print(console: Console, text: str) -> None:
    console.print(printable(text), soft_wrap=True, highlight=False, markup=False)
