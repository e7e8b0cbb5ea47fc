"""Every refusal and failure, named after what it means; the class decides how a job is settled.

    CtDefaceError
    ├─ ConfigurationError   the operator must change something; the process exits with 78
    ├─ PermanentError       this case can never be released as it is: quarantine and report
    └─ TransientError       worth another attempt
    anything else           a bug: settled like a transient error, logged with its traceback

Each class has a stable `code` (its name), which reports, metrics and `replay --code` use.
"""

from typing import ClassVar


class CtDefaceError(Exception):
    """Base of all errors this project raises on purpose; `str(error)` is a sentence for a person."""

    code: ClassVar[str] = "CtDefaceError"

    def __init_subclass__(cls) -> None:
        """Make the class name the stable code."""
        cls.code = cls.__name__


class ConfigurationError(CtDefaceError):
    """A setting, a folder or the installation must be put right first."""


class PermanentError(CtDefaceError):
    """The case cannot be released as it is, however often it is tried."""


class InvalidSeries(PermanentError):
    """A series whose instances do not make one trustworthy volume."""


class NotDicom(InvalidSeries):
    """Nothing in the case is DICOM."""


class UnreadableInstance(InvalidSeries):
    """A DICOM file that is damaged or truncated."""


class MissingSlices(InvalidSeries):
    """A gap between slices, so the volume has holes."""


class InconsistentGeometry(InvalidSeries):
    """Instances of one series that contradict each other about where they lie."""


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
    """The network and the geometric rules do not mean the same face."""


class VerificationFailed(PermanentError):
    """The gate could not prove that the face is gone and that everything else is untouched."""


class WithheldOnRequest(PermanentError):
    """A series that whoever ordered the job wanted to be left out."""


class UnknownSeries(PermanentError):
    """A series that was to be left out is not in the case; releasing the others could release the one that was meant."""


class NothingToRelease(PermanentError):
    """No series of the case can be released."""


class LateFiles(PermanentError):
    """Files that belong to a case whose originals are gone; alone they would replace the whole case's output."""


class UnsafeArchive(PermanentError):
    """A zip file that is damaged, too large, encrypted, or that would write outside its folder."""


class EscapingPath(PermanentError):
    """A case name that leads out of its folder."""


class InvalidMessage(PermanentError):
    """A message that cannot be read as a job; it is dead-lettered, for there is no case to write a report about."""


class UnknownVersion(InvalidMessage):
    """A message of a contract that this version does not know."""


class TransientError(CtDefaceError):
    """Failed for a reason that may pass; worth another attempt."""


class StorageUnavailable(TransientError):
    """Disk full, input/output error or a file system that went away."""


class BrokerUnavailable(TransientError):
    """The queue cannot be reached, or did not confirm what it was given."""


class OutOfMemory(TransientError):
    """Not enough memory for this case right now."""


class SecretMissing(TransientError):
    """This worker lacks a secret that the job needs; another one may have it."""


class InputChanged(TransientError):
    """The input was changed while it was being processed."""
