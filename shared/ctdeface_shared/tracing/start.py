"""Start of the traces if the settings name a collector."""

from collections.abc import Iterator
from contextlib import contextmanager

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.tracing.spans import NO_TRACER, Tracer


@contextmanager
def open_tracer(endpoint: str | None, service: str) -> Iterator[Tracer]:
    """Yield the tracer of a service for the block.

    OpenTelemetry is imported only if traces are on.

    Args:
        endpoint: OTLP/HTTP address of the collector; None turns traces off.
        service: name of the service, such as `ctdeface-worker`.

    Raises:
        ConfigurationError: OpenTelemetry is not installed.
    """
    if endpoint is None:
        yield NO_TRACER
        return
    try:
        from ctdeface_shared.tracing.export import export_spans, sender
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise ConfigurationError(
            "traces.endpoint needs OpenTelemetry, which is not installed: "
            "pip install 'ctdeface[traces]'"
        ) from None
    with export_spans(service, sender(endpoint)) as tracer:
        yield tracer
