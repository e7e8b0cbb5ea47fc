"""Real volumes that training never reads, whatever folder it is given: what the network is evaluated on."""

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
"""Every volume of the open-kbp collection, in the order of their names, at whose position i the whole part of 36 i / 136 changes."""


def is_held_out(name: str) -> bool:
    """Tell whether a volume, by the name of its file or folder without suffix, must not be trained on."""
    return name in HEADS or name in COARSE
