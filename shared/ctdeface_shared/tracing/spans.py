"""Protocols for spans, and their defaults, which do nothing.

Watcher and worker record with them how long each part of a case takes. No method raises.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, TypeAlias

Value: TypeAlias = str | int | float
NOTHING: Mapping[str, Value] = MappingProxyType({})
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Span(Protocol):
    """A recorded period; times are in seconds since the epoch."""

    @property
    def traceparent(self) -> str | None:
        """Return the value with which a receiver continues this trace.

        It is a W3C Trace Context; None if traces are off.
        """

    def part(self, name: str, begun_at: float, ended_at: float, error: str = "") -> None:
        """Add a finished part of the span; `error` is the code of its error."""

    def end(self, ended_at: float, about: Mapping[str, Value] = NOTHING, error: str = "") -> None:
        """End the span.

        Args:
            ended_at: time of the end, in seconds since the epoch.
            about: attributes; only those on the allow-list are exported.
            error: code of the error, or empty.
        """


class Tracer(Protocol):
    """A recorder of spans."""

    def begin(self, name: str, begun_at: float, parent: str | None = None) -> Span:
        """Begin a span; `parent` is the traceparent of a message."""


@dataclass(frozen=True, slots=True)
class _NoSpan:
    """A span that is not recorded."""

    traceparent: str | None = None

    def part(self, name: str, begun_at: float, ended_at: float, error: str = "") -> None:
        """Do nothing."""

    def end(self, ended_at: float, about: Mapping[str, Value] = NOTHING, error: str = "") -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class _NoTracer:
    """The tracer while traces are off."""

    def begin(self, name: str, begun_at: float, parent: str | None = None) -> Span:
        """Return a span that is not recorded."""
        del name, begun_at, parent
        return NO_SPAN


NO_SPAN: Span = _NoSpan()
NO_TRACER: Tracer = _NoTracer()


def traceparent_in(found: object) -> str | None:
    """Return a message's traceparent if it is valid, or None.

    It is not trusted: anyone who can publish can write any text there.
    """
    return found if isinstance(found, str) and _TRACEPARENT.fullmatch(found) else None
