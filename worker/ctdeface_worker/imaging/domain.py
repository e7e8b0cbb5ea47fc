"""The values that flow through the pipeline. Arrays are (slice, row, column) and read-only; positions are LPS in mm."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
HuArray: TypeAlias = NDArray[np.float32]
BoolArray: TypeAlias = NDArray[np.bool_]


class Fate(StrEnum):
    """What becomes of a series or of one file of the case."""

    RELEASED = "released"
    WITHHELD = "withheld"
    FAILED = "failed"


def read_only(array: NDArray[np.generic]) -> None:
    """Make an array immutable: values that flow are never changed in place."""
    array.setflags(write=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Where the voxels of one stack of parallel slices lie.

    The slices share orientation and pixel spacing; their origins may be unevenly spaced (mixed
    slice thickness) and may drift sideways (gantry tilt), so every slice keeps its own origin.

    Attributes:
        shape: (slices, rows, columns).
        row_step_lps: mm vector from one row to the next (image orientation column cosine x row
            spacing), shape (3,).
        column_step_lps: mm vector from one column to the next, shape (3,).
        slice_origins_lps: center of the first voxel of each slice in mm, shape (slices, 3), ordered
            so that position along `normal_lps` rises (ImagePositionPatient, DICOM PS3.3
            C.7.6.2.1.1).
        frame_of_reference_uid: (0020,0052), None when absent.
    """

    shape: tuple[int, int, int]
    row_step_lps: FloatArray
    column_step_lps: FloatArray
    slice_origins_lps: FloatArray
    frame_of_reference_uid: str | None = None

    def __post_init__(self) -> None:
        """Freeze the arrays and check that there is one origin per slice."""
        if self.slice_origins_lps.shape != (self.shape[0], 3):
            raise ValueError(
                f"{self.shape[0]} slices but {self.slice_origins_lps.shape[0]} origins"
            )
        for array in (self.row_step_lps, self.column_step_lps, self.slice_origins_lps):
            read_only(array)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distances (slice, row, column); the slice distance is the median along the normal, 1.0 for one slice."""
        gaps = np.diff(self.slice_positions_mm)
        between = float(np.median(gaps)) if gaps.size else 1.0
        return (
            between,
            float(np.linalg.norm(self.row_step_lps)),
            float(np.linalg.norm(self.column_step_lps)),
        )

    @property
    def normal_lps(self) -> FloatArray:
        """Unit vector across the slices: the cross product of column step and row step."""
        normal = np.cross(self.column_step_lps, self.row_step_lps)
        return np.asarray(normal / np.linalg.norm(normal), dtype=np.float64)

    @property
    def slice_positions_mm(self) -> FloatArray:
        """Position of each slice along the normal, rising."""
        return np.asarray(self.slice_origins_lps @ self.normal_lps, dtype=np.float64)

    @property
    def affine_lps(self) -> FloatArray:
        """Best-fitting (4, 4) map from (slice, row, column, 1) to LPS mm; exact for evenly spaced stacks, tilt included."""
        n = self.shape[0]
        step = np.zeros(3) if n == 1 else np.polyfit(np.arange(n), self.slice_origins_lps, 1)[0]
        if n == 1:
            step = self.normal_lps
        affine = np.eye(4)
        affine[:3, 0] = step
        affine[:3, 1] = self.row_step_lps
        affine[:3, 2] = self.column_step_lps
        affine[:3, 3] = self.slice_origins_lps.mean(axis=0) - step * (n - 1) / 2
        return affine

    @classmethod
    def from_affine(
        cls,
        shape: tuple[int, int, int],
        affine_lps: FloatArray,
        frame_of_reference_uid: str | None = None,
    ) -> Self:
        """Build an evenly spaced stack from a (4, 4) map of (slice, row, column, 1) to LPS mm.

        Raises:
            ValueError: the slice step runs against the normal (reverse the slices first).
        """
        origins = affine_lps[:3, 3] + np.arange(shape[0])[:, None] * affine_lps[:3, 0]
        geometry = cls(
            shape=shape,
            row_step_lps=affine_lps[:3, 1].copy(),
            column_step_lps=affine_lps[:3, 2].copy(),
            slice_origins_lps=origins,
            frame_of_reference_uid=frame_of_reference_uid,
        )
        if shape[0] > 1 and geometry.slice_positions_mm[1] <= geometry.slice_positions_mm[0]:
            raise ValueError("slices must be ordered along column step x row step")
        return geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """One series' voxels in Hounsfield units with their geometry.

    Attributes:
        hu: float32, (slice, row, column).
        valid: False where the scanner stored padding instead of a measurement (PixelPaddingValue,
            outside the field of view).
        geometry: where the voxels lie.
    """

    hu: HuArray
    valid: BoolArray
    geometry: Geometry

    def __post_init__(self) -> None:
        """Freeze the arrays and check their shapes."""
        if self.hu.shape != self.geometry.shape or self.valid.shape != self.geometry.shape:
            raise ValueError(
                f"array shapes {self.hu.shape} and {self.valid.shape} do not fit geometry {self.geometry.shape}"
            )
        read_only(self.hu)
        read_only(self.valid)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceMask:
    """What to remove from a volume: True = remove.

    Attributes:
        face: bool, same shape as the volume, (slice, row, column).
        geometry: the volume's geometry.
        orientation: "verified" when airway or profile agree with the headers, "not verifiable" when
            nothing in view can tell.
    """

    face: BoolArray
    geometry: Geometry
    orientation: str = "verified"

    def __post_init__(self) -> None:
        """Freeze the mask and check its shape."""
        if self.face.shape != self.geometry.shape:
            raise ValueError(
                f"mask shape {self.face.shape} does not fit geometry {self.geometry.shape}"
            )
        read_only(self.face)


class DifferenceKind(StrEnum):
    """What happened to an element."""

    CHANGED = "changed"
    REMOVED = "removed"
    ADDED = "added"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedDifference:
    """One element that differs between an instance and its defaced copy, on purpose.

    Attributes:
        path: tags from the outside in, items counted from 0: "(7FE0,0010)",
            "(0088,0200)[0].(7FE0,0010)".
        kind: changed (same place, other value), removed or added.
        reason: why, for a person.
    """

    path: str
    kind: DifferenceKind
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelFormat:
    """How the stored integers of one instance become Hounsfield units (DICOM PS3.3 C.7.6.3 and C.8.2.1).

    Attributes:
        rows: (0028,0010).
        columns: (0028,0011).
        bits_stored: (0028,0101); BitsAllocated is always 16 here and HighBit is bits_stored - 1.
        signed: PixelRepresentation (0028,0103) is 1.
        slope: RescaleSlope (0028,1053), never 0.
        intercept: RescaleIntercept (0028,1052) in HU.
        padding: lowest and highest stored value that means "no measurement" (0028,0120),
            (0028,0121), or None.
    """

    rows: int
    columns: int
    bits_stored: int
    signed: bool
    slope: float
    intercept: float
    padding: tuple[int, int] | None = None

    @property
    def stored_range(self) -> tuple[int, int]:
        """Lowest and highest integer that fits into bits_stored."""
        if self.signed:
            return (-(1 << (self.bits_stored - 1)), (1 << (self.bits_stored - 1)) - 1)
        return (0, (1 << self.bits_stored) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the image of one instance lies (DICOM PS3.3 C.7.6.2), LPS mm.

    Attributes:
        position: ImagePositionPatient (0020,0032), center of the first pixel.
        orientation: ImageOrientationPatient (0020,0037): direction along a row, then down a column.
        pixel_spacing_mm: PixelSpacing (0028,0030): between rows, between columns.
        slice_thickness_mm: (0018,0050), None when absent.
        frame_of_reference_uid: (0020,0052), None when absent.
    """

    position: tuple[float, float, float]
    orientation: tuple[float, float, float, float, float, float]
    pixel_spacing_mm: tuple[float, float]
    slice_thickness_mm: float | None = None
    frame_of_reference_uid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One CT image: one file of the case.

    Attributes:
        file: posix path relative to the case's folder.
        sha256: of the whole file.
        content: the whole file, as read once.
        study_instance_uid: (0020,000D).
        series_instance_uid: (0020,000E).
        sop_instance_uid: (0008,0018).
        transfer_syntax_uid: (0002,0010).
        instance_number: (0020,0013), None when absent; never used for ordering.
        acquisition_number: (0020,0012), None when absent.
        placement: where it lies.
        pixels: how its stored integers are to be read.
    """

    file: str
    sha256: str
    content: bytes = field(repr=False)
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    instance_number: int | None = None
    acquisition_number: int | None = None
    placement: Placement
    pixels: PixelFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The instances of one volume: a whole DICOM series, or one stack of parallel slices of it.

    Attributes:
        series_instance_uid: (0020,000E).
        part: 0, or the number of the stack where one DICOM series holds several.
        instances: ordered by position along the slice normal; instances at one position hold equal
            pixels.
    """

    series_instance_uid: str
    part: int = 0
    instances: tuple[Instance, ...]

    @property
    def name(self) -> str:
        """SeriesInstanceUID, with the part's number where there are several."""
        return f"{self.series_instance_uid}-{self.part}" if self.part else self.series_instance_uid
