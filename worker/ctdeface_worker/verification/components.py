"""Connected components by the gate's own means."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctdeface_worker.imaging.domain import BoolArray


def labeled(mask: BoolArray) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Label the 6-connected components of a mask.

    Returns:
        Labels (z, y, x), 0 for the background; and the number of voxels per label, 0 for the
        background.
    """
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels), sizes


def largest(mask: BoolArray) -> BoolArray:
    """Return the largest 6-connected component, empty without one."""
    labels, sizes = labeled(mask)
    component: BoolArray = labels == sizes.argmax() if sizes.any() else np.zeros_like(mask)
    return component
