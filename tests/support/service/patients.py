"""Small DICOM files of patients who can be told apart, and who share names, sizes and times.

The pixels of each file say whose they are. A released file is the original with its bytes in
reverse order (`stand_in_pipeline`), so an original is recognized wherever it appears.
"""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

ORIGINAL = b"PIXELS-OF-"
"""What every original holds, and no released file."""
_PIXELS = re.compile(rb"PIXELS-OF-([a-z]+)-([0-9]{5})")
Files = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient; all of them have the same PatientID, as after a careless pseudonymization.

    Attributes:
        name: also in the pixels, in lower case.
        birth_date: as DICOM writes it.
        sex: as DICOM writes it.
        study: last number of the StudyInstanceUID.
    """

    name: str
    birth_date: str
    sex: str
    study: int

    @property
    def mark(self) -> bytes:
        """What all originals of this patient hold, and no other file."""
        return ORIGINAL + self.name.encode() + b"-"

    def image(self, number: int) -> bytes:
        """Return a DICOM file of one slice."""
        template, pixels = _template(self), b"%s%05d" % (self.mark, number)
        uid = b"2.25.%d.1.1%05d" % (self.study, number)
        return template.replace(_uid(self), uid).replace(b"#" * 64, pixels.ljust(64, b"."))

    def images(self, count: int, first: int = 1, prefix: str = "IM") -> Files:
        """Return the files of some slices."""
        return {
            f"{prefix}{number:05d}.dcm": self.image(number)
            for number in range(first, first + count)
        }


ADAMS = Patient("adams", "19500101", "F", 5001)
BAKER = Patient("baker", "19800820", "M", 5002)
"""Two patients whose files have the same names and sizes."""


def slices_in(content: bytes) -> frozenset[tuple[str, int]]:
    """Return patient and number of each slice that a released or an original file holds."""
    found = _PIXELS.findall(content) + _PIXELS.findall(content[::-1])
    return frozenset((name.decode(), int(number)) for name, number in found)


def _uid(patient: Patient) -> bytes:
    return b"2.25.%d.1.100000" % patient.study


@cache
def _template(patient: Patient) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID(_uid(patient).decode())
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = Dataset()
    image.file_meta = meta
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    image.PatientID, image.PatientName = "ANONYMOUS", f"Anon^{patient.name.title()}"
    image.PatientBirthDate, image.PatientSex = patient.birth_date, patient.sex
    image.StudyInstanceUID = f"2.25.{patient.study}"
    image.SeriesInstanceUID = f"2.25.{patient.study}.1"
    image.Modality = "CT"
    image.Rows, image.Columns, image.BitsAllocated, image.BitsStored = 4, 8, 16, 16
    image.HighBit, image.PixelRepresentation, image.SamplesPerPixel = 15, 0, 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.PixelData = b"#" * 64
    written = io.BytesIO()
    image.save_as(written, enforce_file_format=True)
    return written.getvalue()
