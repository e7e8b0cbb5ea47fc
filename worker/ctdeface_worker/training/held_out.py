"""Real volumes held out for evaluation, which training skips."""

HEADS = ("stanford_cthead", "visible_human_female", "vtk_headsq")
"""Volumes of whole heads."""

# fmt: off
COARSE_NUMBERS = (
    1, 106, 114, 122, 13, 136, 146, 157, 17, 181, 193, 206, 214, 225, 232, 242, 248, 260, 265,
    274, 285, 292, 298, 30, 309, 315, 324, 333, 339, 40, 53, 59, 62, 72, 84, 95,
)
# fmt: on
COARSE = tuple(f"pt_{number}" for number in COARSE_NUMBERS)
"""36 volumes of the open-kbp collection, evenly spaced in the order of their names.

They are the volumes at whose position i the integer part of 36 i / 136 changes.
"""


def is_held_out(name: str) -> bool:
    """Return whether a volume is held out.

    Args:
        name: of its file or folder, without suffix.
    """
    return name in HEADS or name in COARSE
