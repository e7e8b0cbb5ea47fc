"""The check that `ctdeface doctor` makes on a worker."""

from ctdeface_shared.doctor.finding import Finding, ok, problem
from ctdeface_shared.errors import CtDefaceError
from ctdeface_shared.settings.service import ServiceConfig
from ctdeface_worker.segmentation.choice import segmenter_named


def check_segmenter(service: ServiceConfig) -> Finding:
    """Check that the segmenter of the settings can be loaded."""
    name = service.settings.deface.segmenter
    try:
        segmenter_named(name, service.settings.models.place)
    except CtDefaceError as error:
        return problem("worker", str(error))
    return ok("worker", f"its libraries are installed, and the segmenter {name} can be loaded")
