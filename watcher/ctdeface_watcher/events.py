"""What wakes the watcher up: file events where there are any, and the passing of time always. Only this module knows watchdog.

Events are hints. Whatever is lost (an overflow, a network mount, an inbox made anew) is found by the next scan.
"""

import threading
from pathlib import Path
from typing import Protocol

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

TICK_SECONDS = 0.2
_READS = frozenset({"opened", "closed_no_write"})


class Wakeups(Protocol):
    """Where the watcher waits."""

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Wait for an event, the stop or the end of the time; return whether there was an event."""

    def close(self) -> None:
        """Stop listening."""


class Polling:
    """Nothing but time passes, as on network mounts."""

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Wait until the time is over or the stop is set."""
        stop.wait(seconds)
        return False

    def close(self) -> None:
        """There is nothing to stop."""


class Inotify(FileSystemEventHandler):
    """Events of the kernel for everything below a folder; listens anew when the folder has been replaced or was missing."""

    def __init__(self, root: Path) -> None:
        """Listen below a folder, which need not be there yet."""
        self._root = root
        self._event = threading.Event()
        self._observer = Observer()
        self._identity: tuple[int, int] | None = None
        self._listen()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Remember that something happened; reading, which the watcher does itself, does not count."""
        if event.event_type not in _READS:
            self._event.set()

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Wait for an event, the stop or the end of the time; return whether there was an event."""
        self._listen()
        waited = 0.0
        while waited < seconds and not stop.is_set() and not self._event.wait(TICK_SECONDS):
            waited += TICK_SECONDS
        happened = self._event.is_set()
        self._event.clear()
        return happened

    def close(self) -> None:
        """Stop listening."""
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()

    def _listen(self) -> None:
        """Follow the folder that now has the name. Where the kernel gives no more watches, time alone wakes the watcher up."""
        identity = _identity(self._root)
        if identity == self._identity and (identity is None or self._observer.is_alive()):
            return
        self.close()
        self._observer, self._identity = Observer(), None
        if identity is None:
            return
        try:
            self._observer.schedule(self, str(self._root), recursive=True)
            self._observer.start()
        except OSError:
            return
        self._identity = identity


def wakeups(root: Path, *, polling: bool) -> Wakeups:
    """Listen to an inbox."""
    return Polling() if polling else Inotify(root)


def _identity(root: Path) -> tuple[int, int] | None:
    try:
        status = root.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
