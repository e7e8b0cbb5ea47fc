"""What the parent asks of the child: one case to deface. Light, because both sides load it."""

from dataclasses import dataclass, field
from pathlib import Path

from ctdeface_shared.jobs.options import DefaceOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseTask:
    """What to do with one case.

    Attributes:
        source: the case's folder; only read.
        staged: empty folder for the defaced DICOM.
        work: folder for the preview, NIfTI files and intermediates.
        options: what the user asked for.
        job_id: stands in the preview, so that a picture can be told from another.
        uid_key: secret behind new UIDs, for `headers: annotate`.
        write_nifti: whether defaced NIfTI files are wanted.
        keep_work: whether the undefaced input and the mask are kept as NIfTI as well.
    """

    source: Path
    staged: Path
    work: Path
    options: DefaceOptions
    job_id: str = ""
    uid_key: bytes = field(default=b"", repr=False)
    write_nifti: bool = False
    keep_work: bool = False
