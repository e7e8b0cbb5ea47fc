"""Inputs of an evaluation.

They are DICOM cases, NIfTI volumes, phantoms and scans without a face.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from ctdeface_shared.errors import NothingToRelease
from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.storage.checksum import sha256_of
from ctdeface_worker.dicom import reader, selection
from ctdeface_worker.dicom import volume as volumes
from ctdeface_worker.imaging.domain import BoolArray, Volume
from ctdeface_worker.imaging.hounsfield import SKIN_HU
from ctdeface_worker.imaging.nifti import read_nifti
from ctdeface_worker.phantom import without_face
from ctdeface_worker.phantom.head import Phantom, make_head
from ctdeface_worker.phantom.scenes import scene

NIFTI = (".nii", ".nii.gz")
SMALLEST_FACE_ML = 15.0
"""A phantom with less facial tissue need not be released: the gate accepts no smaller mask."""


class Kind(StrEnum):
    """The kinds of inputs."""

    CASE = "DICOM case"
    VOLUME = "NIfTI volume"
    PHANTOM = "phantom"
    UNSEEN = "unseen phantom"
    SYNTHETIC = "synthetic head"
    NO_FACE = "no face"


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One input, not yet loaded.

    Attributes:
        name: unique in the evaluation.
        kind: kind of the input.
        path: folder of a case or file of a volume.
        seed: of a phantom.
    """

    name: str
    kind: Kind
    path: Path | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedInput:
    """A loaded input.

    Attributes:
        volume: the scan.
        face: the true face, None if unknown.
        brain: the true intracranial cavity, None if unknown.
    """

    volume: Volume
    face: BoolArray | None = None
    brain: BoolArray | None = None

    @property
    def face_ml(self) -> float | None:
        """Tissue of the true face in ml, or None."""
        if self.face is None:
            return None
        tissue = np.count_nonzero(self.face & (self.volume.hu > SKIN_HU))
        return float(tissue * np.prod(self.volume.geometry.spacing_mm) / 1000)


def found(data: Path) -> Iterator[Input]:
    """Yield the DICOM cases, then the NIfTI volumes.

    A case is a first-level folder without NIfTI files. A folder that contains DICOM files directly
    is one case itself. Volumes of the same name are named with their folders.
    """
    below = sorted(path for path in data.iterdir() if not path.name.startswith("."))
    niftis = sorted(path for path in data.rglob("*") if path.name.endswith(NIFTI))
    other = (*NIFTI, ".md", ".txt", ".json")
    if any(path.is_file() and not path.name.endswith(other) for path in below):
        yield Input(name=data.resolve().name, kind=Kind.CASE, path=data)
        return
    cases = {
        path.name: path
        for path in below
        if path.is_dir() and not any(path in nifti.parents for nifti in niftis)
    }
    for name, path in cases.items():
        yield Input(name=name, kind=Kind.CASE, path=path)
    alike = Counter(stem(path) for path in niftis)
    for path in niftis:
        is_unique = alike[stem(path)] == 1 and stem(path) not in cases
        long_name = "--".join((*path.relative_to(data).parts[:-1], path.name))
        name = stem(path) if is_unique else long_name
        yield Input(name=name, kind=Kind.VOLUME, path=path)


def stem(nifti: Path) -> str:
    """Return the name without NIfTI suffixes."""
    return nifti.name.removesuffix(".gz").removesuffix(".nii")


def content_digest(wanted: Input) -> str:
    """Return a digest of an input.

    It is empty for synthetic and unreadable inputs.

    It covers the bytes of a volume, or the names, sizes and times of a case's files.
    """
    try:
        if wanted.path is None:
            return ""
        if wanted.path.is_dir():
            return Manifest.scan(wanted.path).digest
        return sha256_of(wanted.path)
    except OSError:
        return ""


def phantoms(count: int, *, unseen: bool) -> Iterator[Input]:
    """Yield the phantoms of seeds 1 to `count`."""
    kind, prefix = (Kind.UNSEEN, "unseen") if unseen else (Kind.PHANTOM, "phantom")
    yield from (
        Input(name=f"{prefix}_{seed:04d}", kind=kind, seed=seed) for seed in range(1, count + 1)
    )


def synthetic() -> Input:
    """Return the head of `ctdeface demo`, which is publishable."""
    return Input(name="synthetic_head", kind=Kind.SYNTHETIC, seed=1)


def without_faces(count: int) -> Iterator[Input]:
    """Yield `count` synthetic scans without a face."""
    yield from (
        Input(name=f"no_face_{name}", kind=Kind.NO_FACE) for name in without_face.names(count)
    )


def load(wanted: Input) -> LoadedInput:
    """Read or make an input.

    The volume of a DICOM case is its longest CT series.

    Raises:
        PermanentError: it cannot be read, or contains no CT volume.
    """
    match wanted.kind:
        case Kind.PHANTOM | Kind.UNSEEN:
            return _known(scene(wanted.seed, unseen=wanted.kind is Kind.UNSEEN, clinical=True))
        case Kind.SYNTHETIC:
            return _known(make_head(wanted.seed))
        case Kind.NO_FACE:
            return _known(without_face.make(wanted.name.removeprefix("no_face_")))
        case Kind.VOLUME:
            return LoadedInput(volume=read_nifti(Path(wanted.path or "")))
        case Kind.CASE:
            return LoadedInput(volume=_dicom(Path(wanted.path or "")))


def _known(made: Phantom) -> LoadedInput:
    return LoadedInput(volume=made.volume, face=made.face, brain=made.brain)


def _dicom(folder: Path) -> Volume:
    series = selection.select(reader.read_case(folder)).series
    if not series:
        raise NothingToRelease("the case contains no CT volume")
    return volumes.load(max(series, key=lambda one: len(one.instances))).volume
