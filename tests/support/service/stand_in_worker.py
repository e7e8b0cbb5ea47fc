"""Start real workers with the stand-in pipeline, and crash them on request.

    python -m tests.support.service.stand_in_worker --config FILE [--processes N] [--die-at STEP …]
    python -m tests.support.service.stand_in_worker --spool FOLDER

For each STEP of `--die-at`, one more worker runs first and gets SIGKILL after that step of a
publication.
"""

import argparse
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from threading import Event

from ctdeface_worker.case.child_process import Run
from ctdeface_worker.pipeline.result import CaseResult
from ctdeface_worker.pipeline.task import CaseTask
from tests.support.service import stand_in_pipeline


def pipeline(_segmenter: str) -> Run[CaseTask, CaseResult]:
    """Return the stand-in pipeline."""
    return stand_in_pipeline.prepare()


def die_at(config: Path, last_step: str) -> None:
    """Run a worker in its own process until it dies after a step of a publication."""
    # This process still has one thread, so a fork is safe and much faster than a new interpreter.
    pid = os.fork()
    if pid == 0:
        _serve_until(config, last_step)
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        raise RuntimeError(f"the worker did not die by SIGKILL after the step {last_step!r}")


def _serve_until(config: Path, last_step: str) -> None:
    from ctdeface_shared.audit.writer import audit_log
    from ctdeface_shared.settings.service import find_service
    from ctdeface_worker.service.consumer import serve
    from ctdeface_worker.service.process import worker_slot

    def die_after(step: str) -> None:
        if step == last_step:
            os.kill(os.getpid(), signal.SIGKILL)

    service = find_service(config)
    service.prepare()
    with audit_log(
        service.spool, service.settings.audit, stale_seconds=service.settings.work.job_timeout
    ) as log:
        slot = worker_slot(service, "slot-0", Event(), pipeline, log)
        serve(replace(slot, resources=replace(slot.resources, step=die_after)))


def main() -> int:
    """Work until stopped."""
    from ctdeface_shared import logs
    from ctdeface_shared.commands.main import complain
    from ctdeface_shared.errors import ConfigurationError
    from ctdeface_shared.exit_codes import EXIT_CONFIGURATION
    from ctdeface_shared.settings.service import find_service

    # The child process imports this module too and does not need the following one.
    from ctdeface_worker.service.process import run_workers

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path)
    parser.add_argument("--spool", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--die-at", nargs="*", default=[])
    chosen = parser.parse_args()
    logs.configure()
    try:
        for step in chosen.die_at:
            die_at(chosen.config, step)
        service = find_service(chosen.config, chosen.spool)
        return run_workers(service, chosen.processes, 1, pipeline)
    except ConfigurationError as error:
        return complain(str(error), EXIT_CONFIGURATION)


if __name__ == "__main__":
    sys.exit(main())
