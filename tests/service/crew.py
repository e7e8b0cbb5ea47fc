"""A worker of `fleet`, with the stand-in for the pipeline and, if asked for, an early end; all else is real.

    python -m tests.service.crew --config FILE [--processes N] [--die-at STEP …]

With `--die-at` other workers serve before it, one after the other; each kills itself, as SIGKILL does, when its step of a publication
is done.
"""

import argparse
import os
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event

from ctdeface_worker.executor import Run
from ctdeface_worker.result import CaseResult
from ctdeface_worker.task import CaseTask
from tests.service import standin


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
        message = f"the worker that was to die at {last_step!r} ended otherwise"
        raise RuntimeError(message)


def _serve_until(config: Path, last_step: str) -> None:
    from ctdeface_shared.audit.writer import audit_log
    from ctdeface_shared.site import find_site
    from ctdeface_worker.crew import station_of
    from ctdeface_worker.publishing import publish, resume
    from ctdeface_worker.service import serve

    def told(step: str) -> None:
        if step == last_step:
            os.kill(os.getpid(), signal.SIGKILL)

    site = find_site(config)
    site.prepare()
    with audit_log(site.spool, site.settings.audit, stale_seconds=site.settings.work.job_timeout) as log:
        station = station_of(site, "slot-0", Event(), pipeline, log)
        bench = replace(station.bench, publish=partial(publish, step=told), resume=partial(resume, step=told))
        serve(replace(station, bench=bench))


def main() -> int:
    """Work until stopped."""
    from ctdeface_shared import logs
    from ctdeface_shared.cli import EXIT_CONFIGURATION, complain
    from ctdeface_shared.errors import ConfigurationError
    from ctdeface_shared.site import find_site
    from ctdeface_worker.crew import run_crew  # what the child needs not stands here: it loads this module as well

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--die-at", nargs="*", default=[])
    chosen = parser.parse_args()
    logs.configure()
    try:
        for step in chosen.die_at:
            die_at(chosen.config, step)
        return run_crew(find_site(chosen.config), chosen.processes, 1, pipeline)
    except ConfigurationError as error:
        return complain(str(error), EXIT_CONFIGURATION)


if __name__ == "__main__":
    sys.exit(main())
