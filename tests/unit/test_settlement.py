"""What follows from the outcome of an attempt."""

import pytest

from ctdeface_shared.broker.settlement import Ack, Quarantine, Reject, Retry, RetryRule, decide
from ctdeface_shared.errors import (
    BrokerUnavailable,
    ConfigurationError,
    EscapingPath,
    FaceNotFound,
    InputChanged,
    InvalidMessage,
    NotDicom,
    OutOfMemory,
    StorageUnavailable,
    UnknownVersion,
)

RULE = RetryRule(max_attempts=4, delays_seconds=(30.0, 120.0))


def test_a_job_that_ended_as_it_should_is_acknowledged() -> None:
    """Success leaves nothing in the queue."""
    assert decide(None, 1, RULE) == Ack()


@pytest.mark.parametrize("error", [FaceNotFound, NotDicom])
def test_a_permanent_error_is_quarantined_at_once(error: type[Exception]) -> None:
    """What can never be released is not tried again."""
    assert decide(error("no"), 1, RULE) == Quarantine(error.__name__)


@pytest.mark.parametrize("error", [InvalidMessage, UnknownVersion, EscapingPath])
def test_a_message_without_a_case_to_record_becomes_a_dead_letter(error: type[Exception]) -> None:
    """Nothing can go to quarantine, so the message itself is kept."""
    assert decide(error("no"), 1, RULE) == Reject(error.__name__)


@pytest.mark.parametrize(
    "error",
    [
        StorageUnavailable,
        OutOfMemory,
        InputChanged,
        BrokerUnavailable,
        ConfigurationError,
        ValueError,
        KeyError,
    ],
)
def test_anything_else_is_tried_again_up_to_the_bound(error: type[Exception]) -> None:
    """Transient errors, bugs and wrong settings are retried, then quarantined."""
    pauses = [decide(error("again"), attempt, RULE) for attempt in (1, 2, 3, 4)]
    assert pauses == [Retry(30.0), Retry(120.0), Retry(120.0), Quarantine(error.__name__)]
