"""What runs in the warm child: cases through the pipeline, with every segmenter loaded once.

Whoever only starts children imports this as well, so imaging libraries are loaded when a child
makes itself ready.
"""

from functools import cache, partial
from pathlib import Path

from ctdeface_worker.case.child_process import Notify, Run
from ctdeface_worker.pipeline.result import CaseResult
from ctdeface_worker.pipeline.task import CaseTask
from ctdeface_worker.segmentation.choice import segmenter_named


def prepare(segmenter: str, *, models: Path | None = None) -> Run[CaseTask, CaseResult]:
    """Make a child ready for cases: load the segmenter that most of them ask for.

    Args:
        segmenter: its name.
        models: folder of installed networks; None is the user's.

    Raises:
        ConfigurationError: there is no such segmenter.
    """
    from ctdeface_worker.pipeline.pipeline import deface_case

    loaded = cache(partial(segmenter_named, store=models))
    loaded(segmenter)

    def run(task: CaseTask, notify: Notify) -> CaseResult:
        return deface_case(task, loaded(task.options.segmenter), notify)

    return run
