"""Steps of the geometric segmenter, from volume to mask."""

from ctdeface_shared.jobs.options import Profile
from ctdeface_worker.imaging.canonical import GRID_MM, mask_to_stored
from ctdeface_worker.imaging.domain import BoolArray, FaceMask, Volume
from ctdeface_worker.segmentation.bulky import bulky
from ctdeface_worker.segmentation.geometric import mask as masks
from ctdeface_worker.segmentation.geometric.head import HeadAnatomy, find_face, find_head


def face_mask(volume: Volume, profile: Profile, *, ears: bool) -> FaceMask:
    """Return the face mask of the volume.

    Raises:
        FaceNotFound: no face is in view.
        UntrustedGeometry: the anatomy contradicts the orientation in the headers.
    """
    head = find_head(volume)
    face = find_face(head)
    full = masks.extended_to_border(
        profile_mask(head, face, profile, ears=ears), head.box, head.whole.hu.shape, face, GRID_MM
    )
    return FaceMask(
        face=mask_to_stored(full, head.whole, volume.geometry),
        geometry=volume.geometry,
        orientation=head.orientation,
    )


def profile_mask(head: HeadAnatomy, face: masks.Face, profile: Profile, *, ears: bool) -> BoolArray:
    """Return the mask of a profile around the body."""
    mask = masks.soft_tissue(head.canonical, head.tissue, face)
    if profile is Profile.BULKY:
        mask = bulky(mask, head.tissue, face, GRID_MM)
    return mask | masks.ears(head.canonical, head.tissue, face) if ears else mask
