"""What watcher and worker tell about the time that a case takes; nobody listens unless traces are on, and nothing here ever raises."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, TypeAlias

Value: TypeAlias = str | int | float
NOTHING: Mapping[str, Value] = MappingProxyType({})
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Span(Protocol):
    """A stretch of time that is being told; times are seconds since the epoch."""

    @property
    def traceparent(self) -> str | None:
        """What a message carries so that whoever handles it goes on with this trace (W3C Trace Context); None where nobody listens."""

    def part(self, name: str, begun_at: float, ended_at: float, error: str = "") -> None:
        """Tell of a part of it that is over; `error` is the code of what it failed with."""

    def end(self, ended_at: float, about: Mapping[str, Value] = NOTHING, error: str = "") -> None:
        """End it; `about` says more in keys from an allow-list, anything else is left out."""


class Tracer(Protocol):
    """Somebody who is told."""

    def begin(self, name: str, begun_at: float, parent: str | None = None) -> Span:
        """Begin a span; `parent` is the traceparent of a message."""


@dataclass(frozen=True, slots=True)
class _NoSpan:
    """A span that nobody hears of."""

    traceparent: str | None = None

    def part(self, name: str, begun_at: float, ended_at: float, error: str = "") -> None:
        """Do nothing."""

    def end(self, ended_at: float, about: Mapping[str, Value] = NOTHING, error: str = "") -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class _NoTracer:
    """Nobody is told."""

    def begin(self, name: str, begun_at: float, parent: str | None = None) -> Span:
        """Begin a span that nobody hears of."""
        del name, begun_at, parent
        return NO_SPAN


NO_SPAN: Span = _NoSpan()
NO_TRACER: Tracer = _NoTracer()


def traceparent_in(found: object) -> str | None:
    """Return what a message says about its trace, if it is a traceparent; whoever can publish can write anything there."""
    return found if isinstance(found, str) and _TRACEPARENT.fullmatch(found) else None
