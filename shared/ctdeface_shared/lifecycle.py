"""How a process lives and ends: stopping on signals, and the one place that catches whatever a task throws."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import ParamSpec, TypeVar

from ctdeface_shared.errors import CtDefaceError, OutOfMemory

Event = TypeVar("Event")
Given = ParamSpec("Given")
Result = TypeVar("Result")

THREAD_VARIABLES = ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
"""Environment variables that limit the threads of numpy, torch and SimpleITK."""

_log = logging.getLogger(__name__)


def boundary(work: Callable[[], Result]) -> Result | Exception:
    """Run one task and return its result, or its error as a value, so that the loop around it decides what follows.

    Errors of this project come back as they are, a lack of memory as `OutOfMemory`; anything else
    is a bug, which is logged with its traceback. Used at each process's outermost loop; everywhere
    else errors are caught by name.
    """
    try:
        return work()
    except CtDefaceError as error:
        return error
    except MemoryError:
        return OutOfMemory("not enough memory for this case")
    except Exception as error:
        _log.error("bug_met", exc_info=error)
        return error


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Give an event that the first Ctrl-C or SIGTERM sets; a second signal acts as if nothing had been arranged.

    Works in the main thread only, where Python runs signal handlers. The earlier handlers are back
    after the block.
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
    """Ask this process to stop when its standard input ends: a pipe of the parent's, which even SIGKILL makes it let go."""

    def wait() -> None:
        while os.read(
            sys.stdin.fileno(), 1
        ):  # not through Python's buffer, whose lock would be held when the interpreter ends
            continue
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def never_raises(callback: Callable[Given, None]) -> Callable[Given, None]:
    """Wrap a callback so that its exceptions are logged instead of raised."""

    def call(*args: Given.args, **named: Given.kwargs) -> None:
        boundary(partial(callback, *args, **named))

    return call


def notify(hooks: Iterable[Callable[[Event], None]], event: Event) -> None:
    """Call every hook with an event; a hook that fails is logged and costs nothing else."""
    for hook in hooks:
        boundary(partial(hook, event))


def threads_per_case(cases: int, wanted: int | None = None) -> int:
    """Return the threads of each case; by default an equal share of the cores.

    Args:
        cases: number of cases processed at the same time.
        wanted: threads per case, None for the share.
    """
    return wanted or max((os.cpu_count() or 1) // cases, 1)


def limit_threads(count: int) -> None:
    """Limit the threads of the numeric libraries in child processes started later."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(count)))
