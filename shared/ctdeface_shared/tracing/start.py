"""Turns traces on where the settings name a collector."""

from collections.abc import Iterator
from contextlib import contextmanager

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.tracing.section import TracesSection
from ctdeface_shared.tracing.spans import NOBODY, Tracer


@contextmanager
def traced(settings: TracesSection, service: str) -> Iterator[Tracer]:
    """Give what is told about spans for the time of the block; nothing of OpenTelemetry is loaded unless traces are on.

    Args:
        settings: where to send them.
        service: who tells, such as `ctdeface-worker`.

    Raises:
        ConfigurationError: the libraries are not installed.
    """
    if settings.endpoint is None:
        yield NOBODY
        return
    try:
        from ctdeface_shared.tracing.export import sender, told  # noqa: PLC0415  an extra, and slow to load
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        message = "traces.endpoint needs OpenTelemetry, which is not installed: pip install 'ctdeface[traces]'"
        raise ConfigurationError(message) from None
    with told(service, sender(settings.endpoint)) as tracer:
        yield tracer
