"""Turns traces on where the settings name a collector."""

from collections.abc import Iterator
from contextlib import contextmanager

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.settings.sections import TracesSection
from ctdeface_shared.tracing.spans import NO_TRACER, Tracer


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
        yield NO_TRACER
        return
    try:
        from ctdeface_shared.tracing.export import sender, told
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise ConfigurationError(
            "traces.endpoint needs OpenTelemetry, which is not installed: pip install 'ctdeface[traces]'"
        ) from None
    with told(service, sender(settings.endpoint)) as tracer:
        yield tracer
