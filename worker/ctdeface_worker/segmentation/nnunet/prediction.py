"""Run a network on stored slices or the canonical grid.

On stored slices the result is nnU-Net's own. The canonical grid is for networks that
`ctdeface train` made.
"""

from dataclasses import dataclass
from itertools import permutations
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from ctdeface_worker.imaging.canonical import Canonical, stored_index, to_canonical
from ctdeface_worker.imaging.domain import BoolArray, FloatArray, Geometry, HuArray, Volume
from ctdeface_worker.imaging.hounsfield import AIR_HU
from ctdeface_worker.segmentation.nnunet.network import STEP, Network, quiet

with quiet():
    from nnunetv2.inference.export_prediction import (
        convert_predicted_logits_to_segmentation_with_correct_shape,
    )
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

Box: TypeAlias = tuple[slice, slice, slice]
Corners: TypeAlias = tuple[FloatArray, FloatArray]

"""HU outside the field of view during training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upright:
    """Permutation and flips from stored to anatomical axes, without resampling.

    Stored axes are (slice, row, column), anatomical ones (superior, posterior, left).

    Attributes:
        order: stored axis that becomes the first, second and third.
        flipped: new axes that run in the opposite direction.
    """

    order: tuple[int, int, int]
    flipped: tuple[int, ...]

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view in the order (superior, posterior, left)."""
        return np.flip(array.transpose(self.order), self.flipped)


def upright(geometry: Geometry) -> Upright:
    """Find the stored axes nearest to the patient's axes.

    Axial slices of a supine patient, head first, stay unchanged.
    """
    steps = np.stack([geometry.normal_lps, geometry.row_step_lps, geometry.column_step_lps])
    steps = steps / np.linalg.norm(steps, axis=1, keepdims=True)
    order = max(
        permutations(range(3)),
        key=lambda axes: sum(abs(steps[axis, 2 - place]) for place, axis in enumerate(axes)),
    )
    flipped = tuple(place for place, axis in enumerate(order) if steps[axis, 2 - place] < 0)
    return Upright(order=(order[0], order[1], order[2]), flipped=flipped)


def canonical_probability(
    network: Network, volume: Volume, within: Corners
) -> tuple[HuArray, Canonical]:
    """Return the probability of face on the network's canonical grid.

    It is 0 where no head can be.

    Args:
        network: one with `grid_mm`.
        volume: the scan.
        within: lowest and highest LPS corner of where a head can be, in mm.
    """
    mm = network.grid_mm or network.spacing_mm[0]
    grid = to_canonical(volume, spacing_mm=mm)
    ends = [(corner - grid.origin_lps)[::-1] / mm for corner in within]
    shape, spacing = grid.hu.shape, (mm, mm, mm)
    box = _tiled_box(_box(ends[0], ends[1], shape), shape, _patch_in_source(network, spacing))
    _, chances = _predict(network, np.clip(grid.hu[box], AIR_HU, None), spacing, probabilities=True)
    probability: HuArray = np.zeros(shape, dtype=np.float32)
    probability[box] = chances[network.face]
    return probability, grid


def stored_mask(network: Network, volume: Volume, within: Corners) -> BoolArray:
    """Return the face on the stored voxels (slice, row, column).

    The result is that of nnU-Net for the same slices in a NIfTI file.

    Args:
        network: any network.
        volume: the scan; the median distance stands for all of unevenly spaced slices, as in such a
            file.
        within: lowest and highest LPS corner of where a head can be, in mm.
    """
    turn = upright(volume.geometry)
    shape = tuple(volume.hu.shape[axis] for axis in turn.order)
    spacing = tuple(volume.geometry.spacing_mm[axis] for axis in turn.order)
    box = _tiled_box(
        _stored_box(volume.geometry, turn, within), shape, _patch_in_source(network, spacing)
    )
    face: BoolArray = np.zeros(volume.hu.shape, dtype=bool)
    labels, _ = _predict(network, turn.apply(volume.hu)[box], spacing)
    turn.apply(face)[box] = labels == network.face
    return face


