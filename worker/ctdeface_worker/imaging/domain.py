"""Values that flow through the pipeline.

Arrays are (slice, row, column) and read-only. Positions are LPS in mm.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
HuArray: TypeAlias = NDArray[np.float32]
BoolArray: TypeAlias = NDArray[np.bool_]


class Fate(StrEnum):
    """Fate of a series or file."""

    RELEASED = "released"
    WITHHELD = "withheld"
    FAILED = "failed"


def read_only(array: NDArray[np.generic]) -> None:
    """Make an array immutable."""
    array.setflags(write=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Voxel positions of one stack of parallel slices.

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
        """Freeze the arrays and require one origin per slice."""
        if self.slice_origins_lps.shape != (self.shape[0], 3):
            raise ValueError(
                f"{self.slice_origins_lps.shape[0]} origins; one for each of the {self.shape[0]} "
                "slices is required"
            )
        for array in (self.row_step_lps, self.column_step_lps, self.slice_origins_lps):
            read_only(array)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distances between slices, rows and columns.

        The slice distance is the median along the normal, 1.0 for a single slice.
        """
        gaps = np.diff(self.slice_positions_mm)
        between = float(np.median(gaps)) if gaps.size else 1.0
        return (
            between,
            float(np.linalg.norm(self.row_step_lps)),
            float(np.linalg.norm(self.column_step_lps)),
        )

    @property
    def normal_lps(self) -> FloatArray:
        """Unit vector along column step x row step."""
        normal = np.cross(self.column_step_lps, self.row_step_lps)
        return np.asarray(normal / np.linalg.norm(normal), dtype=np.float64)

    @property
    def slice_positions_mm(self) -> FloatArray:
        """Position of each slice along the normal, ascending."""
        return np.asarray(self.slice_origins_lps @ self.normal_lps, dtype=np.float64)

    @property
    def affine_lps(self) -> FloatArray:
        """Best-fitting affine from stored voxels to LPS mm.

        The (4, 4) matrix maps (slice, row, column, 1).

        It is exact for evenly spaced stacks, tilt included.
        """
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
        """Build an evenly spaced stack from an affine.

        The (4, 4) matrix maps (slice, row, column, 1) to LPS mm.

        Raises:
            ValueError: the slice step is opposite to the normal; reverse the slices first.
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
            raise ValueError(
                "the slices descend along the normal, column step x row step; they must ascend"
            )
        return geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """One series' voxels in Hounsfield units with their geometry.

    Attributes:
        hu: float32, (slice, row, column).
        valid: False where the scanner stored padding instead of a measurement (PixelPaddingValue,
            outside the field of view).
        geometry: position of the voxels.
    """

    hu: HuArray
    valid: BoolArray
    geometry: Geometry

    def __post_init__(self) -> None:
        """Freeze the arrays and check their shapes."""
        if self.hu.shape != self.geometry.shape or self.valid.shape != self.geometry.shape:
            raise ValueError(
                f"arrays of the shapes {self.hu.shape} and {self.valid.shape}; the shape of the "
                f"geometry, {self.geometry.shape}, is required"
            )
        read_only(self.hu)
        read_only(self.valid)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceMask:
    """Voxels to remove from a volume: True = remove.

    Attributes:
        face: bool, same shape as the volume, (slice, row, column).
        geometry: the volume's geometry.
        orientation: "verified" when airway or profile agree with the headers, "not verifiable"
            without such anatomy in view.
    """

    face: BoolArray
    geometry: Geometry
    orientation: str = "verified"

    def __post_init__(self) -> None:
        """Freeze the mask and check its shape."""
        if self.face.shape != self.geometry.shape:
            raise ValueError(
                f"a mask of the shape {self.face.shape}; the shape of the geometry, "
                f"{self.geometry.shape}, is required"
            )
        read_only(self.face)


class DifferenceKind(StrEnum):
    """Kind of a change to an element."""

    CHANGED = "changed"
    REMOVED = "removed"
    ADDED = "added"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedDifference:
    """One intended difference of a defaced instance.

    Attributes:
        path: tags from the outside in, items counted from 0: "(7FE0,0010)",
            "(0088,0200)[0].(7FE0,0010)".
        kind: changed, removed or added.
        reason: why, for a person.
    """

    path: str
    kind: DifferenceKind
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelFormat:
    """Map from stored integers to HU.

    See DICOM PS3.3 C.7.6.3 and C.8.2.1.

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
    """Position of one image in LPS mm.

    See DICOM PS3.3 C.7.6.2.

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
        content: the whole file.
        study_instance_uid: (0020,000D).
        series_instance_uid: (0020,000E).
        sop_instance_uid: (0008,0018).
        transfer_syntax_uid: (0002,0010).
        instance_number: (0020,0013), None when absent; never used for ordering.
        acquisition_number: (0020,0012), None when absent.
        placement: position of the image.
        pixels: map from stored integers to HU.
        blanked: tags of private elements that are zeroed in the output, such as "(0029,1010)".
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
    blanked: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Instances of one volume, ordered by position.

    Attributes:
        series_instance_uid: (0020,000E).
        part: 0, or the number of the stack if the DICOM series holds several.
        instances: ordered by position along the slice normal; instances at one position hold equal
            pixels.
    """

    series_instance_uid: str
    part: int = 0
    instances: tuple[Instance, ...]

    @property
    def name(self) -> str:
        """SeriesInstanceUID, with the part's number if there are several."""
        return f"{self.series_instance_uid}-{self.part}" if self.part else self.series_instance_uid
