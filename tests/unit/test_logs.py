"""Log lines are JSON and cannot name a patient."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from ctdeface_shared import logs

PATIENT = "DOE^JANE"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A stream that all logging goes to during one test."""
    root = logging.getLogger()
    earlier, level = root.handlers, root.level
    lines = io.StringIO()
    logs.configure(lines)
    yield lines
    root.handlers = earlier
    root.setLevel(level)
    structlog.reset_defaults()


def _lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_allowed_keys_arrive(stream: io.StringIO) -> None:
    """An event with keys from the allow-list is one JSON line with all of them."""
    structlog.get_logger("ctdeface_worker").info("case_published", job_id="1", seconds=2.5)
    (line,) = _lines(stream)
    assert (line["event"], line["job_id"], line["seconds"], line["level"]) == (
        "case_published",
        "1",
        2.5,
        "info",
    )


def test_the_queue_library_tells_no_more_than_warnings(stream: io.StringIO) -> None:
    """Each connection would else write a dozen lines whose text is withheld."""
    logging.getLogger("pika.connection").info("Created channel=1")
    logging.getLogger("pika.connection").warning("broken")
    assert [line["level"] for line in _lines(stream)] == ["warning"]


def test_unknown_keys_are_dropped_and_counted(stream: io.StringIO) -> None:
    """A key that is not on the list leaves nothing behind but a number."""
    structlog.get_logger("ctdeface_worker").warning(
        "series_refused", patient_name=PATIENT, path=f"/inbox/{PATIENT}"
    )
    (line,) = _lines(stream)
    assert PATIENT not in stream.getvalue()
    assert line["dropped_keys"] == 2


def test_warnings_are_withheld(stream: io.StringIO) -> None:
    """Libraries quote header values in them."""
    with warnings.catch_warnings(action="always"):
        logging.captureWarnings(capture=False)
        logs.configure(stream)
        warnings.warn(f"Invalid value for VR PN: {PATIENT}", UserWarning, stacklevel=1)
    (line,) = _lines(stream)
    assert (line["event"], line["logger"], line["level"]) == (
        "text_withheld",
        "py.warnings",
        "warning",
    )


def test_text_of_other_libraries_is_withheld(stream: io.StringIO) -> None:
    """The standard library's logging goes the same way, and free text does not arrive."""
    logging.getLogger("pydicom").warning("Invalid value for PN: %s", PATIENT)
    (line,) = _lines(stream)
    assert line["event"] == "text_withheld"
    assert line["logger"] == "pydicom"
    assert PATIENT not in stream.getvalue()


def test_a_traceback_names_places_but_not_the_message(stream: io.StringIO) -> None:
    """An error is logged as class and code places; its own words may quote a path."""
    try:
        Path(f"/nowhere/{PATIENT}").read_bytes()
    except FileNotFoundError:
        logging.getLogger("ctdeface_worker").exception("bug_met")
    (line,) = _lines(stream)
    assert PATIENT not in stream.getvalue()
    trace = line["traceback"]
    assert isinstance(trace, list)
    assert trace[-1] == "FileNotFoundError"
    assert "test_a_traceback_names_places_but_not_the_message" in trace[0]
