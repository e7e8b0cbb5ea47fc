"""The nnU-Net data set: images, labels, list of cases."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.checksum import sha256_of
from ctdeface_worker.imaging.domain import Volume
from ctdeface_worker.imaging.nifti import write_nifti
from ctdeface_worker.training import plan
from ctdeface_worker.training.examples import SUFFIX, Example

NAME = "Dataset601_Face"
LIST = "cases.jsonl"
FEWEST_SOURCES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """The three nnU-Net folders of one data set."""

    root: Path

    @property
    def raw(self) -> Path:
        """Images and labels."""
        return self.root / "raw" / NAME

    @property
    def preprocessed(self) -> Path:
        """Plans and normalized arrays."""
        return self.root / "preprocessed" / NAME

    @property
    def results(self) -> Path:
        """Checkpoints and logs."""
        return self.root / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the list of cases."""

    name: str
    origin: str
    image_sha256: str
    label_sha256: str
    face_voxels: int

    @property
    def source(self) -> str:
        """Volume or seed, which variants of a volume share."""
        return self.origin.partition(",")[0]


def entries(folders: Folders) -> tuple[Entry, ...]:
    """Read the list of complete cases.

    A truncated last line is ignored.
    """
    file = folders.raw / LIST
    lines = file.read_bytes().splitlines(keepends=True) if file.exists() else ()
    return tuple(Entry(**json.loads(line)) for line in lines if line.endswith(b"\n"))


def write_raw(examples: Iterable[Example], folders: Folders) -> Iterator[Entry]:
    """Write images, labels and the list of cases.

    Each case is yielded after it is stored.
    """
    complete = entries(folders)
    if (folders.raw / LIST).exists():  # drop a truncated last line
        atomic.write_file(folders.raw / LIST, b"".join(_line(entry) for entry in complete))
    known = {entry.name for entry in complete}
    for example in examples:
        if example.name in known:
            continue
        entry = _write_case(example, folders.raw)
        with (folders.raw / LIST).open("ab") as stream:
            stream.write(_line(entry))
        yield entry


def describe(folders: Folders) -> None:
    """Write dataset.json after all cases.

    Raises:
        ConfigurationError: there are fewer than two sources of cases.
    """
    cases = entries(folders)
    if len({entry.source for entry in cases}) < FEWEST_SOURCES:
        raise ConfigurationError(
            f"too few cases in {folders.raw}: training needs at least two phantoms or volumes, one"
            " of them for validation; set --phantoms or --volumes"
        )
    described = json.dumps(plan.dataset_json(len(cases)), indent=1)
    (folders.raw / "dataset.json").write_text(described, encoding="utf-8")


def _line(entry: Entry) -> bytes:
    return json.dumps(asdict(entry)).encode() + b"\n"


def _write_case(example: Example, raw: Path) -> Entry:
    image = raw / "imagesTr" / f"{example.name}_0000{SUFFIX}"
    label = raw / "labelsTr" / f"{example.name}{SUFFIX}"
    volume, face = example.labeled.volume, example.labeled.face
    write_nifti(Volume(hu=np.rint(volume.hu), valid=volume.valid, geometry=volume.geometry), image)
    write_nifti(
        Volume(hu=face.astype(np.float32), valid=volume.valid, geometry=volume.geometry), label
    )
    return Entry(
        name=example.name,
        origin=example.origin,
        image_sha256=sha256_of(image),
        label_sha256=sha256_of(label),
        face_voxels=int(np.count_nonzero(face)),
    )
