"""What runs in the warm child: cases through the pipeline, with every segmenter loaded once."""

from functools import cache

from ctdeface_worker.executor import Notify, Run
from ctdeface_worker.pipeline import deface_case
from ctdeface_worker.result import CaseResult
from ctdeface_worker.segmentation.choice import segmenter_named
from ctdeface_worker.task import CaseTask


def prepare(segmenter: str) -> Run[CaseTask, CaseResult]:
    """Make a child ready for cases: load the segmenter that most of them ask for.

    Raises:
        ConfigurationError: there is no such segmenter.
    """
    loaded = cache(segmenter_named)
    loaded(segmenter)

    def run(task: CaseTask, notify: Notify) -> CaseResult:
        return deface_case(task, loaded(task.options.segmenter), notify)

    return run
