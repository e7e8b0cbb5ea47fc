"""From a volume to a face mask by a network, alone or with the geometric rules over it."""

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
    Head,
    find_face,
    find_head,
    where_a_face_can_be,
)
from ctdeface_worker.segmentation.geometric.rules import removed
from ctdeface_worker.segmentation.models.store import Model

if TYPE_CHECKING:
    from ctdeface_worker.segmentation.nnunet.network import Network

SMALLEST_FACE_ML = 20.0
"""Less is no face, not even the part of one between brow and the edge of the view."""


class _Networked:
    """What both ways of using a network have in common: it is loaded with the first case and stays."""

    def __init__(self, name: str, model: Model, *, mirrored: bool = False) -> None:
        """Hold the files against their digest; the network itself is loaded with the first case.

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


class NnunetSegmenter(_Networked):
    """Takes a network's word for it, but for scraps; what lies in front of the face goes as well.

    The profile bulky and ears are not what such a network knows: what they add comes from the
        geometric rules.
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
            more = masks.to_border(
                removed(head, found, profile, ears=ears),
                head.place,
                head.whole.hu.shape,
                found,
                GRID_MM,
            )
            face |= mask_to_stored(more, head.whole, volume.geometry)
        return FaceMask(face=face, geometry=volume.geometry, orientation=head.orientation)

    def _face(self, volume: Volume, head: Head) -> BoolArray:
        """Return what goes, on the stored voxels."""
        from ctdeface_worker.segmentation.nnunet.prediction import (
            canonical_probability,
            stored_mask,
        )

        within = where_a_face_can_be(head)
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


class GuidedSegmenter(_Networked):
    """The network proposes, geometry disposes (`consensus`)."""

    def segment(
        self, volume: Volume, *, profile: Profile = Profile.SOFT_TISSUE, ears: bool = False
    ) -> FaceMask:
        """Return the face mask of the volume.

        Raises:
            FaceNotFound: the geometric rules find no face in view.
            SegmentersDisagree: the network does not mean the same face.
            UntrustedGeometry: the anatomy contradicts the orientation in the headers.
            ConfigurationError: the model cannot be loaded.
        """
        found = self.look(volume)
        mask = found.decision.mask
        if profile is not Profile.SOFT_TISSUE or ears:
            mask = mask | removed(found.head, found.face, profile, ears=ears)
        full = masks.to_border(
            mask, found.head.place, found.head.whole.hu.shape, found.face, GRID_MM
        )
        stored = mask_to_stored(full, found.head.whole, volume.geometry)
        return FaceMask(face=stored, geometry=volume.geometry, orientation=found.head.orientation)

    def look(self, volume: Volume) -> "Found":
        """Ask network and geometry, and decide.

        Raises:
            FaceNotFound: as `segment`.
            SegmentersDisagree: as `segment`.
            UntrustedGeometry: as `segment`.
        """
        head = find_head(volume)
        return weighed(head, self._proposal(volume, head))

    def _proposal(self, volume: Volume, head: Head) -> BoolArray:
        """Return the network's mask around the body; empty where it finds no face."""
        from ctdeface_worker.segmentation.nnunet.prediction import (
            canonical_probability,
            stored_mask,
        )

        within = where_a_face_can_be(head)
        if self._network.grid_mm is not None:
            seen = (
                on_grid(*canonical_probability(self._network, volume, within), head.canonical)
                >= 0.5
            )
        else:
            seen = _on_grid(
                stored_mask(self._network, volume, within), volume.geometry, head.whole
            )[head.place]
        return morphology.largest_component(np.asarray(seen))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Everything that led to a mask, for whoever measures.

    Attributes:
        head: the head.
        face: where its face begins and ends, by geometry.
        opinions: both masks.
        decision: what became of them.
    """

    head: Head
    face: masks.Face
    opinions: consensus.MaskPair
    decision: consensus.Decision


def weighed(head: Head, proposal: BoolArray) -> Found:
    """Hold what a network takes for the face against what geometry knows of the head.

    Args:
        head: the head.
        proposal: the network's mask, on the head's grid.

    Raises:
        FaceNotFound: the geometric rules find no face in view.
        SegmentersDisagree: the network does not mean the same face.
    """
    face = masks.turned_to(find_face(head), proposal & head.tissue.body, GRID_MM)
    reach = masks.safe_reach(head.tissue, face, GRID_MM)
    opinions = consensus.MaskPair(
        network=proposal,
        geometric=removed(head, face, Profile.SOFT_TISSUE, ears=False),
        zone=masks.safe_zone(reach, face, GRID_MM),
        reach=reach,
        body=head.tissue.body,
        bone=head.tissue.bone,
        front=masks.middle_of_face(head.tissue.body.shape, face, GRID_MM),
        core=masks.core(head.tissue.body.shape, face, GRID_MM),
        depth=math.ceil(face.least_depth_mm / GRID_MM),
        bare=math.ceil(head.bare_depth_mm / GRID_MM),
    )
    return Found(head=head, face=face, opinions=opinions, decision=consensus.decide(opinions))


def face_piece(seen: BoolArray, spacing_mm: float) -> BoolArray:
    """Return the largest connected piece.

    Raises:
        FaceNotFound: it is too small to be a face.
    """
    piece = morphology.largest_component(seen)
    milliliters = float(np.count_nonzero(piece)) * spacing_mm**3 / 1000
    if milliliters < SMALLEST_FACE_ML:
        raise FaceNotFound(
            f"the network finds no face: the largest piece it marks has {milliliters:.0f} ml"
        )
    return piece


def _in_front(piece: BoolArray, head: Head) -> BoolArray:
    """Return what lies in front of a mask up to the border of the view, but for the cavity."""
    front = morphology.before(piece)
    front[head.place] &= ~masks.guard(head.tissue, GRID_MM)
    return front


def _on_grid(mask: BoolArray, geometry: Geometry, grid: Canonical) -> BoolArray:
    """Bring a mask of stored voxels to a canonical grid; only the slices that it touches are looked at."""
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
