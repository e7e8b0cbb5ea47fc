"""Entry point of the warm child.

The parent imports this module as well, so imaging libraries are loaded in `prepare` only.
"""

from functools import cache, partial
from pathlib import Path

from ctdeface_worker.case.child_process import OnStage, Run
from ctdeface_worker.pipeline.result import CaseResult
from ctdeface_worker.pipeline.task import CaseTask
from ctdeface_worker.segmentation.choice import segmenter_named


def prepare(segmenter: str, *, models: Path | None = None) -> Run[CaseTask, CaseResult]:
    """Load the default segmenter and return the function that runs cases.

    Args:
        segmenter: name of the segmenter that most cases use.
        models: folder of installed networks; None for the folder of the user.

    Raises:
        ConfigurationError: the segmenter is not installed.
    """
    from ctdeface_worker.pipeline.pipeline import deface_case

    loaded = cache(partial(segmenter_named, store=models))
    loaded(segmenter)

    def run(task: CaseTask, on_stage: OnStage) -> CaseResult:
        return deface_case(task, loaded(task.options.segmenter), on_stage)

    return run
