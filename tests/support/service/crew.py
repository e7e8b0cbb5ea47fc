"""A worker of `fleet`, with the stand-in for the pipeline and, if asked for, an early end; all else is real.

    python -m tests.support.service.crew --config FILE [--processes N] [--die-at STEP …]

With `--die-at` other workers serve before it, one after the other; each kills itself, as SIGKILL
does, when its step of a publication is done.
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
from tests.support.service import standin


def pipeline(_segmenter: str) -> Run[CaseTask, CaseResult]:
    """Make a child that follows the plan of each case."""
    return standin.prepare()


def die_at(config: Path, last_step: str) -> None:
    """Wait for a worker of one slot, a process of its own, that dies when a step of a publication is done."""
    pid = os.fork()  # a copy of this process, which has one thread yet: much faster than a start
    if pid == 0:
        _serve_until(config, last_step)
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        raise RuntimeError(f"the worker that was to die at {last_step!r} ended otherwise")


def _serve_until(config: Path, last_step: str) -> None:
    from ctdeface_shared.audit.writer import audit_log
    from ctdeface_shared.settings.service import find_service
    from ctdeface_worker.service.consumer import serve
    from ctdeface_worker.service.process import worker_slot

    def die(step: str) -> None:
        if step == last_step:
            os.kill(os.getpid(), signal.SIGKILL)

    service = find_service(config)
    service.prepare()
    with audit_log(
        service.spool, service.settings.audit, stale_seconds=service.settings.work.job_timeout
    ) as log:
        slot = worker_slot(service, "slot-0", Event(), pipeline, log)
        serve(replace(slot, resources=replace(slot.resources, step=die)))


def main() -> int:
    """Work until stopped."""
    from ctdeface_shared import logs
    from ctdeface_shared.commands.main import complain
    from ctdeface_shared.errors import ConfigurationError
    from ctdeface_shared.exit_codes import EXIT_CONFIGURATION
    from ctdeface_shared.settings.service import find_service
    from ctdeface_worker.service.process import (
        run_workers,
    )  # what the child needs not stands here: it loads this module as well

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--die-at", nargs="*", default=[])
    chosen = parser.parse_args()
    logs.configure()
    try:
        for step in chosen.die_at:
            die_at(chosen.config, step)
        return run_workers(find_service(chosen.config), chosen.processes, 1, pipeline)
    except ConfigurationError as error:
        return complain(str(error), EXIT_CONFIGURATION)


if __name__ == "__main__":
    sys.exit(main())
