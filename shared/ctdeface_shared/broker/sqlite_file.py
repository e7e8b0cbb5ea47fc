"""The file of the embedded queue: schema, opening and errors."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ctdeface_shared.errors import BrokerUnavailable, ConfigurationError
from ctdeface_shared.storage.file_systems import require_local

_LAYOUT = 1
_BUSY_SECONDS = 10.0
_SCHEMA = """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    body BLOB NOT NULL,
    made INTEGER NOT NULL DEFAULT 0,       -- written by earlier versions
    delivered INTEGER NOT NULL DEFAULT 0,  -- deliveries since then
    due REAL NOT NULL,                     -- seconds since the epoch
    lease TEXT,
    lease_end REAL NOT NULL DEFAULT 0,
    trace TEXT                             -- traceparent of the sender
) STRICT;
CREATE INDEX jobs_due ON jobs (due);
CREATE TABLE dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    body BLOB NOT NULL,
    code TEXT NOT NULL
) STRICT;
"""
"""Files of earlier versions have a further table `events`, which is not used."""


def open_file(file: Path) -> sqlite3.Connection:
    """Open the file with full durability; create it if missing.

    Raises:
        ConfigurationError: the file is not a ctdeface queue, cannot be created, or is on a network
            file system.
        BrokerUnavailable: it is locked for too long, or the disk is full.
    """
    require_local(file.parent)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Messages name cases, so the file is for the owner only; SQLite's other files follow it.
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        database = sqlite3.connect(file, isolation_level=None, timeout=_BUSY_SECONDS)
        layout = _prepare(database)
    except OSError as error:
        raise ConfigurationError(
            f"the queue {file} cannot be created: {error.strerror}; "
            "correct the folder or set broker.url to another file"
        ) from error
    except sqlite3.OperationalError as error:
        raise BrokerUnavailable(f"the queue {file} cannot be opened right now: {error}") from error
    except sqlite3.Error as error:
        raise ConfigurationError(
            f"{file} is not a ctdeface queue ({error}): set broker.url to another file, "
            "or move this one away"
        ) from error
    if layout != _LAYOUT:
        raise ConfigurationError(
            f"{file} has layout {layout}, and this version of ctdeface needs layout {_LAYOUT}: "
            "finish its jobs with the version that created it, then move the file away"
        )
    return database


def _prepare(database: sqlite3.Connection) -> int:
    """Create or upgrade the tables; return the layout's number."""
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    with closing(database.cursor()) as cursor:
        cursor.execute("BEGIN IMMEDIATE")
        layout = int(cursor.execute("PRAGMA user_version").fetchone()[0])
        if layout == 0:
            for statement in _SCHEMA.split(";")[:-1]:
                cursor.execute(statement)
            cursor.execute(f"PRAGMA user_version = {_LAYOUT}")
            layout = _LAYOUT
        elif layout == _LAYOUT:
            columns = {row[1] for row in cursor.execute("PRAGMA table_info(jobs)")}
            if "trace" not in columns:  # from before there were traces; older programs ignore it
                cursor.execute("ALTER TABLE jobs ADD COLUMN trace TEXT")
        cursor.execute("COMMIT")
    return layout


@contextmanager
def errors_named() -> Iterator[None]:
    """Turn SQLite's errors into `BrokerUnavailable`."""
    try:
        yield
    except sqlite3.Error as error:
        raise BrokerUnavailable(f"the queue's file cannot be used right now: {error}") from error
