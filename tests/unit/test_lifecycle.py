"""How processes end: errors as values and a clean stop."""

import logging
import os
import signal

import pytest

from ctdeface_shared.errors import MissingSlices, OutOfMemory
from ctdeface_shared.lifecycle import boundary, stop_on_signals


def _fail(error: BaseException) -> int:
    raise error


def test_the_boundary_passes_results_through() -> None:
    """A task that works returns what it returns."""
    assert boundary(lambda: 7) == 7


def test_the_boundary_returns_known_errors_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    """An error of the project is a value to settle by, and no bug to log."""
    error = MissingSlices("a gap")
    assert boundary(lambda: _fail(error)) is error
    assert not caplog.records


def test_a_lack_of_memory_is_transient() -> None:
    """MemoryError becomes the project's own error, which is worth another attempt."""
    assert isinstance(boundary(lambda: _fail(MemoryError())), OutOfMemory)


def test_the_boundary_logs_bugs_and_lives_on(caplog: pytest.LogCaptureFixture) -> None:
    """Anything unexpected is logged with its traceback and returned."""
    with caplog.at_level(logging.ERROR):
        assert isinstance(boundary(lambda: _fail(ZeroDivisionError())), ZeroDivisionError)
    assert [record.message for record in caplog.records] == ["bug_met"]
    assert caplog.records[0].exc_info


def test_the_boundary_lets_ctrl_c_through() -> None:
    """A person who stops the process is not an error of a case."""
    with pytest.raises(KeyboardInterrupt):
        boundary(lambda: _fail(KeyboardInterrupt()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_to_stop(number: signal.Signals) -> None:
    """A signal sets the event instead of ending the process, and the earlier handlers come back."""
    earlier = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert stop.wait(5)
    assert signal.getsignal(number) is earlier


def test_the_second_ctrl_c_ends_at_once() -> None:
    """Who presses Ctrl-C twice does not want to wait."""
    inherited = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell starts what runs in the background without it
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(5)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, inherited)
