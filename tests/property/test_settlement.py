"""The rule of settlement over everything that can happen."""

from hypothesis import given
from hypothesis import strategies as st

from ctdeface_shared import errors
from ctdeface_shared.broker.settlement import Ack, Quarantine, Reject, Retry, RetryRule, decide

CLASSES = [
    each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)
]
ERRORS = st.sampled_from([*CLASSES, ValueError, OSError, MemoryError, RecursionError]).map(
    lambda kind: kind("said")
)
RULES = st.builds(
    RetryRule,
    max_attempts=st.integers(1, 20),
    delays_seconds=st.lists(st.floats(0.001, 3600), min_size=1, max_size=5).map(sorted),
)


@given(error=st.none() | ERRORS, attempt=st.integers(1, 100), rule=RULES)
def test_every_outcome_has_a_settlement_and_only_success_is_silent(
    error: Exception | None, attempt: int, rule: RetryRule
) -> None:
    """There are four decisions, and a failure is never just acknowledged."""
    decision = decide(error, attempt, rule)
    assert isinstance(decision, Ack | Retry | Reject | Quarantine)
    assert isinstance(decision, Ack) == (error is None)


@given(error=ERRORS, rule=RULES)
def test_no_error_is_retried_for_ever(error: Exception, rule: RetryRule) -> None:
    """Following the decisions, a job that always fails ends after at most the allowed attempts."""
    made = 0
    for attempt in range(1, rule.max_attempts + 1):
        made = attempt
        if not isinstance(decide(error, attempt, rule), Retry):
            break
    assert not isinstance(decide(error, made, rule), Retry)
    assert all(
        not isinstance(decide(error, later, rule), Retry)
        for later in range(rule.max_attempts, rule.max_attempts + 50)
    )


@given(error=ERRORS, attempt=st.integers(1, 100), rule=RULES)
def test_a_pause_is_one_of_those_that_have_a_queue(
    error: Exception, attempt: int, rule: RetryRule
) -> None:
    """Retry delays are the configured ones and never decrease."""
    decision = decide(error, attempt, rule)
    if isinstance(decision, Retry):
        assert decision.delay_seconds in rule.delays_seconds
        assert decision.delay_seconds >= rule.delay_after(attempt - 1)


@given(attempt=st.integers(1, 100), rule=RULES)
def test_what_is_permanent_is_never_tried_again(attempt: int, rule: RetryRule) -> None:
    """No permanent error, and none of its subclasses, leads to a retry at any attempt."""
    permanent = [kind for kind in CLASSES if issubclass(kind, errors.PermanentError)]
    assert not [
        kind for kind in permanent if isinstance(decide(kind("said"), attempt, rule), Retry | Ack)
    ]
