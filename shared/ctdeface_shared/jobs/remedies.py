"""What to do about each code: one table for reports, commands and the documentation."""

from collections.abc import Mapping
from types import MappingProxyType

_SEND_AGAIN = "Send the case again from its source; this copy is damaged or incomplete."
_OTHER_SERIES = "To release the other series, repeat with `--on-series-failure withhold`."
_CONVERT = (
    "Convert the series to single-frame, uncompressed CT images with a tool that you trust, "
    f"and drop the case again. {_OTHER_SERIES}"
)
_STRANGE_MESSAGE = (
    "The message does not come from this service's watcher: look at the dead letters of the queue "
    "and at who may publish to it."
)
_FEWER_AT_A_TIME = (
    "Repeat the case with fewer workers or `--jobs`, or give the machine more memory "
    "(setting `work.memory_limit_gb`)."
)
_NO_ACTION = "No action is needed: this is not a part of the CT volume and is never released."

REMEDIES: Mapping[str, str] = MappingProxyType(
    {
        "VerificationFailed": (
            "Look at the failed checks in the report: metal, bandages and a head cut by the field "
            "of view are the usual causes. Repeat with `--profile bulky`; no option releases a "
            f"series past the checks. {_OTHER_SERIES}"
        ),
        "SeveralHeads": (
            "Look at the place that the report names: a second person, a head phantom, a mask or a "
            "cast of a face is in view. Export the series again with a field of view around one "
            f"head. {_OTHER_SERIES}"
        ),
        "SegmentersDisagree": (
            "Look at the case: the network and the geometric rules mark different places. Repeat "
            'with the geometric rules (setting `deface.segmenter = "geometric"`; in a service '
            "`ctdeface replay CASE --segmenter geometric`)."
        ),
        "FaceNotFound": (
            "No action is needed if the scan does not show a face, as with a chest or the crown of "
            "a head. If it shows one, repeat with the geometric rules "
            '(setting `deface.segmenter = "geometric"`).'
        ),
        "NothingToRelease": (
            "No action is needed if the case holds no head CT, or only localizers and derived "
            "images. Otherwise look at the reason of each series in the report."
        ),
        "MissingSlices": (
            "If slices were lost on the way, send the case again, complete. If the series was made "
            f"with gaps, such as a reformat, it cannot be released. {_OTHER_SERIES}"
        ),
        "UnreadableInstance": f"{_SEND_AGAIN} {_OTHER_SERIES}",
        "NotDicom": "Check that the folder holds the DICOM files of a case, and send them again.",
        "InconsistentGeometry": (
            "The headers of one series contradict each other: export the series again. "
            f"{_OTHER_SERIES}"
        ),
        "UntrustedGeometry": (
            "The orientation in the headers contradicts the anatomy in the pixels: export the "
            f"series again from its source, and report a wrong export there. {_OTHER_SERIES}"
        ),
        "RepeatedPositions": (
            "Dynamic and multi-energy series are not supported yet: export one time point or "
            f"energy as a series of its own. {_OTHER_SERIES}"
        ),
        "MixedPatients": "Put the files of each patient into a case folder of their own.",
        "UnsupportedObject": _CONVERT,
        "UnsupportedTransferSyntax": _CONVERT,
        "WithheldOnRequest": "No action is needed: the series was left out on request.",
        "UnknownSeries": (
            "Correct the SeriesInstanceUID that was given to `--withhold`, and repeat the case."
        ),
        "LateFiles": (
            "The originals of this case are deleted: drop the whole case again, not only the files "
            "that came late."
        ),
        "UnsafeDrop": (
            "Copy the plain files of the case, as one user, into a new folder, and drop that. What "
            "is too large can be allowed in the settings (`limits`)."
        ),
        "UnsafeArchive": "Unpack the zip file yourself, check it, and drop the folder.",
        "TooLarge": (
            "If the case is sound, split it into several cases, raise the limit that the reason "
            "names, or give the machine more memory. Otherwise remove the file that is named."
        ),
        "EscapingPath": _STRANGE_MESSAGE,
        "InvalidMessage": _STRANGE_MESSAGE,
        "UnknownVersion": (
            "The job was made by a newer version: update this worker, then replay the dead letters."
        ),
        "SecretMissing": (
            "The job asks for new UIDs: set `CTDEFACE_UID_KEY` on every worker, and repeat."
        ),
        "ChangedMeanwhile": "No action is needed: the watcher copies the drop again.",
        "InputChanged": "Files were still being copied: repeat when the case is complete.",
        "StorageUnavailable": (
            "Free space on the disk or bring the file system back, and repeat; "
            "`output.min_free_gb` is the required minimum."
        ),
        "BrokerUnavailable": "Start the queue or correct its address, and repeat.",
        "OutOfMemory": _FEWER_AT_A_TIME,
        "WorkerCrashed": _FEWER_AT_A_TIME,
        "WorkerTimedOut": (
            "Repeat the case with fewer workers or `--jobs`; raise `work.job_timeout` for very "
            "large cases."
        ),
        "UnexpectedError": (
            "This is a fault of the program, or the case cannot be read: look at the log of this "
            "job, and report it."
        ),
        "Superseded": "No action is needed: a newer job of the same case is published.",
        "ConfigurationError": "Correct the setting or folder that the message names.",
        "DicomDir": "No action is needed: a DICOMDIR would not fit the released files.",
        "Localizer": _NO_ACTION,
        "DerivedImage": _NO_ACTION,
        "NotAVolume": _NO_ACTION,
        "BurnedInAnnotation": (
            "Text in the pixels may name the patient: check the series, and export it without text."
        ),
    }
)
"""Remedy by the stable code of an error or of a withheld file."""


def remedy(code: str, *, others_are_released: bool = False) -> str:
    """Return what to do about a code; empty for an unknown one.

    Args:
        code: stable code of an error or of a withheld file.
        others_are_released: leave out how to release the other series of the case.
    """
    text = REMEDIES.get(code, "")
    return text.replace(_OTHER_SERIES, "").rstrip() if others_are_released else text
