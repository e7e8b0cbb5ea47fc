"""Signals, threads, and the one broad `except`."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import TypeVar

from ctdeface_shared.errors import CtDefaceError, OutOfMemory

Event = TypeVar("Event")
Result = TypeVar("Result")

THREAD_VARIABLES = ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
"""Environment variables that limit the threads of numpy, torch and SimpleITK."""

_log = logging.getLogger(__name__)


def boundary(work: Callable[[], Result]) -> Result | Exception:
    """Run a task and return its result or error.

    Errors of this project are returned as they are, a lack of memory as `OutOfMemory`. Any other
    error is a bug and logged with its traceback. It is for the loops of processes and threads;
    elsewhere errors are caught by class.
    """
    try:
        return work()
    except CtDefaceError as error:
        return error
    except MemoryError:
        return OutOfMemory("not enough memory for this case")
    except Exception as error:  # noqa: BLE001  the one place that catches everything
        _log.error("bug_met", exc_info=error)
        return error


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Provide an event that the first Ctrl-C or SIGTERM sets.

    A second signal has its usual effect. It works only in the main thread, where Python runs signal
    handlers. The earlier handlers are restored after the block.
    """
    stop = threading.Event()
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in earlier.items():
            signal.signal(number, handler)

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        restore()

    for number in earlier:
        signal.signal(number, ask_to_stop)
    try:
        yield stop
    finally:
        restore()


def stop_with_parent() -> None:
    """Stop this process when its standard input ends.

    It is a pipe of the parent process, which is closed even if that is killed by SIGKILL.
    """

    def wait() -> None:
        # Python's buffer is avoided, because its lock would be held when the interpreter ends.
        while os.read(sys.stdin.fileno(), 1):
            continue
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def notify(hooks: Iterable[Callable[[Event], None]], event: Event) -> None:
    """Call every hook with an event; errors of hooks are only logged."""
    for hook in hooks:
        boundary(partial(hook, event))


def threads_per_case(cases: int, wanted: int | None = None) -> int:
    """Return the number of threads of each case.

    Args:
        cases: number of cases processed at the same time.
        wanted: threads per case; None for an equal share of the cores.
    """
    return wanted or max((os.cpu_count() or 1) // cases, 1)


def limit_threads(count: int) -> None:
    """Limit the threads of numeric libraries in later child processes."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(count)))
