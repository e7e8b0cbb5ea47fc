"""One case or file that fails is left out, tried again later, and named."""

import pytest

from ctdeface_shared.errors import BrokerUnavailable, InvalidMessage, StorageUnavailable
from ctdeface_shared.status.watcher_state import WatcherState
from ctdeface_shared.storage.skipped import Skipped, attempt
from ctdeface_watcher import skips as module
from ctdeface_watcher.skips import Skips


def fail(error: Exception) -> None:
    """Raise an error."""
    raise error


def test_an_error_of_one_case_is_described() -> None:
    """Known errors with what to do, bugs with a hint to the log."""
    assert attempt("reports", "a", lambda: 1) == 1
    denied = attempt("reports", "a", lambda: fail(PermissionError(13, "Permission denied")))
    assert isinstance(denied, Skipped)
    assert denied.line == (
        "reports/a was left out: it cannot be read or moved (Permission denied): give access, "
        "or remove it"
    )
    refused = attempt("taken", "b", lambda: fail(InvalidMessage("the name is not valid")))
    assert isinstance(refused, Skipped)
    assert refused.reason == "the name is not valid"
    bug = attempt("taken", "c", lambda: fail(OverflowError()))
    assert isinstance(bug, Skipped)
    assert bug.line == "taken/c was left out: an unexpected OverflowError: see the log"


def test_a_failed_case_waits_longer_after_each_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted, and forgotten when it succeeds."""
    now = 100.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    counted: list[str] = []
    skips = Skips(counted.append)
    tried: list[float] = []

    def work() -> bool:
        tried.append(now)
        if len(tried) < 4:
            raise OverflowError
        return True

    for second in range(100, 130):
        now = float(second)
        skips.attempt("taken", "a", work, otherwise=False)
        assert skips.attempt("taken", "b", lambda: True, otherwise=False)
        if len(tried) < 4:
            assert [one.name for one in skips.found] == ["a"]
    assert tried[:4] == [100.0, 102.0, 106.0, 114.0]
    assert counted == ["OverflowError"] * 3
    assert skips.found == ()


@pytest.mark.parametrize("kind", [BrokerUnavailable, StorageUnavailable])
def test_a_failure_that_concerns_all_cases_ends_the_look(kind: type[Exception]) -> None:
    """No case is at fault, and none is left out."""
    skips = Skips()
    with pytest.raises(kind):
        skips.attempt("taken", "a", lambda: fail(kind("lost")), None)
    assert skips.found == ()


def test_what_is_gone_is_forgotten() -> None:
    """A name that comes back is tried immediately."""
    skips = Skips()
    skips.attempt("inbox", "a", lambda: fail(OSError(5, "Input/output error")), None)
    skips.attempt("taken", "a", lambda: fail(OSError(5, "Input/output error")), None)
    skips.keep_only("inbox", lambda _name: False)
    assert [one.place for one in skips.found] == ["taken"]


def test_the_state_of_the_watcher_holds_what_was_left_out() -> None:
    """`ctdeface status` shows it."""
    one = Skipped(place="taken", name="a", reason="damaged", code="DamagedFile")
    assert WatcherState(looked_at="2026-11-28T10:00:00+00:00", skipped=(one,)).skipped == (one,)
