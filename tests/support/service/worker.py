"""`python -m tests.support.service.worker --spool DIR`: a worker process with the stand-in pipeline; all else is real."""

import argparse
import sys
from pathlib import Path

from ctdeface_worker.case.child_process import Run
from ctdeface_worker.pipeline.result import CaseResult
from ctdeface_worker.pipeline.task import CaseTask
from tests.support.service.standin import prepare


def pipeline(_segmenter: str) -> Run[CaseTask, CaseResult]:
    """Make a child that follows the plan of each case."""
    return prepare()


if __name__ == "__main__":
    from ctdeface_shared.settings.service import find_service
    from ctdeface_worker.service.process import (
        run_workers,
    )  # what the child needs not stands here: it loads this module as well

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spool", type=Path, required=True)
    sys.exit(run_workers(find_service(None, parser.parse_args().spool), 1, 1, pipeline))
