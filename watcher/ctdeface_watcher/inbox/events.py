"""Waiting for file events or the next scan.

Events are hints. The next scan finds what they miss (an overflow, a network mount, an inbox that
was recreated). Only the folders above the cases are watched, so the number of the kernel's watches
does not grow with the number of cases. This is the only module that imports watchdog.
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
"""Time between two attempts to watch after the kernel refused it."""
_READS = frozenset({"opened", "closed_no_write"})

_log = logs.logger(__name__)


class Wakeups(Protocol):
    """A way to wait for changes in the inbox."""

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Wait for an event, the stop or the end of the time.

        Args:
            seconds: longest time to wait.
            stop: ends the wait when set.

        Returns:
            Whether there was an event.
        """

    def close(self) -> None:
        """Stop watching."""


class Polling:
    """Waits for time to pass, without events."""

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Wait until the time is over or the stop is set."""
        stop.wait(seconds)
        return False

    def close(self) -> None:
        """Do nothing."""


class Inotify(FileSystemEventHandler):
    """Waits for the kernel's events above the cases.

    It watches again when one of them was missing or has been replaced.
    """

    def __init__(self, root: Path, depth: int) -> None:
        """Watch a folder and the folders below it, except cases.

        Args:
            root: the inbox; it need not exist yet.
            depth: level of the cases.
        """
        self._root, self._depth = root, depth
        self._event = threading.Event()
        self._observer: BaseObserver | None = None
        self._folders: dict[Path, tuple[int, int]] = {}
        self._refused_at: float | None = None
        self._update_watches()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Remember an event, unless it is only a read."""
        if event.event_type not in _READS:
            self._event.set()

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Wait for an event, the stop or the end of the time.

        Args:
            seconds: longest time to wait.
            stop: ends the wait when set.

        Returns:
            Whether there was an event.
        """
        self._update_watches()
        waited = 0.0
        while waited < seconds and not stop.is_set() and not self._event.wait(TICK_SECONDS):
            waited += TICK_SECONDS
        happened = self._event.is_set()
        self._event.clear()
        return happened

    def close(self) -> None:
        """Stop watching."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None

    def _update_watches(self) -> None:
        """Watch the folders that exist now.

        If the kernel gives no more watches, only time ends a wait.
        """
        folders = _folders_to_watch(self._root, self._depth)
        if self._is_watching(folders) or (
            self._refused_at is not None and monotonic() - self._refused_at < RETRY_SECONDS
        ):
            return
        self.close()
        self._folders = folders
        try:
            self._observer = Observer()
            self._observer.start()
            for folder in folders:
                self._observer.schedule(self, str(folder), recursive=False)
        except OSError as error:
            if self._refused_at is None:
                _log.warning(
                    "events_unavailable", code=errno.errorcode.get(error.errno or 0, "unknown")
                )
            self._refused_at = monotonic()
            self.close()
        else:
            self._refused_at = None

    def _is_watching(self, folders: dict[Path, tuple[int, int]]) -> bool:
        """Return True if exactly these folders are watched."""
        if folders != self._folders or self._observer is None:
            return not folders and self._observer is None
        return all(emitter.is_alive() for emitter in self._observer.emitters)


def wakeups(root: Path, *, polling: bool, depth: int = 1) -> Wakeups:
    """Return how to wait for changes in an inbox.

    Args:
        root: the inbox.
        polling: whether to use no events.
        depth: level of the cases.
    """
    return Polling() if polling else Inotify(root, depth)


def _folders_to_watch(root: Path, depth: int) -> dict[Path, tuple[int, int]]:
    """Return device and inode of each folder above cases.

    Folders that this user may not read are left out: the kernel refuses to watch them.
    """
    folders: dict[Path, tuple[int, int]] = {}
    with suppress(OSError):  # the inbox is missing, or was removed during the walk
        for folder in parent_folders(root, depth):
            status = folder.stat()
            if os.access(folder, os.R_OK):
                folders[folder] = (status.st_dev, status.st_ino)
    return folders
