"""Export of spans to an OpenTelemetry collector.

Only this module imports OpenTelemetry. Attributes come from an allow-list, as in logs: they contain
no case, file, path, UID or error text. If the collector cannot be reached, only spans are lost.
"""

import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ctdeface_shared import logs
from ctdeface_shared.lifecycle import boundary
from ctdeface_shared.tracing.spans import NO_SPAN, NOTHING, Span, Tracer, Value

ALLOWED_ATTRIBUTES = frozenset(
    {
        *("attempt", "code", "files", "generation", "job_id", "megabytes", "outcome"),
        *("segmenter", "series", "slot", "voxels"),
    }
)
"""Attributes that a span may have. None of them may contain a name, a path or a UID."""
SEND_SECONDS = 5.0
"""Seconds after which a collector counts as unreachable, also at the end of the process."""
_log = logs.logger(__name__)
_PREFIX = "ctdeface."
_ALLOWED_TEXT = re.compile(r"[A-Za-z0-9._:-]{0,100}")
_PROPAGATOR = TraceContextTextMapPropagator()
_KINDS = {"watch": trace.SpanKind.PRODUCER, "job": trace.SpanKind.CONSUMER}


@dataclass(frozen=True, slots=True)
class ExportedSpan:
    """A span of OpenTelemetry."""

    tracer: trace.Tracer
    span: trace.Span

    @property
    def traceparent(self) -> str | None:
        """Return the value with which a receiver continues this trace."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, trace.set_span_in_context(self.span))
        return carrier.get("traceparent")

    def part(self, name: str, begun_at: float, ended_at: float, error: str = "") -> None:
        """Add a finished part of the span."""
        boundary(partial(self._part, name, begun_at, ended_at, error))

    def end(self, ended_at: float, about: Mapping[str, Value] = NOTHING, error: str = "") -> None:
        """End the span."""
        boundary(partial(_end, self.span, ended_at, about, error))

    def _part(self, name: str, begun_at: float, ended_at: float, error: str) -> None:
        parent = trace.set_span_in_context(self.span)
        _end(
            self.tracer.start_span(name, parent, start_time=_nanoseconds(begun_at)),
            ended_at,
            NOTHING,
            error,
        )


@dataclass(frozen=True, slots=True)
class ExportingTracer:
    """A tracer of OpenTelemetry."""

    tracer: trace.Tracer

    def begin(self, name: str, begun_at: float, parent: str | None = None) -> Span:
        """Begin a span."""
        begun = boundary(partial(self._begin, name, begun_at, parent))
        return NO_SPAN if isinstance(begun, Exception) else begun

    def _begin(self, name: str, begun_at: float, parent: str | None) -> Span:
        context = _PROPAGATOR.extract({"traceparent": parent} if parent else {})
        kind = _KINDS.get(name, trace.SpanKind.INTERNAL)
        return ExportedSpan(
            self.tracer,
            self.tracer.start_span(name, context, kind, start_time=_nanoseconds(begun_at)),
        )


def _end(span: trace.Span, ended_at: float, about: Mapping[str, Value], error: str) -> None:
    attributes = {**about, "code": error} if error else about
    span.set_attributes(
        {
            _PREFIX + key: value
            for key, value in attributes.items()
            if key in ALLOWED_ATTRIBUTES and _is_allowed(value)
        }
    )
    if error:
        span.set_status(trace.Status(trace.StatusCode.ERROR))
    span.end(_nanoseconds(ended_at))


def _is_allowed(value: Value) -> bool:
    return not isinstance(value, str) or _ALLOWED_TEXT.fullmatch(value) is not None


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def sender(endpoint: str) -> SpanProcessor:
    """Return the processor that sends ended spans in batches to a collector."""
    return BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=SEND_SECONDS))


@contextmanager
def export_spans(service: str, to: SpanProcessor) -> Iterator[Tracer]:
    """Export spans during the block.

    Args:
        service: name of the service, such as `ctdeface-worker`.
        to: receives the spans. Afterwards it is shut down; if that takes longer than
            `SEND_SECONDS`, it is abandoned.
    """
    about = {
        "service.name": service,
        "service.version": version("ctdeface"),
        "host.name": socket.gethostname(),
    }
    provider = TracerProvider(resource=Resource(about), shutdown_on_exit=False)
    provider.add_span_processor(to)
    try:
        yield ExportingTracer(provider.get_tracer("ctdeface"))
    finally:
        _shut_down(provider)


def _shut_down(provider: TracerProvider) -> None:
    """Send the remaining spans, for at most `SEND_SECONDS`.

    This needs a thread, because OpenTelemetry waits up to 30 s for a slow collector.
    """
    ending = threading.Thread(
        target=partial(boundary, provider.shutdown), name="traces-end", daemon=True
    )
    ending.start()
    ending.join(SEND_SECONDS)
    if ending.is_alive():
        _log.warning("traces_given_up")
