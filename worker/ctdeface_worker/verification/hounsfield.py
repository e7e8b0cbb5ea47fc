"""Hounsfield thresholds of the gate, independent of segmentation."""

SKIN_HU = -300.0
"""Border between air and tissue."""
BRAIN_HU = (-10.0, 100.0)
"""Soft tissue of the intracranial cavity."""
SKULL_HU = 160.0
"""The wall of the cavity; low, so that thin bone of the skull base closes it."""
BONE_HU = 200.0
"""Bone behind facial skin, the jaw, and metal."""
DENSE_BONE_HU = 300.0
"""Bone or metal within the removed tissue; partial volume of bone does not count."""