def _predict(
    network: Network, hu: HuArray, spacing_mm: tuple[float, ...], *, probabilities: bool = False
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Predict one image as nnU-Net does.

    Everything runs in this process and its threads.

    Args:
        network: any network.
        hu: image in the order (superior, posterior, left), HU.
        spacing_mm: spacing of its voxels.
        probabilities: whether to return probabilities.

    Returns:
        Labels, and probabilities with the class as first axis; without them an empty array.
    """
    predictor = network.predictor
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    with quiet():
        preprocessor = configuration.preprocessor_class(verbose=False)
        properties: dict[str, Any] = {"spacing": list(spacing_mm)}
        data, _, properties = preprocessor.run_case_npy(
            hu[None], None, properties, plans, configuration, predictor.dataset_json
        )
        logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data))
        found = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits,
            plans,
            configuration,
            predictor.label_manager,
            properties,
            return_probabilities=probabilities,
            num_threads_torch=torch.get_num_threads(),
        )
    return found if probabilities else (found, np.zeros(0, dtype=np.float32))


def _patch_in_source(network: Network, spacing_mm: tuple[float, ...]) -> tuple[float, ...]:
    """Return a tile's extent in voxels of the source.

    A two-dimensional tile covers one slice.
    """
    manager = network.predictor.plans_manager
    edges = (1.0,) * (3 - len(network.patch)) + tuple(float(edge) for edge in network.patch)
    voxels = (spacing_mm[manager.transpose_forward[0]],) * (
        3 - len(network.spacing_mm)
    ) + network.spacing_mm
    covered = [edge * voxel for edge, voxel in zip(edges, voxels, strict=True)]
    return tuple(
        covered[place] / mm
        for place, mm in zip(manager.transpose_backward, spacing_mm, strict=True)
    )


def _tiled_box(box: Box, shape: tuple[int, ...], patch: tuple[float, ...]) -> Box:
    """Return the box, limited to axes where it saves tiles.

    Its edges are at least those of a tile. Without the box, the result is nnU-Net's own.
    """
    return tuple(  # type: ignore[return-value]  # three in, three out
        _at_least(part, round(edge), whole)
        if _tiles(part.stop - part.start, edge) < _tiles(whole, edge)
        else slice(0, whole)
        for part, whole, edge in zip(box, shape, patch, strict=True)
    )


def _at_least(part: slice, length: int, whole: int) -> slice:
    """Widen a part around its middle, within the whole.

    For a network the surroundings are more informative than padding.
    """
    missing = max(min(length, whole) - (part.stop - part.start), 0)
    start = min(max(part.start - missing // 2, 0), whole - (part.stop - part.start) - missing)
    return slice(min(start, part.start), max(start + part.stop - part.start + missing, part.stop))


def _tiles(length: int, edge: float) -> int:
    """Count the tiles along an axis."""
    whole = max(round(edge), 1)
    return len(compute_steps_for_sliding_window((max(length, whole),), (whole,), STEP)[0])


def _box(low: FloatArray, high: FloatArray, shape: tuple[int, ...]) -> Box:
    """Return the voxels between two fractional indices."""
    starts = [
        int(np.clip(np.floor(one), 0, count - 1)) for one, count in zip(low, shape, strict=True)
    ]
    stops = [
        int(np.clip(np.ceil(one) + 1, start + 1, count))
        for one, start, count in zip(high, starts, shape, strict=True)
    ]
    return (slice(starts[0], stops[0]), slice(starts[1], stops[1]), slice(starts[2], stops[2]))


def _stored_box(geometry: Geometry, turn: Upright, within: Corners) -> Box:
    """Return the upright box of stored voxels between two corners."""
    corners = np.stack(np.meshgrid(*zip(*within, strict=True)), axis=-1).reshape(-1, 3)
    index = stored_index(geometry, corners)
    stored = _box(index.min(axis=0), index.max(axis=0), geometry.shape)
    parts = [stored[axis] for axis in turn.order]
    for place in turn.flipped:
        count = geometry.shape[turn.order[place]]
        parts[place] = slice(count - parts[place].stop, count - parts[place].start)
    return (parts[0], parts[1], parts[2])
