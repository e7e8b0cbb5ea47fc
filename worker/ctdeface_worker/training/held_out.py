"""Real volumes for evaluation, which training never reads."""

HEADS = ("stanford_cthead", "visible_human_female", "vtk_headsq")
"""Whole heads."""

COARSE = tuple(
    f"pt_{number}"
    for number in (
        1,
        106,
        114,
        122,
        13,
        136,
        146,
        157,
        17,
        181,
        193,
        206,
        214,
        225,
        232,
        242,
        248,
        260,
        265,
        274,
        285,
        292,
        298,
        30,
        309,
        315,
        324,
        333,
        339,
        40,
        53,
        59,
        62,
        72,
        84,
        95,
    )
)
"""36 of the 136 volumes of the open-kbp collection, evenly spaced by name.

These are the positions i where the whole part of 36 i / 136 changes.
"""


def is_held_out(name: str) -> bool:
    """Return True for the name of a held-out volume.

    The name has no suffix.
    """
    return name in HEADS or name in COARSE
