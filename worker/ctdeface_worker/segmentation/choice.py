"""Which segmenter a name stands for."""

from ctdeface_shared.errors import ConfigurationError
from ctdeface_worker.segmentation.base import Segmenter


def segmenter_named(name: str) -> Segmenter:
    """Return the segmenter of a name.

    Raises:
        ConfigurationError: there is no such segmenter.
    """
    if name == "geometric":
        from ctdeface_worker.segmentation.geometric.segmenter import GeometricSegmenter  # noqa: PLC0415  only the chosen one is loaded

        return GeometricSegmenter()
    message = f"there is no segmenter {name!r}; choose geometric"
    raise ConfigurationError(message)
