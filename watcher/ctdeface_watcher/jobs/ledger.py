"""The ledger: which jobs the watcher published, and how they ended.

A SQLite file in the state folder. It is a cache: inbox and reports hold the truth, and an empty
ledger is filled from them (`rebuild_ledger`). A damaged file is set aside.
"""

import os
import sqlite3
import stat
from collections.abc import Collection, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ctdeface_shared import logs
from ctdeface_shared.errors import StorageUnavailable
from ctdeface_shared.storage.file_systems import require_local

_TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    job_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    generation INTEGER NOT NULL,
    published_at REAL NOT NULL,
    closed TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS kept (entry TEXT PRIMARY KEY, stats TEXT NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS jobs_of_case ON jobs (name);
CREATE INDEX IF NOT EXISTS open_jobs ON jobs (closed, published_at);
"""

_COLUMNS = {
    "jobs": ["job_id", "name", "digest", "generation", "published_at", "closed"],
    "kept": ["entry", "stats"],
}

CLOSED_KEPT = 10_000
"""Maximum number of ended jobs; older ones are found in their reports."""

_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A published job.

    Attributes:
        job_id: id of the job.
        case: name of its case.
        digest: digest of the manifest.
        generation: 0 for a drop, higher for a replay.
        published_at: seconds since the epoch.
        closed: state of its report when it ended; None while it is open.
    """

    job_id: str
    case: str
    digest: str
    generation: int
    published_at: float
    closed: str | None = None


class Ledger:
    """The file; usable in one thread only."""

    def __init__(self, folder: Path) -> None:
        """Open the ledger in a folder, or start a new one.

        Raises:
            ConfigurationError: the folder is on a network file system.
            StorageUnavailable: the file cannot be opened.
        """
        require_local(folder)
        self._file = folder / "ledger.sqlite3"
        self._is_damaged = False
        self._unwritten: list[Entry] = []
        self._connection = self._opened()

    def __enter__(self) -> Self:
        """Return the open ledger."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._connection.close()

    def replace_damaged(self) -> bool:
        """Start a new ledger if the last use found damage.

        Returns:
            Whether it is new.

        Raises:
            StorageUnavailable: the new file cannot be opened.
        """
        if not self._is_damaged:
            return False
        self._connection.close()
        self._set_aside()
        self._connection = self._opened()
        self._is_damaged = False
        return True

    def record_published(self, entry: Entry) -> None:
        """Add a job that the queue has confirmed.

        While the file cannot be written, the job is kept in memory until `write_recorded`.
        """
        try:
            self.add(entry)
        except StorageUnavailable:
            self._unwritten.append(entry)

    def write_recorded(self) -> None:
        """Write the jobs that could not be written before.

        Raises:
            StorageUnavailable: they still cannot be written.
        """
        while self._unwritten:
            self.add(self._unwritten[0])
            del self._unwritten[0]

    def add(self, entry: Entry) -> None:
        """Add a job; a known one stays unchanged.

        Raises:
            StorageUnavailable: it could not be written.
        """
        values = (
            entry.job_id,
            entry.case,
            entry.digest,
            entry.generation,
            entry.published_at,
            entry.closed,
        )
        self._run("INSERT OR IGNORE INTO jobs VALUES (?, ?, ?, ?, ?, ?)", values)

    def close_job(self, job_id: str, state: str) -> None:
        """Record how a job ended.

        Raises:
            StorageUnavailable: it could not be written.
        """
        self._run("UPDATE jobs SET closed = ? WHERE job_id = ? AND closed IS NULL", (state, job_id))

    def remove_job(self, job_id: str) -> None:
        """Remove a job, as if it had never been published.

        Raises:
            StorageUnavailable: it could not be written.
        """
        self._run("DELETE FROM jobs WHERE job_id = ?", (job_id,))

    def trim(self, kept: int = CLOSED_KEPT) -> None:
        """Remove the oldest ended jobs to limit the file's size.

        Args:
            kept: number of the newest that stay, at least 1: an empty file means a loss.

        Raises:
            StorageUnavailable: it could not be written.
        """
        self._run(
            "DELETE FROM jobs WHERE closed IS NOT NULL AND published_at < ("
            "SELECT published_at FROM jobs WHERE closed IS NOT NULL "
            "ORDER BY published_at DESC LIMIT 1 OFFSET ?)",
            (max(kept, 1) - 1,),
        )

    def open_jobs(self) -> tuple[Entry, ...]:
        """Return the jobs that have not ended, oldest first.

        Raises:
            StorageUnavailable: the file cannot be read.
        """
        return tuple(self._entries("SELECT * FROM jobs WHERE closed IS NULL ORDER BY published_at"))

    def count_open(self) -> int:
        """Return the number of jobs that have not ended.

        Raises:
            StorageUnavailable: the file cannot be read.
        """
        written = int(self._rows("SELECT COUNT(*) FROM jobs WHERE closed IS NULL")[0][0])
        return written + len(self._unwritten)

    def of_case(self, case: str) -> tuple[Entry, ...]:
        """Return every job of a case, oldest first.

        Raises:
            StorageUnavailable: the file cannot be read.
        """
        written = self._entries("SELECT * FROM jobs WHERE name = ? ORDER BY published_at", (case,))
        return (*written, *(entry for entry in self._unwritten if entry.case == case))

    def add_kept(self, entry: str, stats: str) -> None:
        """Record that a case was processed which is still in the inbox.

        Args:
            entry: its name in the inbox.
            stats: `digest_of_stats`, which changes with the case.

        Raises:
            StorageUnavailable: it could not be written.
        """
        printable = entry.encode("utf-8", "backslashreplace").decode()
        self._run("INSERT OR REPLACE INTO kept VALUES (?, ?)", (printable, stats))

    def trim_kept(self, present: Collection[str], spare: int = CLOSED_KEPT) -> None:
        """Forget cases that are no longer in the inbox.

        Args:
            present: names in the inbox.
            spare: number of the newest that stay: an inbox that is not mounted looks empty.

        Raises:
            StorageUnavailable: it could not be written.
        """
        names = {name.encode("utf-8", "backslashreplace").decode() for name in present}
        for (entry,) in self._rows("SELECT entry FROM kept ORDER BY rowid DESC")[spare:]:
            if entry not in names:
                self._run("DELETE FROM kept WHERE entry = ?", (entry,))

    def has_kept(self, entry: str, stats: str) -> bool:
        """Return True if a case that is still in the inbox was processed as it is.

        Raises:
            StorageUnavailable: the file cannot be read.
        """
        printable = entry.encode("utf-8", "backslashreplace").decode()
        query = "SELECT 1 FROM kept WHERE entry = ? AND stats = ?"
        return bool(self._rows(query, (printable, stats)))

    def has(self, job_id: str) -> bool:
        """Return True if a job is known, also if it could not be written yet.

        Raises:
            StorageUnavailable: the file cannot be read.
        """
        written = self._rows("SELECT 1 FROM jobs WHERE job_id = ? AND closed IS NULL", (job_id,))
        return bool(written) or any(entry.job_id == job_id for entry in self._unwritten)

    def is_empty(self) -> bool:
        """Return True if no job is known, as after a loss.

        Raises:
            StorageUnavailable: the file cannot be read.
        """
        return not any(self._entries("SELECT * FROM jobs LIMIT 1"))

    def _entries(self, query: str, values: tuple[str, ...] = ()) -> Iterator[Entry]:
        for job_id, case, digest, generation, published_at, closed in self._rows(query, values):
            yield Entry(
                job_id=job_id,
                case=case,
                digest=digest,
                generation=generation,
                published_at=published_at,
                closed=closed,
            )

    def _rows(self, query: str, values: tuple[str, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            with closing(self._connection.execute(query, values)) as cursor:
                return cursor.fetchall()
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def _run(self, statement: str, values: tuple[str | float | None, ...]) -> None:
        try:
            self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: sqlite3.Error) -> StorageUnavailable:
        self._is_damaged = self._is_damaged or _means_damage(error)
        return StorageUnavailable(f"the ledger {self._file} cannot be used: {error}")

    def _opened(self) -> sqlite3.Connection:
        try:
            if os.path.lexists(self._file) and not _is_regular(self._file):
                self._set_aside()
            with suppress(OSError):  # SQLite then reports the same error
                # For the owner only, as it names cases; SQLite's other files get the same mode.
                self._file.touch(mode=0o600)
            connection = sqlite3.connect(self._file, isolation_level=None)
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        try:
            (whole,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if whole != "ok":
                raise sqlite3.DatabaseError(whole)
            connection.execute("PRAGMA journal_mode = WAL")
            # Entries lost in a power cut are found in inbox and reports.
            connection.execute("PRAGMA synchronous = NORMAL")
            _require_columns(connection)
            connection.executescript(_TABLE)
        except sqlite3.Error as error:
            connection.close()
            if not _means_damage(error):
                raise self._unavailable(error) from error
            self._set_aside()
            return self._opened()
        return connection

    def _set_aside(self) -> None:
        """Rename a damaged file.

        Inbox and reports hold what it recorded.
        """
        number = next(
            number
            for number in count(1)
            if not os.path.lexists(self._file.with_name(f"{self._file.name}.damaged-{number}"))
        )
        _log.error("ledger_damaged")
        self._file.rename(self._file.with_name(f"{self._file.name}.damaged-{number}"))
        for ending in ("-wal", "-shm"):
            self._file.with_name(self._file.name + ending).unlink(missing_ok=True)


def _is_regular(file: Path) -> bool:
    return stat.S_ISREG(file.lstat().st_mode)


def _require_columns(connection: sqlite3.Connection) -> None:
    """Check that tables that exist are those of this program.

    Raises:
        sqlite3.DatabaseError: a table has other columns.
    """
    for table, columns in _COLUMNS.items():
        found = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        if found and found != columns:
            raise sqlite3.DatabaseError(f"the table {table} has other columns")


def _means_damage(error: sqlite3.Error) -> bool:
    """Return True if the file is not a database, or is broken.

    SQLite has no exception class of its own for that.
    """
    return type(error) is sqlite3.DatabaseError
