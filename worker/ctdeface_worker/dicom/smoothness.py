"""Tell rows of pixels from words and numbers."""

from itertools import pairwise

_SHORTEST = 8
_FEWEST_LEVELS = 4
_LARGEST_CORRELATION = 0.7


def is_smooth(text: bytes) -> bool:
    """Return whether neighboring bytes differ little, as in a picture.

    The autocorrelation of a row of pixels is near 1, that of words and numbers is near 0.
    """
    if len(text) < _SHORTEST or len(set(text)) < _FEWEST_LEVELS:
        return False
    mean = sum(text) / len(text)
    variance = sum((value - mean) ** 2 for value in text) / len(text)
    steps = sum((a - b) ** 2 for a, b in pairwise(text)) / (len(text) - 1)
    return 1 - steps / (2 * variance) > _LARGEST_CORRELATION
