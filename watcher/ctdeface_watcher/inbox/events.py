"""What wakes the watcher up: file events where there are any, and the passing of time always. Only this module knows watchdog.

Events are hints. Whatever is lost (an overflow, a network mount, an inbox made anew) is found by
the next scan. Only the folders above the cases are listened to, so a watcher that runs for months
holds a handful of the kernel's watches, however many cases came and went.
"""

import errno
import os
import threading
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Protocol

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from ctdeface_shared import logs
from ctdeface_shared.storage.case_folders import parent_folders

TICK_SECONDS = 0.2
RETRY_SECONDS = 60.0
"""Until listening is tried again where the kernel refused it."""
_READS = frozenset({"opened", "closed_no_write"})

_log = logs.logger(__name__)


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
    """Events of the kernel for the folders above the cases; listens anew when one of them has been replaced or was missing."""

    def __init__(self, root: Path, depth: int) -> None:
        """Listen to a folder, which need not be there yet, and to those below it down to the cases' parents."""
        self._root, self._depth = root, depth
        self._event = threading.Event()
        self._observer: BaseObserver | None = None
        self._places: dict[Path, tuple[int, int]] = {}
        self._refused_at: float | None = None
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
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None

    def _listen(self) -> None:
        """Follow the folders that now have the names. Where the kernel gives no more watches, time alone wakes the watcher up."""
        places = _folders_to_watch(self._root, self._depth)
        if self._hears(places) or (
            self._refused_at is not None and monotonic() - self._refused_at < RETRY_SECONDS
        ):
            return
        self.close()
        self._places = places
        try:
            self._observer = Observer()
            self._observer.start()
            for place in places:
                self._observer.schedule(self, str(place), recursive=False)
        except OSError as error:
            if self._refused_at is None:
                _log.warning(
                    "events_unavailable", code=errno.errorcode.get(error.errno or 0, "unknown")
                )
            self._refused_at = monotonic()
            self.close()
        else:
            self._refused_at = None

    def _hears(self, places: dict[Path, tuple[int, int]]) -> bool:
        """Whether these very folders are listened to."""
        if places != self._places or self._observer is None:
            return not places and self._observer is None
        return all(emitter.is_alive() for emitter in self._observer.emitters)


def wakeups(root: Path, *, polling: bool, depth: int = 1) -> Wakeups:
    """Listen to an inbox whose cases lie so many levels below it."""
    return Polling() if polling else Inotify(root, depth)


def _folders_to_watch(root: Path, depth: int) -> dict[Path, tuple[int, int]]:
    """Return device and inode of each folder that holds cases, or folders of them.

    Folders that this user may not read are left out: the kernel refuses to watch them.
    """
    folders: dict[Path, tuple[int, int]] = {}
    with suppress(OSError):  # the inbox is missing, or was removed during the walk
        for folder in parent_folders(root, depth):
            status = folder.stat()
            if os.access(folder, os.R_OK):
                folders[folder] = (status.st_dev, status.st_ino)
    return folders
