"""`python -m tests.support.service.telling --processes N`: a worker with the stand-in for a pipeline that also tells stages, series and checks.

Settings come from the environment. All else is real; the figures are made up, so that every metric
of a worker has something to show.
"""

import argparse
import sys
from dataclasses import replace

from ctdeface_worker.case.child_process import OnStage, Run
from ctdeface_worker.imaging.domain import Fate
from ctdeface_worker.pipeline.result import CaseResult, SeriesResult
from ctdeface_worker.pipeline.task import CaseTask
from ctdeface_worker.verification.check import Check
from tests.support.service import standin

SECONDS = {
    "read": 0.2,
    "select": 0.1,
    "load": 0.3,
    "segment": 4.0,
    "write": 0.6,
    "verify": 2.0,
    "preview": 1.0,
}
CHECKS = (
    Check(name="facial_skin_removed", passed=True, figure=0.997, bound=0.985),
    Check(name="bone_removed", passed=True, figure=0.01, bound=0.1),
)


def pipeline(_segmenter: str) -> Run[CaseTask, CaseResult]:
    """Make a child that follows the plan of each case and tells more about it."""
    return follow


def follow(task: CaseTask, on_stage: OnStage) -> CaseResult:
    """Do what the case's plan says."""
    done = standin.follow(task, on_stage)
    series = SeriesResult(
        series="1.2.3", fate=Fate.RELEASED, slices=1, voxels=512 * 512, checks=CHECKS
    )
    return replace(done, series=(series,) if done.released else (), seconds=SECONDS)


def main() -> int:
    """Work until stopped."""
    from ctdeface_shared import logs
    from ctdeface_shared.settings.service import find_service
    from ctdeface_worker.service.process import (
        run_workers,
    )  # what the child needs not stands here: it loads this module as well

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=1)
    logs.configure()
    return run_workers(find_service(None), parser.parse_args().processes, 1, pipeline)


if __name__ == "__main__":
    sys.exit(main())
