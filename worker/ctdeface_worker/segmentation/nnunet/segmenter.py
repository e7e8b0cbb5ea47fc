"""Segment a face with a network, alone or guided."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ctdeface_shared.errors import FaceNotFound
from ctdeface_shared.jobs.options import Profile
from ctdeface_worker.imaging import morphology
from ctdeface_worker.imaging.canonical import (
    GRID_MM,
    Canonical,
    field_to_stored,
    mask_to_stored,
    on_grid,
    to_canonical,
)
from ctdeface_worker.imaging.domain import BoolArray, FaceMask, Geometry, HuArray, Volume
from ctdeface_worker.segmentation import consensus
from ctdeface_worker.segmentation.geometric import mask as masks
from ctdeface_worker.segmentation.geometric.head import (
    HeadAnatomy,
    face_bounds_lps,
    find_face,
    find_head,
)
from ctdeface_worker.segmentation.geometric.rules import profile_mask
from ctdeface_worker.segmentation.models.store import Model

if TYPE_CHECKING:
    from ctdeface_worker.segmentation.nnunet.network import Network

SMALLEST_FACE_ML = 20.0
"""Smallest volume of a face, also of a part of one at the edge of the view."""


class _NetworkSegmenter:
    """A network that is loaded with the first case."""

    def __init__(self, name: str, model: Model, *, mirrored: bool = False) -> None:
        """Check the digest of the files.

        Raises:
            ConfigurationError: the files are gone or were changed.
        """
        model.verified_files()
        self.name = name
        self.digest = model.sha256
        self.origin = model.origin
        self._model = model
        self._mirrored = mirrored

    @cached_property
    def _network(self) -> "Network":
        from ctdeface_worker.segmentation.nnunet.network import load_network

        return load_network(self._model.verified_files(), mirrored=self._mirrored)


class NnunetSegmenter(_NetworkSegmenter):
    """Uses a network alone.

    The mask is the largest piece of the network's mask and everything before it.

    Such a network knows neither the profile bulky nor ears; the geometric rules add them.
    """

    def segment(
        self, volume: Volume, *, profile: Profile = Profile.SOFT_TISSUE, ears: bool = False
    ) -> FaceMask:
        """Return the face mask of the volume.

        Raises:
            FaceNotFound: the network finds no face, or the geometric rules find none to extend.
            UntrustedGeometry: the anatomy contradicts the orientation in the headers.
            ConfigurationError: the model cannot be loaded.
        """
        head = find_head(volume)
        face = self._face(volume, head)
        if profile is not Profile.SOFT_TISSUE or ears:
            found = find_face(head)
            more = masks.extended_to_border(
                profile_mask(head, found, profile, ears=ears),
                head.box,
                head.whole.hu.shape,
                found,
                GRID_MM,
            )
            face |= mask_to_stored(more, head.whole, volume.geometry)
        return FaceMask(face=face, geometry=volume.geometry, orientation=head.orientation)

    def _face(self, volume: Volume, head: HeadAnatomy) -> BoolArray:
        """Return the mask on the stored voxels."""
        from ctdeface_worker.segmentation.nnunet.prediction import (
            canonical_probability,
            stored_mask,
        )

        within = face_bounds_lps(head)
        if self._network.grid_mm is not None:
            field = on_grid(*canonical_probability(self._network, volume, within), head.whole)
            piece = face_piece(field >= 0.5, GRID_MM)
            field = np.where(morphology.grown(piece, 1), field, np.float32(0))
            field[_in_front(piece, head)] = 1
            return field_to_stored(field, head.whole, volume.geometry)
        seen = stored_mask(self._network, volume, within)
        piece = face_piece(_on_grid(seen, volume.geometry, head.whole), GRID_MM)
        seen &= mask_to_stored(morphology.grown(piece, 2), head.whole, volume.geometry)
        return seen | mask_to_stored(_in_front(piece, head), head.whole, volume.geometry)


class GuidedSegmenter(_NetworkSegmenter):
    """Combines a network with the geometric rules (decision 0010, `consensus`)."""

    def segment(
        self, volume: Volume, *, profile: Profile = Profile.SOFT_TISSUE, ears: bool = False
    ) -> FaceMask:
        """Return the face mask of the volume.

        Raises:
            FaceNotFound: the geometric rules find no face in view.
            SegmentersDisagree: the network and the geometric rules find different faces.
            UntrustedGeometry: the anatomy contradicts the orientation in the headers.
            ConfigurationError: the model cannot be loaded.
        """
        found = self.combined(volume)
        mask = found.decision.mask
        if profile is not Profile.SOFT_TISSUE or ears:
            mask = mask | profile_mask(found.head, found.face, profile, ears=ears)
        full = masks.extended_to_border(
            mask, found.head.box, found.head.whole.hu.shape, found.face, GRID_MM
        )
        stored = mask_to_stored(full, found.head.whole, volume.geometry)
        return FaceMask(face=stored, geometry=volume.geometry, orientation=found.head.orientation)

    def combined(self, volume: Volume) -> "GuidedResult":
        """Combine network and geometric rules.

        Raises:
            FaceNotFound: as `segment`.
            SegmentersDisagree: as `segment`.
            UntrustedGeometry: as `segment`.
        """
        head = find_head(volume)
        return combine(head, self._proposal(volume, head))

    def _proposal(self, volume: Volume, head: HeadAnatomy) -> BoolArray:
        """Return the network's mask around the body, possibly empty."""
        from ctdeface_worker.segmentation.nnunet.prediction import (
            canonical_probability,
            stored_mask,
        )

        within = face_bounds_lps(head)
        if self._network.grid_mm is not None:
            seen = (
                on_grid(*canonical_probability(self._network, volume, within), head.canonical)
                >= 0.5
            )
        else:
            seen = _on_grid(
                stored_mask(self._network, volume, within), volume.geometry, head.whole
            )[head.box]
        return morphology.largest_component(np.asarray(seen))


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidedResult:
    """A combined mask with everything that led to it.

    Attributes:
        head: the head.
        face: its face by the geometric rules.
        pair: both masks.
        decision: the decision between them.
    """

    head: HeadAnatomy
    face: masks.Face
    pair: consensus.MaskPair
    decision: consensus.Decision


