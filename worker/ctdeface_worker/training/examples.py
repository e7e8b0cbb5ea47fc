"""Training examples: labeled phantoms and real volumes.

The label of a real volume is its geometric mask, if the gate accepts it.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctdeface_shared.errors import ConfigurationError, PermanentError, UnreadableInstance
from ctdeface_shared.jobs.options import FillRule, Profile
from ctdeface_shared.storage.checksum import sha256_of
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
    """One training example.

    Attributes:
        name: unique in the data set.
        origin: a seed, or the digest of a file, for the record.
        labeled: volume and face on the training grid.
    """

    name: str
    origin: str
    labeled: Labeled


def phantoms(
    seeds: Iterable[int], known: Collection[str] = (), *, clinical: bool = True
) -> Iterator[Example]:
    """Yield a synthetic head for each new seed.

    Args:
        seeds: of the heads.
        known: names of examples that exist already.
        clinical: use pixels of clinical size, 0.7 to 1.6 mm, instead of coarse ones.
    """
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
    """Yield labeled NIfTI volumes and variants of each.

    Held-out volumes are skipped, as are those without a geometric mask that passes the gate.

    Args:
        folder: contains `*.nii.gz`, read in the order of their names.
        variants: number of variants of each volume.
        seed: of the variants.
        known: names of examples that exist already.

    Raises:
        ConfigurationError: a file is not a NIfTI volume.
    """
    for file in sorted(folder.glob(f"*{SUFFIX}")):
        name = file.name.removesuffix(SUFFIX)
        if is_held_out(name) or f"volume_{name}_0" in known:
            continue
        try:
            volume = read_nifti(file)
        except UnreadableInstance as error:
            raise ConfigurationError(
                f"{error}: remove it from {folder}, and run the same command again"
            ) from error
        face = teacher_mask(volume)
        if face is not None:
            digest = sha256_of(file)
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
    """Return the geometric mask if the gate accepts it.

    It is None if no face is found or the gate refuses the mask.
    """
    profile = Profile.SOFT_TISSUE
    try:
        face = GeometricSegmenter().segment(volume, profile=profile).face
    except PermanentError:
        return None
    hu = np.where(face & volume.valid, np.float32(fill_value_hu(volume, FillRule())), volume.hu)
    after = Volume(hu=hu, valid=volume.valid, geometry=volume.geometry)
    checks = verify_volume(volume, after, face, profile=profile)
    return face if all(check.passed for check in checks) else None
