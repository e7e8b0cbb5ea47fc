"""The only door of OpenTelemetry: sends spans to a collector from a thread of its own.

What a span may say comes from an allow-list, as in logs: no case, no file, no path, no UID, no text
of an error. A collector that cannot be reached costs its spans and nothing else.
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

ALLOWED_ABOUT = frozenset({
    "attempt", "code", "files", "generation", "job_id", "megabytes", "outcome", "segmenter", "series", "slot", "voxels",
})  # fmt: skip
"""Everything that a span may say. A new key must be of a kind that cannot carry a name, a path or a UID."""
SEND_SECONDS = 5.0
"""After which a collector counts as unreachable, also at the end of the process."""
_log = logs.logger(__name__)
_PREFIX = "ctdeface."
_HARMLESS = re.compile(r"[A-Za-z0-9._:-]{0,100}")
_PROPAGATOR = TraceContextTextMapPropagator()
_KINDS = {"watch": trace.SpanKind.PRODUCER, "job": trace.SpanKind.CONSUMER}


@dataclass(frozen=True, slots=True)
class ExportedSpan:
    """A span of OpenTelemetry."""

    tracer: trace.Tracer
    span: trace.Span

    @property
    def traceparent(self) -> str | None:
        """What a message carries so that whoever handles it goes on with this trace."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, trace.set_span_in_context(self.span))
        return carrier.get("traceparent")

    def part(self, name: str, begun_at: float, ended_at: float, error: str = "") -> None:
        """Tell of a part of it that is over."""
        boundary(partial(self._part, name, begun_at, ended_at, error))

    def end(self, ended_at: float, about: Mapping[str, Value] = NOTHING, error: str = "") -> None:
        """End it."""
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
    """Tells OpenTelemetry."""

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
    said = {**about, "code": error} if error else about
    span.set_attributes(
        {
            _PREFIX + key: value
            for key, value in said.items()
            if key in ALLOWED_ABOUT and _is_harmless(value)
        }
    )
    if error:
        span.set_status(trace.Status(trace.StatusCode.ERROR))
    span.end(_nanoseconds(ended_at))


def _is_harmless(value: Value) -> bool:
    return not isinstance(value, str) or _HARMLESS.fullmatch(value) is not None


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def sender(endpoint: str) -> SpanProcessor:
    """Make what sends ended spans to a collector, some seconds later and many at once."""
    return BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=SEND_SECONDS))


@contextmanager
def told(service: str, to: SpanProcessor) -> Iterator[Tracer]:
    """Tell spans for the time of the block.

    Args:
        service: who tells, such as `ctdeface-worker`.
        to: what takes them; it is shut down afterwards, and given up when that takes longer than
            `SEND_SECONDS`.
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
    """Send what is left, in a thread that may be left behind: OpenTelemetry waits up to 30 s for a collector that hangs or drips."""
    ending = threading.Thread(
        target=partial(boundary, provider.shutdown), name="traces-end", daemon=True
    )
    ending.start()
    ending.join(SEND_SECONDS)
    if ending.is_alive():
        _log.warning("traces_given_up")
