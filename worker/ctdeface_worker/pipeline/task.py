"""Task that the parent process sends to its child.

Both load this module, so its imports stay light.
"""

from dataclasses import dataclass, field
from pathlib import Path

from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_worker.dicom.limits import USUAL_LIMITS, ReadLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseTask:
    """One case to deface.

    Attributes:
        source: the case's folder; only read.
        staged: empty folder for the defaced DICOM.
        work: folder for the preview, NIfTI files and intermediates.
        options: options of the job.
        job_id: printed in the preview, to identify the picture.
        uid_key: secret key of new UIDs, for `headers: annotate`.
        write_nifti: whether to write defaced NIfTI files.
        keep_work: whether to keep the undefaced input and the mask as NIfTI.
        limits: maximum size of what is read.
    """

    source: Path
    staged: Path
    work: Path
    options: DefaceOptions
    job_id: str = ""
    uid_key: bytes = field(default=b"", repr=False)
    write_nifti: bool = False
    keep_work: bool = False
    limits: ReadLimits = USUAL_LIMITS
