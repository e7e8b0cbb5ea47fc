"""Segment a face by geometry.

A worker process needs only the name and the digest; its child process segments. The rules are
therefore loaded with the first volume.
"""

import hashlib
from functools import cached_property
from pathlib import Path

from ctdeface_shared.jobs.options import Profile
from ctdeface_worker.imaging import hounsfield
from ctdeface_worker.imaging.domain import FaceMask, Volume


class GeometricSegmenter:
    """Finds the face with rays from inside the skull.

    The same input gives the same mask on every machine.
    """

    name = "geometric"
    origin = "built-in"

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the source of the rules and their thresholds."""
        sources = [
            *sorted(Path(__file__).parent.glob("*.py")),
            Path(__file__).parent.with_name("bulky.py"),
            Path(hounsfield.__file__),
        ]
        return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()

    def segment(
        self, volume: Volume, *, profile: Profile = Profile.SOFT_TISSUE, ears: bool = False
    ) -> FaceMask:
        """Return the face mask of the volume.

        Raises:
            FaceNotFound: no face is in view.
            UntrustedGeometry: the anatomy contradicts the orientation in the headers.
        """
        from ctdeface_worker.segmentation.geometric.rules import face_mask

        return face_mask(volume, profile, ears=ears)
