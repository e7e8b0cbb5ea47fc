"""Log lines about the jobs of a worker slot."""

from ctdeface_shared import logs
from ctdeface_worker.service.events import Hook, JobEvent, Progress

_AFTER_THE_ATTEMPT = frozenset({"quarantine", "settle"})
"""Stages without a line of their own: `job_settled` follows them immediately."""

_log = logs.logger(__name__)


def log_hook(worker: str) -> Hook:
    """Return the hook that logs the jobs of a slot.

    Args:
        worker: name of the slot.
    """

    def log(event: JobEvent) -> None:
        match event.kind:
            case Progress.ATTEMPT_BEGUN:
                _log.info(
                    "attempt_begun", worker=worker, job_id=event.job_id, attempt=event.attempt
                )
            case Progress.STAGE_BEGUN if event.stage not in _AFTER_THE_ATTEMPT:
                _log.info("stage_begun", job_id=event.job_id, stage=event.stage)
            case Progress.ATTEMPT_FAILED:
                _log.warning(
                    "attempt_failed",
                    worker=worker,
                    job_id=event.job_id,
                    attempt=event.attempt,
                    code=event.code,
                )
            case Progress.SETTLED:
                _log.info(
                    "job_settled",
                    worker=worker,
                    code="TooLate" if event.late else event.settlement,
                    job_id=event.job_id or None,
                    seconds=round(event.seconds, 3),
                )
            case _:
                pass

    return log
