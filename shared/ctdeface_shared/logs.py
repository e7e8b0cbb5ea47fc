"""Logs as JSON lines that cannot name a patient.

Keys come from an allow-list, and texts of foreign libraries are replaced. Events are past-tense
snake_case (`case_published`). Case and file names, UIDs and header values are only in the report.
"""

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

ALLOWED_KEYS = frozenset({
    "attempt", "code", "dropped_keys", "event", "fate", "files", "generation", "in_flight",
    "job_id", "level", "logger", "megabytes", "refused", "released", "restarts", "seconds",
    "series", "stage", "timestamp", "traceback", "version", "waiting", "worker",
})  # fmt: skip
"""The keys of log lines. A new key must not be able to hold a name, a path or a UID."""

_EVENT = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def configure(stream: TextIO = sys.stderr, level: int = logging.INFO) -> None:
    """Send logs and warnings as JSON lines to one stream.

    structlog and the standard library's logging go through the same processors.
    """
    logging.captureWarnings(capture=True)  # libraries quote header values in warnings
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    last: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        withhold_foreign_text,
        trace_without_messages,
        keep_allowed_keys,
        structlog.processors.JSONRenderer(sort_keys=True),
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last)
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # pika logs each step of each connection as free text, which would be withheld anyway.
    logging.getLogger("pika").setLevel(max(level, logging.WARNING))


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module.

    Events are past-tense snake_case, and keys come from the allow-list.
    """
    bound: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return bound


@contextmanager
def about_job(job_id: str) -> Iterator[None]:
    """Add a job's id to the log lines of this thread."""
    with structlog.contextvars.bound_contextvars(job_id=job_id):
        yield


def withhold_foreign_text(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Replace an event that is not a snake_case name.

    Free text of a library may quote a path or a header value.
    """
    if not _EVENT.fullmatch(str(line.get("event", ""))):
        line["event"] = "text_withheld"
    return line


def trace_without_messages(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Replace `exc_info` by the error's class and code locations.

    The text of an error may quote a path.
    """
    given = line.pop("exc_info", None)
    error = sys.exc_info()[1] if given is True else given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        line["traceback"] = [*_places(error.__traceback__), type(error).__name__]
    return line


def keep_allowed_keys(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Drop keys outside the allow-list, and add their number."""
    kept = {key: value for key, value in line.items() if key in ALLOWED_KEYS}
    if len(kept) < len(line):
        kept["dropped_keys"] = len(line) - len(kept)
    return kept


def _places(trace: TracebackType | None) -> list[str]:
    places = []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(
            f"{trace.tb_frame.f_globals.get('__name__', '?')}:{code.co_name}:{trace.tb_lineno}"
        )
        trace = trace.tb_next
    return places
