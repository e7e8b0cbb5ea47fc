"""The file of the embedded queue: its layout, how it is opened, and what its errors mean."""

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
    made INTEGER NOT NULL DEFAULT 0,       -- attempts that ended in a retry
    delivered INTEGER NOT NULL DEFAULT 0,  -- deliveries since then
    due REAL NOT NULL,                     -- seconds since the epoch
    lease TEXT,
    lease_end REAL NOT NULL DEFAULT 0,
    trace TEXT                             -- traceparent of the sender
) STRICT;
CREATE INDEX jobs_due ON jobs (due);
CREATE TABLE dead (id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL, code TEXT NOT NULL) STRICT;
CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL) STRICT;
"""


def open_file(file: Path) -> sqlite3.Connection:
    """Open the file, making it and its folder if they are missing, with full durability.

    Raises:
        ConfigurationError: the file is no queue of ours, cannot be made, or lies on a network file
            system.
        BrokerUnavailable: it is locked for too long, or the disk is full.
    """
    require_local(file.parent)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(
            os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        )  # messages name cases: for the owner only; SQLite's other files follow
        database = sqlite3.connect(file, isolation_level=None, timeout=_BUSY_SECONDS)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        with closing(database.cursor()) as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            layout = cursor.execute("PRAGMA user_version").fetchone()[0]
            if layout == 0:
                for statement in _SCHEMA.split(";")[:-1]:
                    cursor.execute(statement)
                cursor.execute(f"PRAGMA user_version = {_LAYOUT}")
            elif layout == _LAYOUT and "trace" not in {
                row[1] for row in cursor.execute("PRAGMA table_info(jobs)")
            }:
                cursor.execute(
                    "ALTER TABLE jobs ADD COLUMN trace TEXT"
                )  # made before there were traces; older programs take no notice
            cursor.execute("COMMIT")
    except OSError as error:
        raise ConfigurationError(f"the queue {file} cannot be made: {error.strerror}") from error
    except sqlite3.OperationalError as error:
        raise BrokerUnavailable(f"the queue {file} cannot be opened right now: {error}") from error
    except sqlite3.Error as error:
        raise ConfigurationError(
            f"{file} cannot be used as a queue ({error}): name another file, or move this one away"
        ) from error
    if layout not in {0, _LAYOUT}:
        raise ConfigurationError(
            f"{file} was made by another version of ctdeface: finish its jobs with that version, then move the file away"
        )
    return database


@contextmanager
def errors_named() -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise BrokerUnavailable(f"the queue's file cannot be used right now: {error}") from error
