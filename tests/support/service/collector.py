"""A trace collector for tests: receive, keep and parse OTLP/HTTP."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One span as it arrived.

    Attributes:
        service: who sent it.
        name: of the span.
        trace: hexadecimal.
        span: hexadecimal.
        parent: hexadecimal; empty for none.
        begun: nanoseconds since the epoch.
        ended: nanoseconds since the epoch.
        about: its attributes without the prefix.
        failed: whether its status is an error.
    """

    service: str
    name: str
    trace: str
    span: str
    parent: str
    begun: int
    ended: int
    about: dict[str, object]
    failed: bool


@dataclass(frozen=True, slots=True)
class Collector:
    """What arrived at an address."""

    endpoint: str
    bodies: list[bytes] = field(default_factory=list)

    def spans(self) -> list[Received]:
        """Every span that arrived."""
        found = []
        for resource in (
            one
            for body in self.bodies
            for one in ExportTraceServiceRequest.FromString(body).resource_spans
        ):
            service = next(
                item.value.string_value
                for item in resource.resource.attributes
                if item.key == "service.name"
            )
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                told = {
                    item.key: getattr(item.value, item.value.WhichOneof("value"))
                    for item in span.attributes
                }
                found.append(
                    Received(
                        service=service,
                        name=span.name,
                        trace=span.trace_id.hex(),
                        span=span.span_id.hex(),
                        parent=span.parent_span_id.hex(),
                        begun=span.start_time_unix_nano,
                        ended=span.end_time_unix_nano,
                        about={key.removeprefix("ctdeface."): value for key, value in told.items()},
                        failed=span.status.code == span.status.STATUS_CODE_ERROR,
                    )
                )
        return found


@contextmanager
def collecting() -> Iterator[Collector]:
    """Listen at a free port for the time of the block."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        """Keeps what is posted."""

        def do_POST(self) -> None:
            """Take one message."""
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as inherited
            """Do nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Collector(f"http://127.0.0.1:{server.server_port}/v1/traces", bodies)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
