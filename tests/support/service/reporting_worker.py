"""Start workers whose stand-in pipeline also reports stages, series and checks.

    python -m tests.support.service.reporting_worker --processes N

Settings come from the environment. The figures are invented, so that every metric of a worker has
a value; everything else is real.
"""

import argparse
import sys
from dataclasses import replace

from ctdeface_worker.case.child_process import OnStage, Run
from ctdeface_worker.imaging.domain import Fate
from ctdeface_worker.pipeline.result import CaseResult, SeriesResult
from ctdeface_worker.pipeline.task import CaseTask
from ctdeface_worker.verification.check import Check
from tests.support.service import stand_in_pipeline

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
    """Return the stand-in pipeline with invented figures."""
    return follow


def follow(task: CaseTask, on_stage: OnStage) -> CaseResult:
    """Follow the plan of a case and add a series, checks and seconds."""
    done = stand_in_pipeline.follow(task, on_stage)
    series = SeriesResult(
        series="1.2.3", fate=Fate.RELEASED, slices=1, voxels=512 * 512, checks=CHECKS
    )
    return replace(done, series=(series,) if done.released else (), seconds=SECONDS)


def main() -> int:
    """Work until stopped."""
    from ctdeface_shared import logs
    from ctdeface_shared.settings.service import find_service

    # The child process imports this module too and does not need the following one.
    from ctdeface_worker.service.process import run_workers

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=1)
    logs.configure()
    return run_workers(find_service(None), parser.parse_args().processes, 1, pipeline)


if __name__ == "__main__":
    sys.exit(main())