def combine(head: HeadAnatomy, proposal: BoolArray) -> GuidedResult:
    """Combine a network's mask with that of the geometric rules.

    Args:
        head: the head.
        proposal: the network's mask on the head's grid.

    Raises:
        FaceNotFound: the geometric rules find no face in view.
        SegmentersDisagree: the network and the geometric rules find different faces.
    """
    face = masks.turned_toward(find_face(head), proposal & head.tissue.body, GRID_MM)
    reach = masks.safe_reach(head.tissue, face, GRID_MM)
    pair = consensus.MaskPair(
        network=proposal,
        geometric=profile_mask(head, face, Profile.SOFT_TISSUE, ears=False),
        zone=masks.safe_zone(reach, face, GRID_MM),
        reach=reach,
        body=head.tissue.body,
        bone=head.tissue.bone,
        front=masks.middle_of_face(head.tissue.body.shape, face, GRID_MM),
        core=masks.core_of_face(head.tissue.body.shape, face, GRID_MM),
        depth=math.ceil(face.least_depth_mm / GRID_MM),
        bare=math.ceil(head.bare_depth_mm / GRID_MM),
    )
    return GuidedResult(head=head, face=face, pair=pair, decision=consensus.decide(pair))


def face_piece(seen: BoolArray, spacing_mm: float) -> BoolArray:
    """Return the largest connected piece.

    Raises:
        FaceNotFound: it is too small to be a face.
    """
    piece = morphology.largest_component(seen)
    milliliters = float(np.count_nonzero(piece)) * spacing_mm**3 / 1000
    if milliliters < SMALLEST_FACE_ML:
        raise FaceNotFound(
            f"the network finds no face: its largest piece has {milliliters:.0f} ml; at least "
            f"{SMALLEST_FACE_ML:.0f} ml are required. Look at the series: it may show no face"
        )
    return piece


def _in_front(piece: BoolArray, head: HeadAnatomy) -> BoolArray:
    """Return the space before a mask, without the cavity."""
    front = morphology.before(piece)
    front[head.box] &= ~masks.guard(head.tissue, GRID_MM)
    return front


def _on_grid(mask: BoolArray, geometry: Geometry, grid: Canonical) -> BoolArray:
    """Resample a mask of stored voxels to a canonical grid.

    Only the slices that it touches are resampled.
    """
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    if not slices.size:
        return np.zeros(grid.hu.shape, dtype=bool)
    part = slice(max(int(slices[0]) - 1, 0), int(slices[-1]) + 2)
    soft: HuArray = mask[part].astype(np.float32)
    touched = Geometry(
        shape=(soft.shape[0], soft.shape[1], soft.shape[2]),
        row_step_lps=geometry.row_step_lps,
        column_step_lps=geometry.column_step_lps,
        slice_origins_lps=geometry.slice_origins_lps[part].copy(),
    )
    everywhere = np.broadcast_to(np.True_, soft.shape)
    seen = to_canonical(
        Volume(hu=soft, valid=everywhere, geometry=touched), spacing_mm=grid.spacing_mm
    )
    return on_grid(np.clip(seen.hu, 0, 1), seen, grid) >= 0.5
