"""A real overflow of the kernel's event queue."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ctdeface_shared.broker.sqlite import SqliteBroker
from ctdeface_shared.storage.spool import ServiceSpool
from tests.support.service.watcher import fill, wait_for

LIMIT = Path("/proc/sys/fs/inotify/max_queued_events")
IN_ALL_EVENTS, IN_Q_OVERFLOW, IN_NONBLOCK = 0xFFF, 0x4000, 0o4000
HEADER_BYTES = 16
ENVIRONMENT = {
    "CTDEFACE_WATCH__QUIET_PERIOD": "0.5",
    "CTDEFACE_WATCH__RESCAN_INTERVAL": "1",
    "CTDEFACE_OUTPUT__MIN_FREE_GB": "0",
}


def test_events_that_the_kernel_dropped_cost_no_case(tmp_path: Path) -> None:
    """The process is frozen until its queue is full; the next scan finds every case."""
    spool = ServiceSpool.under(tmp_path)
    spool.prepare_inbox(moves_originals=False)
    queue = tmp_path / "queue.sqlite3"
    command = [
        sys.executable,
        "-m",
        "ctdeface_shared",
        "watch",
        "--spool",
        str(tmp_path),
        "--broker",
        f"sqlite:///{queue}",
    ]
    with unread_listener(spool.inbox) as overflowed, closing(SqliteBroker(queue)) as broker:
        process = subprocess.Popen(command, env={**os.environ, **ENVIRONMENT})
        try:
            fill(spool.inbox / "before")
            wait_for(lambda: broker.depth().ready == 1, seconds=60.0)
            process.send_signal(signal.SIGSTOP)
            for number in range(int(LIMIT.read_text(encoding="ascii")) // 2 + 1):
                file = spool.inbox / f".{number % 2}"
                file.touch()
                file.unlink()
            fill(spool.inbox / "one")
            fill(spool.inbox / "two")
            assert overflowed()
            process.send_signal(signal.SIGCONT)
            wait_for(lambda: broker.depth().ready == 3, seconds=60.0)
            time.sleep(2.0)
            assert broker.depth().ready == 3
            process.terminate()
            assert process.wait() == 0
        finally:
            process.kill()
            process.wait()


@contextmanager
def unread_listener(folder: Path) -> Iterator[Callable[[], bool]]:
    """Watch a folder without reading events.

    The returned function reads them all and returns whether the queue had overflowed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(IN_NONBLOCK)
    assert libc.inotify_add_watch(descriptor, os.fsencode(folder), IN_ALL_EVENTS) > 0

    def overflowed() -> bool:
        found = False
        while True:
            try:
                events = os.read(descriptor, 1 << 16)
            except BlockingIOError:
                return found
            while events:
                mask, length = (
                    int.from_bytes(events[at : at + 4], sys.byteorder) for at in (4, 12)
                )
                found |= bool(mask & IN_Q_OVERFLOW)
                events = events[HEADER_BYTES + length :]

    try:
        yield overflowed
    finally:
        os.close(descriptor)
