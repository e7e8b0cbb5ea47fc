"""Thresholds in HU of all packages but the gate.

The gate (`ctdeface_worker.verification`) keeps its own set, so that an error here cannot make it
accept a wrong mask. Two thresholds for bone are kept apart because they serve different purposes:
a mask must not miss bone (`BONE_HU`), and a picture must not show soft tissue as bone
(`DENSE_BONE_HU`).
"""

AIR_HU = -1000.0
"""Air, by the definition of the Hounsfield scale."""
AIR_RANGE_HU = (-1100.0, -900.0)
"""Voxels that count as the scan's own air, whose median is the fill value."""
OUTSIDE_HU = -1024.0
"""Resampled voxels outside the field of view; `Canonical.valid` separates them from air."""
AIRWAY_HU = -400.0
"""Below this a voxel inside the head is air (airways, sinuses), partial volume included."""
SKIN_HU = -300.0
"""Above this a voxel is tissue, below it is air: the air-skin surface."""
SOFT_TISSUE_WINDOW_HU = (-160.0, 240.0)
"""Display window of radiology for soft tissue (level 40, width 400)."""
BRAIN_HU = (-30.0, 140.0)
"""Brain with blood and contrast agent, without fat and bone."""
WEAK_BONE_HU = 130.0
"""Bone in coarse voxels, where the partial volume effect darkens thin bone."""
BONE_HU = 180.0
"""Bone, thin facial bone included."""
DENSE_BONE_HU = 200.0
"""Bone that no contrast-enhanced soft tissue reaches."""
