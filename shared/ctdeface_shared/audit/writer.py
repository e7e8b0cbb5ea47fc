"""Writes entries: each process holds a chain of its own, and goes on with one that an ended process of its machine has left."""

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
from ctdeface_shared.storage.locks import lock_name, locked
from ctdeface_shared.storage.spool import PRIVATE, Spool

CLOCKS_APART_SECONDS = 86_400.0
"""A segment that was last written so long before a job was submitted says nothing about it."""

_log = logs.logger(__name__)


class Signer(Protocol):
    """What is asked of a private key."""

    @property
    def name(self) -> str:
        """What entries call it."""

    def sign(self, content: bytes) -> bytes:
        """Return the signature of a content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditTarget:
    """Where entries are written and who signs them.

    Attributes:
        folder: holds a folder per chain.
        locks: holds the lock of each chain that is in use.
        writer: begin of the names of this machine's chains.
        key: signs; None leaves entries unsigned.
        stale_seconds: after which a chain of another machine that nobody touched counts as left.
        segment_bytes: a segment that is larger gets a successor.
        now: the present time, UTC.
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
    """Write into the spool's audit folder for the time of the block.

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
    """Return a machine's name as chains may be called."""
    kept = "".join(
        sign if sign.isascii() and sign.isalnum() else "-" for sign in given.lower()
    ).strip("-")
    return kept[:63].strip("-") or "host"


@dataclass(slots=True, kw_only=True)
class _Held:
    """The chain that this process writes."""

    folder: Path
    is_ours: Callable[[], bool]
    lock: ExitStack
    tail: Tail


@dataclass(slots=True)
class AuditLog:
    """Appends entries, from any thread of one process; begins to hold a chain with its first entry.

    Attributes:
        target: where and with which key.
        heard: told about each entry that was written; never raises.
    """

    target: AuditTarget
    heard: Callable[[Outcome], None] = lambda _: None
    _alone: threading.Lock = field(default_factory=threading.Lock)
    _held: _Held | None = None

    def __enter__(self) -> Self:
        """Begin without a chain."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the chain to another process."""
        with self._alone:
            self._leave()

    def record(self, end: CaseEnd) -> bool:
        """Write how a case ended, unless that has been written already; it is on the disk when this returns.

        Returns:
            Whether it was written now.

        Raises:
            StorageUnavailable: it could not be written; nothing is lost, and it can be repeated.
        """
        with self._alone, atomic.storage_errors():
            since = datetime.fromisoformat(end.submitted_at).timestamp() - CLOCKS_APART_SECONDS
            for chain in chains(self.target.folder):
                known = [entry.end for entry in entries_of(chain, end.job_id, since=since)]
                if any(
                    (other.submission, other.outcome, other.report)
                    == (end.submission, end.outcome, end.report)
                    for other in known
                ):
                    atomic.sync_tree(chain)  # whoever wrote it may have been killed before this
                    return False
            held = self._held = self._holding()
            held.tail = self._append(held, end)
        self.heard(end.outcome)
        return True

    def _holding(self) -> _Held:
        """Return a chain that nobody else writes: ours as long as it is, else the first that is free."""
        if self._held is not None:
            if self._held.is_ours():
                return self._held
            _log.error("audit_chain_lost")
            self._leave()
        for number in count(1):
            name = f"{self.target.writer}.{number}"
            lock = ExitStack()
            try:
                ours = lock.enter_context(
                    locked(
                        self.target.locks,
                        lock_name(f"audit {name}"),
                        stale_seconds=self.target.stale_seconds,
                        patience_seconds=0.0,
                    )
                )
            except StorageUnavailable:
                continue
            folder = self.target.folder / name
            atomic.make_folder(folder, mode=PRIVATE)
            return _Held(folder=folder, is_ours=ours, lock=lock, tail=Tail.of(folder))
        raise AssertionError  # numbers do not end

    def _leave(self) -> None:
        if self._held is not None:
            self._held.lock.close()
            self._held = None

    def _append(self, held: _Held, end: CaseEnd) -> Tail:
        """Write one entry behind the last one and return where the chain ends now."""
        tail = (
            held.tail
            if held.tail.offset < self.target.segment_bytes
            else replace(held.tail, segment=held.tail.segment + 1, offset=0)
        )
        file = held.folder / segment_name(tail.segment)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            tail = replace(tail, torn=b"").over(_behind(descriptor, tail.offset))
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


def _behind(descriptor: int, offset: int) -> bytes:
    """Read what stands behind an offset: nothing, unless a write was broken off."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size - offset, offset) if size > offset else b""


def _write_all(descriptor: int, content: bytes) -> None:
    written = 0
    while written < len(content):
        written += os.write(descriptor, content[written:])
