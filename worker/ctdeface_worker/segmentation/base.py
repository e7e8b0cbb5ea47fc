"""The interface of every segmenter."""

from typing import Protocol

from ctdeface_shared.jobs.options import Profile
from ctdeface_worker.imaging.domain import FaceMask, Volume


class Segmenter(Protocol):
    """Finds the face in a volume."""

    @property
    def name(self) -> str:
        """Stable name for reports, for example "geometric"."""

    @property
    def digest(self) -> str:
        """SHA-256 of the model or rules, for reports."""

    @property
    def origin(self) -> str:
        """Origin for reports: "built-in", "shipped", "verified" or "unverified"."""

    def segment(
        self, volume: Volume, *, profile: Profile = Profile.SOFT_TISSUE, ears: bool = False
    ) -> FaceMask:
        """Return the face mask of the volume.

        Raises:
            FaceNotFound: no face is in view.
            UntrustedGeometry: the anatomy contradicts the orientation in the headers.
        """
