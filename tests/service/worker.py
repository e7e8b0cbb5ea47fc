"""`python -m tests.service.worker --spool DIR`: a worker process with the stand-in pipeline; all else is real."""

import argparse
import sys
from pathlib import Path

from ctdeface_worker.executor import Run
from ctdeface_worker.result import CaseResult
from ctdeface_worker.task import CaseTask
from tests.service.standin import prepare


def pipeline(_segmenter: str) -> Run[CaseTask, CaseResult]:
    """Make a child that follows the plan of each case."""
    return prepare()


if __name__ == "__main__":
    from ctdeface_shared.site import find_site
    from ctdeface_worker.crew import run_crew  # what the child needs not stands here: it loads this module as well

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spool", type=Path, required=True)
    sys.exit(run_crew(find_site(None, parser.parse_args().spool), 1, 1, pipeline))
