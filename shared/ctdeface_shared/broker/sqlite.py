"""The embedded queue in a SQLite file.

Several processes of one machine share it.

A delivery is a lease that expires: `tend` renews it, and the lease of a process that hangs runs
out. The lease names its process, so that the job of a process that died is free within a second.
Every change is one IMMEDIATE transaction with full synchronization, so it survives a power cut once
the method has returned.
"""

import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ctdeface_shared.broker.protocols import DeadLetter, Delivery, Depth, Findings
from ctdeface_shared.broker.settlement import Ack, Reject, Requeue, Retry, Settlement
from ctdeface_shared.broker.sqlite_file import errors_named, open_file
from ctdeface_shared.broker.target import BrokerTarget, file_of
from ctdeface_shared.errors import BrokerUnavailable
from ctdeface_shared.jobs.messages import CaseEvent, DefaceJob, encode_job
from ctdeface_shared.storage.process_identity import named_has_ended, short_name
from ctdeface_shared.tracing.spans import traceparent_in

LEASE_SECONDS = 60.0
_PAUSE_SECONDS = 0.1
_CHECK_SECONDS = 1.0
"""Seconds between two checks for leases of dead processes."""


class SqliteBroker:
    """A client of the queue in a file."""

    def __init__(
        self,
        file: Path,
        *,
        lease_seconds: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the file, and create it if it is missing.

        Args:
            file: the database, on a local disk.
            lease_seconds: how long a delivery stays leased without `tend`, which renews it after
                half of this time.
            clock: seconds since the epoch.

        Raises:
            ConfigurationError: the file is not a ctdeface queue, cannot be created, or is on a
                network file system.
            BrokerUnavailable: it is locked for too long, or the disk is full.
        """
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._held: Delivery | None = None
        self._next_check = time.monotonic()
        self._database = open_file(file)

    def publish(self, job: DefaceJob, traceparent: str | None = None) -> None:
        """Add a job, and wait until it is on disk."""
        body = encode_job(job)
        with self._change():
            self._put(body, traceparent)

    def receive(self, wait_seconds: float) -> Delivery | None:
        """Lease the job that became due first, or return None.

        If the file cannot be used, `BrokerUnavailable` is raised only after `wait_seconds`.
        """
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                self._end_leases_of_the_dead()
                if self._anything_due() and (delivery := self._lease()):
                    return delivery
            except BrokerUnavailable:
                time.sleep(max(deadline - time.monotonic(), 0))
                raise
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            time.sleep(min(left, _PAUSE_SECONDS))

    def tend(self, seconds: float) -> bool:
        """Sleep, renewing the lease in time."""
        deadline = time.monotonic() + seconds
        while True:
            kept = self._is_still_leased()
            left = deadline - time.monotonic()
            if left <= 0 or not kept:
                time.sleep(max(left, 0))
                return kept
            time.sleep(min(left, self._lease_seconds / 4))

    def settle(self, delivery: Delivery, settlement: Settlement) -> bool:
        """Settle a delivery; return False if another client leased it."""
        if self._held and self._held.tag == delivery.tag:
            self._held = None
        with self._change():
            if not self._owned(delivery):
                return False
            match settlement:
                case Ack():
                    self._forget(delivery)
                case Retry():
                    due = self._clock() + settlement.delay_seconds
                    self._release(delivery, "delivered = 0, due = ?", due)
                case Requeue():
                    self._release(delivery, "delivered = delivered - 1")
                case Reject():
                    self._database.execute(
                        "INSERT INTO dead (body, code) VALUES (?, ?)",
                        (delivery.body, settlement.code),
                    )
                    self._forget(delivery)
        return True

    def announce(self, event: CaseEvent) -> None:
        """Do nothing: the embedded queue has no subscribers."""

    def depth(self) -> Depth:
        """Count the jobs by state."""
        now = self._clock()
        return Depth(
            ready=self._number(
                "SELECT count(*) FROM jobs WHERE due <= ? AND lease_end <= ?", now, now
            ),
            held=self._number("SELECT count(*) FROM jobs WHERE lease_end > ?", now),
            delayed=self._number(
                "SELECT count(*) FROM jobs WHERE due > ? AND lease_end <= ?", now, now
            ),
            dead=self._number("SELECT count(*) FROM dead"),
        )

    def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """Return the oldest dead letters."""
        with errors_named():
            rows = self._database.execute(
                "SELECT id, body, code FROM dead ORDER BY id LIMIT ?", (limit,)
            ).fetchall()
        return [DeadLetter(tag=str(number), body=body, code=code) for number, body, code in rows]

    def requeue(self, tag: str, body: bytes | None = None) -> bool:
        """Requeue a dead letter as a first attempt."""
        with self._change():
            row = self._database.execute(
                "DELETE FROM dead WHERE id = ? RETURNING body", (int(tag),)
            ).fetchone()
            if row:
                self._put(row[0] if body is None else body)
        return bool(row)

    def close(self) -> None:
        """Requeue the held delivery immediately, and close the file."""
        held, self._held = self._held, None
        if held:
            with self._change():
                self._release(held, "due = due")
        self._database.close()

    def _end_leases_of_the_dead(self) -> None:
        """End the leases of dead processes of this machine."""
        if time.monotonic() < self._next_check:
            return
        self._next_check = time.monotonic() + _CHECK_SECONDS
        with errors_named():
            held = self._database.execute(
                "SELECT id, lease FROM jobs WHERE lease_end > ?", (self._clock(),)
            ).fetchall()
        for number, lease in held:
            if named_has_ended(lease.partition("@")[2]):
                with self._change():
                    self._database.execute(
                        "UPDATE jobs SET lease_end = 0 WHERE id = ? AND lease = ?", (number, lease)
                    )

    def _anything_due(self) -> bool:
        now = self._clock()
        return (
            self._row("SELECT 1 FROM jobs WHERE due <= ? AND lease_end <= ? LIMIT 1", now, now)
            is not None
        )

    def _lease(self) -> Delivery | None:
        now, lease = self._clock(), f"{secrets.token_hex(8)}@{short_name()}"
        with self._change():
            row = self._database.execute(
                "UPDATE jobs SET lease = ?, lease_end = ?, delivered = delivered + 1 WHERE id = "
                "(SELECT id FROM jobs WHERE due <= ? AND lease_end <= ? ORDER BY due, id LIMIT 1) "
                "RETURNING id, body, delivered, trace",
                (lease, now + self._lease_seconds, now, now),
            ).fetchone()
        if row is None:
            return None
        number, body, delivered, trace = row
        self._held = Delivery(
            tag=f"{number}:{lease}", body=body, attempt=delivered, traceparent=traceparent_in(trace)
        )
        return self._held

    def _is_still_leased(self) -> bool:
        try:
            return self._renew()
        except BrokerUnavailable:
            return False  # it may be delivered again, unless a later call renews it

    def _renew(self) -> bool:
        """Renew the lease after half of its time.

        A lease that ran out and that no other client took is renewed as well.
        """
        if self._held is None:
            return True
        number, lease = self._held.tag.split(":")
        now = self._clock()
        row = self._row("SELECT lease_end FROM jobs WHERE id = ? AND lease = ?", number, lease)
        if row and row[0] - now > self._lease_seconds / 2:
            return True
        with self._change():
            return self._owned(self._held) and bool(
                self._update(self._held, "lease_end = ?", now + self._lease_seconds)
            )

    def _owned(self, delivery: Delivery) -> bool:
        number, lease = delivery.tag.split(":")
        return (
            self._database.execute(
                "SELECT 1 FROM jobs WHERE id = ? AND lease = ?", (number, lease)
            ).fetchone()
            is not None
        )

    def _put(self, body: bytes, traceparent: str | None = None) -> None:
        self._database.execute(
            "INSERT INTO jobs (body, due, trace) VALUES (?, ?, ?)",
            (body, self._clock(), traceparent),
        )

    def _forget(self, delivery: Delivery) -> None:
        self._database.execute("DELETE FROM jobs WHERE id = ?", (delivery.tag.split(":")[0],))

    def _release(self, delivery: Delivery, assignments: str, *values: float) -> None:
        self._update(delivery, f"lease = NULL, lease_end = 0, {assignments}", *values)

    def _update(self, delivery: Delivery, assignments: str, *values: float) -> int:
        number, lease = delivery.tag.split(":")
        # The assignments are constants of this module.
        change = f"UPDATE jobs SET {assignments} WHERE id = ? AND lease = ?"  # noqa: S608  literals
        return self._database.execute(change, (*values, number, lease)).rowcount

    def _number(self, question: str, *values: float) -> int:
        row = self._row(question, *values)
        return int(row[0]) if row else 0

    def _row(self, question: str, *values: float | str) -> tuple[int, bytes] | None:
        with errors_named():
            found: tuple[int, bytes] | None = self._database.execute(question, values).fetchone()
        return found

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Run the block as one durable transaction."""
        with errors_named():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            finally:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")


def check(target: BrokerTarget, *, create: bool) -> Findings:
    """Check whether the queue's file can be used.

    Args:
        target: the queue.
        create: create the file if it is missing.

    Raises:
        ConfigurationError: the file exists and cannot be used.
        BrokerUnavailable: it cannot be opened right now.
    """
    server, file = f"SQLite {sqlite3.sqlite_version}", file_of(target.url)
    if not create and not file.exists():
        return Findings(server=server, wrong=(f"{file} is missing: run ctdeface broker init",))
    broker = SqliteBroker(file)
    depth = broker.depth()
    broker.close()
    return Findings(
        server=server,
        present=(
            f"{depth.ready} ready, {depth.held} held, {depth.delayed} delayed, {depth.dead} dead",
        ),
    )
