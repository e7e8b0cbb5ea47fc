"""Make the segmenter of a name.

`geometric`                       rays from inside the skull
`network`                         the shipped network, guided by the geometric rules
`nnunet:NAME`                     an installed network alone
`nnunet:NAME:mirrored`            the same, averaged over mirror images; slower, a little smoother
"""

from pathlib import Path

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.settings.sections import ModelsSection
from ctdeface_worker.segmentation.base import Segmenter
from ctdeface_worker.segmentation.models import store as models

NNUNET, MIRRORED = "nnunet", "mirrored"


def segmenter_named(name: str, store: Path | None = None) -> Segmenter:
    """Return the segmenter of a name.

    The digest of a network is checked here; the network itself is loaded with the first case.

    Args:
        name: see the module's documentation.
        store: folder of installed networks; None stands for the user's.

    Raises:
        ConfigurationError: the segmenter does not exist, or its model was changed.
    """
    if name == "geometric":
        from ctdeface_worker.segmentation.geometric.segmenter import GeometricSegmenter

        return GeometricSegmenter()
    match name.split(":"):
        case ["network"]:
            return _guided(name)
        case [kind, model] if kind == NNUNET:
            return _alone(name, model, store, mirrored=False)
        case [kind, model, how] if (kind, how) == (NNUNET, MIRRORED):
            return _alone(name, model, store, mirrored=True)
    raise ConfigurationError(
        f"the segmenter {name!r} does not exist; choose geometric, network or nnunet:NAME "
        "(`ctdeface model list` shows the names)"
    )


def _guided(name: str) -> Segmenter:
    model = models.shipped()
    if model is None:
        raise ConfigurationError(
            "this build of ctdeface contains no network; choose geometric, or install a model and "
            "choose nnunet:NAME"
        )
    from ctdeface_worker.segmentation.nnunet.segmenter import GuidedSegmenter

    return GuidedSegmenter(name, model)


def _alone(name: str, model: str, store: Path | None, *, mirrored: bool) -> Segmenter:
    found = models.find(model, store or ModelsSection().place)
    from ctdeface_worker.segmentation.nnunet.segmenter import NnunetSegmenter

    return NnunetSegmenter(name, found, mirrored=mirrored)
