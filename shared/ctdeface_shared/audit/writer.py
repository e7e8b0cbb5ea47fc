"""The writer of entries: one chain per running process.

A process continues a chain that an ended process of its machine left, or begins a new one.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Protocol, Self

from ctdeface_shared import logs
from ctdeface_shared.audit.chain import SEGMENT_BYTES, Tail, chains, entries_of, segment_name
from ctdeface_shared.audit.entry import UNSIGNED, CaseEnd, Entry, Outcome
from ctdeface_shared.errors import StorageUnavailable
from ctdeface_shared.settings.sections import AuditSection
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.bounded import DamagedFile, open_regular
from ctdeface_shared.storage.locks import lock_name, locked
from ctdeface_shared.storage.spool import PRIVATE, Spool

CLOCKS_APART_SECONDS = 86_400.0
"""Seconds by which the clocks of two machines may differ.

A segment that was last written so long before a job was submitted has no entry of it.
"""

MOST_UNUSABLE = 32
"""Chains that cannot be continued, after which the folder itself must be corrected."""

_UNUSABLE = (DamagedFile, PermissionError, NotADirectoryError)
"""Errors of one chain, such as a file of another user; the other chains can still be used."""

_log = logs.logger(__name__)


class Signer(Protocol):
    """A private key, as the writer uses it."""

    @property
    def name(self) -> str:
        """Return the key's name, as entries show it."""

    def sign(self, content: bytes) -> bytes:
        """Return the signature of a content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditTarget:
    """The folder of the chains and the signing key.

    Attributes:
        folder: contains one folder per chain.
        locks: contains the lock of each chain in use.
        writer: first part of the names of this machine's chains.
        stale_seconds: age of a lock's last heartbeat after which another machine's chain is free.
        key: signs entries; None leaves them unsigned.
        segment_bytes: size above which a new segment begins.
        now: returns the current time, UTC.
    """

    folder: Path
    locks: Path
    writer: str
    stale_seconds: float
    key: Signer | None = None
    segment_bytes: int = SEGMENT_BYTES
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


@contextmanager
def audit_log(spool: Spool, section: AuditSection, *, stale_seconds: float) -> Iterator["AuditLog"]:
    """Open the audit log of a spool for the block.

    Raises:
        ConfigurationError: the key cannot be used.
    """
    key: Signer | None = None
    if section.key_file is not None:
        from ctdeface_shared.audit.keys import load_private_key

        key = load_private_key(section.key_file)
    writer = section.writer or host_name(socket.gethostname())
    with AuditLog(
        AuditTarget(
            folder=spool.audit,
            locks=spool.locks,
            writer=writer,
            key=key,
            stale_seconds=stale_seconds,
        )
    ) as log:
        yield log


def host_name(given: str) -> str:
    """Return a machine's name as part of a chain's name."""
    allowed = (char if char.isascii() and char.isalnum() else "-" for char in given.lower())
    return "".join(allowed).strip("-")[:63].strip("-") or "host"


@dataclass(slots=True, kw_only=True)
class _Held:
    """The chain that this process writes."""

    folder: Path
    is_ours: Callable[[], bool]
    lock: ExitStack
    tail: Tail


@dataclass(slots=True)
class AuditLog:
    """The audit log of one process.

    Any thread may use it. The first entry locks a chain. A damaged chain is left to
    `ctdeface audit verify`, and the entries go to another one.

    Attributes:
        target: folder and key.
        on_entry: called after each written entry; it must not raise.
    """

    target: AuditTarget
    on_entry: Callable[[Outcome], None] = lambda _: None
    _alone: threading.Lock = field(default_factory=threading.Lock)
    _held: _Held | None = None
    _unusable: set[str] = field(default_factory=set)

    def __enter__(self) -> Self:
        """Return the log, which has no chain yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release the chain for another process."""
        with self._alone:
            self._leave()

    def record(self, end: CaseEnd) -> bool:
        """Write how a case ended, unless it is written already.

        When this returns, the entry is on the disk.

        Returns:
            Whether it was written now.

        Raises:
            StorageUnavailable: it could not be written; nothing is lost, so call again.
        """
        with self._alone, atomic.storage_errors():
            since = datetime.fromisoformat(end.submitted_at).timestamp() - CLOCKS_APART_SECONDS
            for chain in chains(self.target.folder):
                if _is_known(chain, end, since):
                    atomic.sync_tree(chain)  # its writer may have been killed before it did this
                    return False
            self._append_anywhere(end)
        self.on_entry(end.outcome)
        return True

    def _append_anywhere(self, end: CaseEnd) -> None:
        """Append an entry to the first chain that can be continued."""
        while True:
            held = self._held = self._free_chain()
            try:
                held.tail = self._append(held, end)
            except _UNUSABLE as error:
                self._leave()
                self._give_up(held.folder.name, error)
            else:
                return

    def _give_up(self, chain: str, error: Exception) -> None:
        """Leave a damaged chain for good.

        Raises:
            StorageUnavailable: too many chains are damaged.
        """
        _log.error("audit_chain_unusable", code=type(error).__name__)
        self._unusable.add(chain)
        if len(self._unusable) >= MOST_UNUSABLE:
            raise StorageUnavailable(
                f"{MOST_UNUSABLE} chains of the audit log cannot be continued: "
                "give the folder audit to the user of the service"
            )

    def _free_chain(self) -> _Held:
        """Return this process's chain, or lock a free one."""
        if self._held is not None:
            if self._held.is_ours():
                return self._held
            _log.error("audit_chain_lost")
            self._leave()
        for number in count(1):
            name = f"{self.target.writer}.{number}"
            if name in self._unusable:
                continue
            lock = ExitStack()
            try:
                ours = lock.enter_context(
                    locked(
                        self.target.locks,
                        lock_name(f"audit {name}"),
                        stale_seconds=self.target.stale_seconds,
                        wait_seconds=0.0,
                    )
                )
            except StorageUnavailable:
                continue
            folder = self.target.folder / name
            atomic.make_folder(folder, mode=PRIVATE)
            try:
                return _Held(folder=folder, is_ours=ours, lock=lock, tail=_tail_of(folder))
            except _UNUSABLE as error:
                lock.close()
                self._give_up(name, error)
        raise AssertionError  # unreachable: `count` never ends

    def _leave(self) -> None:
        if self._held is not None:
            self._held.lock.close()
            self._held = None

    def _append(self, held: _Held, end: CaseEnd) -> Tail:
        """Append one entry, and return the chain's new end."""
        tail = (
            held.tail
            if held.tail.offset < self.target.segment_bytes
            else replace(held.tail, segment=held.tail.segment + 1, offset=0)
        )
        file = held.folder / segment_name(tail.segment)
        descriptor = open_regular(file, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            tail = replace(tail, torn=b"").over(_content_after(descriptor, tail.offset))
            entry = self._entry(held.folder.name, tail, end)
            _write_all(descriptor, tail.closed[len(tail.torn) :] + entry.line + b"\n")
            os.fsync(descriptor)
            offset = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        if tail.offset == 0:
            atomic.sync_folder(held.folder)
        return Tail(seq=entry.seq, digest=entry.digest, segment=tail.segment, offset=offset)

    def _entry(self, chain: str, tail: Tail, end: CaseEnd) -> Entry:
        entry = Entry(
            chain=chain,
            seq=tail.seq + 1,
            prev=tail.digest,
            torn=tail.torn_digest,
            at=self.target.now().isoformat(timespec="milliseconds"),
            pid=os.getpid(),
            end=end,
            key=self.target.key.name if self.target.key else UNSIGNED,
        )
        return (
            entry.with_signature(self.target.key.sign(entry.signed_content))
            if self.target.key
            else entry
        )


def _is_known(chain: Path, end: CaseEnd, since: float) -> bool:
    """Return whether a chain has an entry of this end; a damaged chain counts as having none.

    A second entry in another chain is harmless, as after a job that was delivered twice.
    """
    known = (end.submission, end.outcome, end.report)
    try:
        return any(
            (entry.end.submission, entry.end.outcome, entry.end.report) == known
            for entry in entries_of(chain, end.job_id, since=since)
        )
    except _UNUSABLE as error:
        _log.warning("audit_chain_not_read", code=type(error).__name__)
        return False


def _tail_of(folder: Path) -> Tail:
    """Return the end of a chain.

    Raises:
        PermissionError: this user may not read or continue it.
        NotADirectoryError: a file has its name.
        DamagedFile: a segment is not a regular file, or too large.
    """
    if not folder.is_dir():
        raise NotADirectoryError(folder.name)
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(folder.name)  # a listing of the segments would be empty
    return Tail.of(folder)


def _content_after(descriptor: int, offset: int) -> bytes:
    """Return what an interrupted write left after an offset."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size - offset, offset) if size > offset else b""


def _write_all(descriptor: int, content: bytes) -> None:
    written = 0
    while written < len(content):
        written += os.write(descriptor, content[written:])
