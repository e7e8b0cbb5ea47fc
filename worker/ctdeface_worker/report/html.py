"""report.html: one self-contained page that says first what happened and why."""

from base64 import b64encode
from collections.abc import Mapping
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from ctdeface_worker.report.model import CaseReport


def render(report: CaseReport, pictures: Mapping[str, bytes]) -> str:
    """Return the page; everything that comes from the case is escaped.

    Args:
        report: what is shown.
        pictures: PNG of each series, by the name of the series; they become part of the page.
    """
    encoded = {series: b64encode(picture).decode("ascii") for series, picture in pictures.items()}
    return _template().render(report=report, result=report.result, pictures=encoded)


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("ctdeface_worker.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["megabytes"] = lambda size: f"{size / 1e6:.2f} MB"
    environment.filters["figure"] = lambda value: "" if value is None else f"{value:.4g}"
    return environment.get_template("report.html.j2")
