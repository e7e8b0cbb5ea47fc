"""The status of a spool as lines for a person."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from ctdeface_shared.status.in_flight import InFlight
from ctdeface_shared.status.spool_status import Refused, SpoolStatus


def spool_lines(status: SpoolStatus) -> tuple[str, ...]:
    """Return the counts, one kind of case per line."""
    oldest = status.oldest_waiting_seconds
    age = "" if oldest is None else f", the oldest for {duration(oldest)}"
    codes = ", ".join(f"{count} {code}" for code, count in status.refused_codes.items())
    ended = f"{status.ended_last_hour} jobs ended in the last hour"
    return (
        f"waiting    {len(status.waiting):>6}{age}",
        f"in flight  {len(status.in_flight):>6}{_not_begun(status.in_flight)}",
        f"released   {status.released:>6}, {ended}",
        f"refused    {len(status.refused):>6}" + (f": {codes}" if codes else ""),
    )


def retry_lines(status: SpoolStatus) -> Iterator[str]:
    """Yield a line for each case in flight that has failed before."""
    for one in status.in_flight:
        if one.has_failed or one.attempt > 1:
            yield f"  {one.case}  {_attempt(one)}"


def refused_lines(status: SpoolStatus, limit: int) -> Iterator[str]:
    """Yield the newest refused cases, each with its reason, time and report."""
    for one in status.refused[:limit]:
        yield f"  {one.case}  {_refusal(one)}"
        yield f"    see {one.report}"
    more = len(status.refused) - limit
    if more > 0:
        yield f"  and {more} more: --limit {len(status.refused)} shows all"


def duration(seconds: float) -> str:
    """Return a time span in its two largest units."""
    whole = round(seconds)
    for size, unit, smaller, small in (
        (86_400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {small}"
    return f"{whole} s"


def _not_begun(in_flight: Sequence[InFlight]) -> str:
    """Return how many cases in flight have not begun, or an empty text."""
    counts = {
        "being prepared": sum(one.is_prepared for one in in_flight),
        "queued": sum(one.is_queued for one in in_flight),
    }
    text = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f": {text}" if text else ""


def _attempt(one: InFlight) -> str:
    if one.has_failed:
        return f"attempt {one.attempt} failed with {one.code} and will be repeated"
    cause = f" failed with {one.code}" if one.code else " ended with its worker"
    return f"attempt {one.attempt}; the one before{cause}"


def _refusal(one: Refused) -> str:
    try:
        ended = datetime.fromtimestamp(one.ended_at).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):  # a file system can keep times of any year
        ended = "unknown time"
    return f"{ended}  {one.code}: {one.reason}"
