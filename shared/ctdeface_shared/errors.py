"""All refusals and failures.

The class of an error decides how a job is settled:

    CtDefaceError
    ├─ ConfigurationError   the operator must change something; the process exits with 78
    ├─ PermanentError       this case can never be released as it is: quarantine and report
    └─ TransientError       worth another attempt
    anything else           a bug: settled like a transient error, logged with its traceback

Each class has a stable `code` (its name), which reports, metrics and `replay --code` use. A new
refusal also needs its remedy in `jobs.remedies` and a line in docs/reference/refusals.md.
"""

from typing import ClassVar


class CtDefaceError(Exception):
    """Base of all errors of this project; `str(error)` is a sentence."""

    code: ClassVar[str] = "CtDefaceError"

    def __init_subclass__(cls) -> None:
        """Make the class name the stable code."""
        cls.code = cls.__name__


class ConfigurationError(CtDefaceError):
    """A setting, a folder or the installation must be corrected first."""


class PermanentError(CtDefaceError):
    """The case cannot be released as it is, in any attempt."""


class InvalidSeries(PermanentError):
    """A series whose instances do not make one trustworthy volume."""


class NotDicom(InvalidSeries):
    """Nothing in the case is DICOM."""


class UnreadableInstance(InvalidSeries):
    """A DICOM file that is damaged or truncated."""


class MissingSlices(InvalidSeries):
    """A gap between slices, so the volume has holes."""


class InconsistentGeometry(InvalidSeries):
    """Instances of one series that contradict each other about their positions."""


class UntrustedGeometry(InvalidSeries):
    """The anatomy in the pixels contradicts the orientation in the headers."""


class RepeatedPositions(InvalidSeries):
    """Several different slices at one position (dynamic or multi-energy series)."""


class MixedPatients(PermanentError):
    """Instances of more than one patient in one case."""


class UnsupportedObject(PermanentError):
    """A DICOM object that is not a volume of CT slices."""


class UnsupportedTransferSyntax(PermanentError):
    """Pixel data in an encoding that cannot be decoded here."""


class FaceNotFound(PermanentError):
    """No face could be found in the volume."""


class SegmentersDisagree(PermanentError):
    """Network and geometric rules find different places."""


class VerificationFailed(PermanentError):
    """The gate could not prove that the face, and nothing else, is gone."""


class SeveralHeads(PermanentError):
    """More than one head or face is in view, and only one was defaced."""


class WithheldOnRequest(PermanentError):
    """A series that the job asks to leave out."""


class UnknownSeries(PermanentError):
    """A series to leave out is not in the case.

    Releasing the others could release the one that was meant.
    """


class NothingToRelease(PermanentError):
    """No series of the case can be released."""


class LateFiles(PermanentError):
    """Late files of a case whose originals no longer exist.

    Alone they would replace the output of the whole case.
    """


class UnsafeArchive(PermanentError):
    """A damaged, oversized, encrypted or escaping zip file."""


class UnsafeDrop(PermanentError):
    """A drop with links, devices, files of other users, or more than the limits allow."""


class TooLarge(PermanentError):
    """A case that needs more memory, or larger files, than the limits allow."""


class EscapingPath(PermanentError):
    """A case name that escapes its folder."""


class InvalidMessage(PermanentError):
    """A message that cannot be read as a job.

    It is dead-lettered, because a report needs a case.
    """


class UnknownVersion(InvalidMessage):
    """A message of an unknown version of the contract."""


class TransientError(CtDefaceError):
    """A failure for a reason that may pass."""


class StorageUnavailable(TransientError):
    """A full disk, an I/O error or a lost file system."""


class ChangedMeanwhile(StorageUnavailable):
    """A drop that was changed while it was copied."""


class BrokerUnavailable(TransientError):
    """The queue cannot be reached, or did not confirm a message."""


class OutOfMemory(TransientError):
    """Not enough memory for this case right now."""


class SecretMissing(TransientError):
    """This worker lacks a secret that another one may have."""


class InputChanged(TransientError):
    """The input was changed while it was being processed."""
