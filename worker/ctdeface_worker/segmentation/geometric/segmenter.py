"""From a volume to a face mask by geometry: tissue, skull, orientation, rays, landmarks, mask."""

import hashlib
from functools import cached_property
from pathlib import Path

from ctdeface_shared.options import Profile
from ctdeface_worker.canonical import mask_to_stored
from ctdeface_worker.domain import BoolArray, FaceMask, Volume
from ctdeface_worker.segmentation.bulky import bulky
from ctdeface_worker.segmentation.geometric import mask as masks
from ctdeface_worker.segmentation.geometric.head import GRID_MM, Head, find_face, find_head


class GeometricSegmenter:
    """Finds the face with rays from inside the skull; the same input gives the same mask on every machine."""

    name = "geometric"
    origin = "built-in"

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the source of the rules."""
        sources = [*sorted(Path(__file__).parent.glob("*.py")), Path(__file__).parent.with_name("bulky.py")]
        return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()

    def segment(self, volume: Volume, *, profile: Profile = Profile.SOFT_TISSUE, ears: bool = False) -> FaceMask:
        """Return the face mask of the volume.

        Raises:
            FaceNotFound: no face is in view.
            UntrustedGeometry: the anatomy contradicts the orientation in the headers.
        """
        head = find_head(volume)
        face = find_face(head)
        full = masks.to_border(removed(head, face, profile, ears=ears), head.place, head.whole.hu.shape, face, GRID_MM)
        return FaceMask(face=mask_to_stored(full, head.whole, volume.geometry), geometry=volume.geometry, orientation=head.orientation)


def removed(head: Head, face: masks.Face, profile: Profile, *, ears: bool) -> BoolArray:
    """Return the mask of a profile, on the part of the grid around the body."""
    mask = masks.soft_tissue(head.canonical, head.tissue, face)
    if profile is Profile.BULKY:
        mask = bulky(mask, head.tissue, face, GRID_MM)
    return mask | masks.ears(head.canonical, head.tissue, face) if ears else mask
