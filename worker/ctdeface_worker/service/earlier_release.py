"""Jobs that release 0.1.0 has published, whose cases are in the inbox.

The watcher takes such a case and publishes a job of its own. Here only what a worker of that
release had recorded is brought to its end.
"""

from ctdeface_shared.jobs import attempt_log
from ctdeface_shared.jobs.messages import DefaceJob
from ctdeface_shared.storage.spool import case_path
from ctdeface_worker.case.run import CaseResources
from ctdeface_worker.publishing.commit import resume
from ctdeface_worker.publishing.journal import find_report
from ctdeface_worker.report.model import State
from ctdeface_worker.service.attempts import claimed


def finish_job(resources: CaseResources, job: DefaceJob) -> None:
    """Finish the recorded publication or refusal of a job without a new attempt.

    Raises:
        JobInProgress: another worker has the job.
        VerificationFailed: the staged files are not those that passed the gate.
        StorageUnavailable: storage failed; the call can be repeated.
        OSError: storage failed; the call can be repeated.
    """
    spool = resources.spool
    with claimed(spool.locks, job.job_id):
        report = find_report(spool, job.case, job.job_id)
        if report is not None and report.state is State.REFUSED:
            resources.refuse(report)
        elif report is not None:
            resume(spool, report, resources.rules)
        folder = case_path(spool.reports, job.case) / job.job_id
        if attempt_log.read(folder).is_open:
            attempt_log.hand_back(folder)
