"""What is evaluated: DICOM cases and NIfTI volumes of a folder, phantoms with their truth, scans without a face."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from ctdeface_shared.errors import NothingToRelease
from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_worker.dicom import reader, selection
from ctdeface_worker.dicom import volume as volumes
from ctdeface_worker.imaging.domain import BoolArray, Volume
from ctdeface_worker.imaging.nifti import read_nifti
from ctdeface_worker.phantom import without_face
from ctdeface_worker.phantom.head import Phantom, make_head
from ctdeface_worker.phantom.scenes import scene

NIFTI = (".nii", ".nii.gz")
SMALLEST_FACE_ML = 15.0
"""A phantom with less tissue of its face in view need not be released: the gate takes no smaller mask."""
SKIN_HU = -300.0


class Kind(StrEnum):
    """What an input is."""

    CASE = "DICOM case"
    VOLUME = "NIfTI volume"
    PHANTOM = "phantom"
    UNSEEN = "unseen phantom"
    SYNTHETIC = "synthetic head"
    NO_FACE = "no face"


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One thing to evaluate, not yet loaded.

    Attributes:
        name: unique among all.
        kind: what it is.
        path: of a case's folder or a volume's file.
        seed: of a phantom.
    """

    name: str
    kind: Kind
    path: Path | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A loaded input.

    Attributes:
        volume: the scan.
        face: the true face, None where nobody knows it.
        brain: the true cavity, None where nobody knows it.
    """

    volume: Volume
    face: BoolArray | None = None
    brain: BoolArray | None = None

    @property
    def face_ml(self) -> float | None:
        """Tissue of the true face in view, None where nobody knows it."""
        if self.face is None:
            return None
        tissue = np.count_nonzero(self.face & (self.volume.hu > SKIN_HU))
        return float(tissue * np.prod(self.volume.geometry.spacing_mm) / 1000)


def found(data: Path) -> Iterator[Input]:
    """Yield the first-level folders of a folder that hold no NIfTI as DICOM cases, then every NIfTI volume below it, by name.

    A folder that holds files of both or of DICOM directly is one case itself. Volumes of the same
    name bear their folders' as well.
    """
    below = sorted(path for path in data.iterdir() if not path.name.startswith("."))
    niftis = sorted(path for path in data.rglob("*") if path.name.endswith(NIFTI))
    if any(
        path.is_file() and not path.name.endswith((*NIFTI, ".md", ".txt", ".json"))
        for path in below
    ):
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
        own = alike[stem(path)] == 1 and stem(path) not in cases
        yield Input(
            name=stem(path) if own else "--".join((*path.relative_to(data).parts[:-1], path.name)),
            kind=Kind.VOLUME,
            path=path,
        )


def stem(nifti: Path) -> str:
    """Name of a NIfTI file without what says that it is one."""
    return nifti.name.removesuffix(".gz").removesuffix(".nii")


def content_digest(wanted: Input) -> str:
    """Digest of a volume's bytes, or of names, sizes and times of a case's files; empty for what is made here or cannot be read."""
    try:
        if wanted.path is None:
            return ""
        if wanted.path.is_dir():
            return Manifest.scan(wanted.path).digest
        return hashlib.sha256(wanted.path.read_bytes()).hexdigest()
    except OSError:
        return ""


def phantoms(count: int, *, unseen: bool) -> Iterator[Input]:
    """Yield phantoms of the seeds 1 to count."""
    kind, prefix = (Kind.UNSEEN, "unseen") if unseen else (Kind.PHANTOM, "phantom")
    yield from (
        Input(name=f"{prefix}_{seed:04d}", kind=kind, seed=seed) for seed in range(1, count + 1)
    )


def synthetic() -> Input:
    """Return the head of `ctdeface demo`, whose renders may be shown."""
    return Input(name="synthetic_head", kind=Kind.SYNTHETIC, seed=1)


def without_faces(count: int) -> Iterator[Input]:
    """Yield that many scans without a face."""
    yield from (
        Input(name=f"no_face_{name}", kind=Kind.NO_FACE) for name in without_face.names(count)
    )


def load(wanted: Input) -> Subject:
    """Read or make an input; of a DICOM case the longest series that is a CT volume.

    Raises:
        PermanentError: it cannot be read, or holds no CT volume.
    """
    match wanted.kind:
        case Kind.PHANTOM | Kind.UNSEEN:
            return _known(scene(wanted.seed, unseen=wanted.kind is Kind.UNSEEN, clinical=True))
        case Kind.SYNTHETIC:
            return _known(make_head(wanted.seed))
        case Kind.NO_FACE:
            return _known(without_face.make(wanted.name.removeprefix("no_face_")))
        case Kind.VOLUME:
            return Subject(volume=read_nifti(Path(wanted.path or "")))
        case Kind.CASE:
            return Subject(volume=_dicom(Path(wanted.path or "")))


def _known(made: Phantom) -> Subject:
    return Subject(volume=made.volume, face=made.face, brain=made.brain)


def _dicom(folder: Path) -> Volume:
    series = selection.select(reader.read_case(folder)).series
    if not series:
        raise NothingToRelease("the case holds no CT volume")
    return volumes.load(max(series, key=lambda one: len(one.instances))).volume
