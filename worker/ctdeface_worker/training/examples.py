"""What the network learns from: phantoms with their truth, and real volumes whose geometric mask the gate accepts."""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctdeface_shared.errors import ConfigurationError, PermanentError, UnreadableInstance
from ctdeface_shared.jobs.options import FillRule, Profile
from ctdeface_worker.imaging.domain import BoolArray, Volume
from ctdeface_worker.imaging.nifti import read_nifti
from ctdeface_worker.phantom.scenes import scene
from ctdeface_worker.pipeline.fill import fill_value_hu
from ctdeface_worker.segmentation.geometric.segmenter import GeometricSegmenter
from ctdeface_worker.training.augment import varied
from ctdeface_worker.training.held_out import is_held_out
from ctdeface_worker.training.labels import Labeled, cleaned, on_grid
from ctdeface_worker.verification.gate import verify_volume

SUFFIX = ".nii.gz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One volume to learn from.

    Attributes:
        name: unique in the data set.
        origin: where it comes from, for the record: a seed, or the digest of a file.
        labeled: volume and face on the training grid.
    """

    name: str
    origin: str
    labeled: Labeled


def phantoms(
    seeds: Iterable[int], known: Collection[str] = (), *, clinical: bool = True
) -> Iterator[Example]:
    """Yield a synthetic head, with the pixels of clinical scans or coarse ones, for every seed but those whose examples are known."""
    for seed in seeds:
        if f"phantom_{seed:05d}" in known:
            continue
        made = scene(seed, clinical=clinical)
        yield Example(
            name=f"phantom_{seed:05d}",
            origin=f"seed {seed}",
            labeled=on_grid(made.volume, made.face),
        )


def volumes(
    folder: Path, variants: int, seed: int, known: Collection[str] = ()
) -> Iterator[Example]:
    """Yield every NIfTI volume of a folder that is not held out and whose geometric mask passes the gate, and variants of it.

    Args:
        folder: of `*.nii.gz`, read in the order of their names.
        variants: how many of each volume besides itself.
        seed: of the variants.
        known: names of examples that need not be made again.

    Raises:
        ConfigurationError: a file is no volume.
    """
    for file in sorted(folder.glob(f"*{SUFFIX}")):
        name = file.name.removesuffix(SUFFIX)
        if is_held_out(name) or f"volume_{name}_0" in known:
            continue
        try:
            volume = read_nifti(file)
        except UnreadableInstance as error:
            raise ConfigurationError(
                f"{error}: take it out of {folder}, and give the same command again"
            ) from error
        face = teacher_mask(volume)
        if face is not None:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            labeled = on_grid(volume, face)
            tidy = Labeled(volume=labeled.volume, face=cleaned(labeled.face))
            for number in range(variants, 0, -1):
                rng = np.random.default_rng([seed, number, int(digest[:8], 16)])
                yield Example(
                    name=f"volume_{name}_{number}",
                    origin=f"sha256 {digest}, variant {number}",
                    labeled=varied(tidy, rng),
                )
            yield Example(name=f"volume_{name}_0", origin=f"sha256 {digest}", labeled=tidy)


def teacher_mask(volume: Volume) -> BoolArray | None:
    """Return the geometric segmenter's mask, None where it finds no face or the gate refuses it."""
    profile = Profile.SOFT_TISSUE
    try:
        face = GeometricSegmenter().segment(volume, profile=profile).face
    except PermanentError:
        return None
    hu = np.where(face & volume.valid, np.float32(fill_value_hu(volume, FillRule())), volume.hu)
    after = Volume(hu=hu, valid=volume.valid, geometry=volume.geometry)
    checks = verify_volume(volume, after, face, profile=profile)
    return face if all(check.passed for check in checks) else None
