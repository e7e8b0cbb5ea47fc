"""Every taken case, from its examination to its published job.

Examinations run beside the looks, so that a large case does not stop the others. A killed watcher
finds all taken cases again in their folders.
"""

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from time import time
from typing import NamedTuple

from ctdeface_shared import logs
from ctdeface_shared.errors import (
    LateFiles,
    PermanentError,
    StorageUnavailable,
    UnsafeArchive,
    UnsafeDrop,
)
from ctdeface_shared.jobs.history import history_of
from ctdeface_shared.jobs.messages import DefaceJob
from ctdeface_shared.jobs.replay_requests import read_order
from ctdeface_shared.jobs.taken import DropRecord, TakenCase, taken_cases
from ctdeface_shared.lifecycle import boundary
from ctdeface_shared.storage.private_tree import ChangedMeanwhile
from ctdeface_watcher.inbox.examine import ExamineRules, examine
from ctdeface_watcher.jobs.intake import IntakeResult
from ctdeface_watcher.jobs.publish import Publisher, keep, publish_case, rename, send
from ctdeface_watcher.jobs.refuse import refuse_taken

_THREADS = 4
_THREADS_OF_OWNER = 3
"""Maximum number of examinations of one user's drops at a time, so that others go on."""
_MOST_CHANGES = 20
"""After this number of changes during its examination, a taken drop is refused."""
_FINISH_SECONDS = 1.0
"""How long a look waits for examinations, which are usually short."""
_REPLAY_SECONDS = 120.0
"""After this time a replay that was not published was killed, and is published here."""

_log = logs.logger(__name__)


class Examiner:
    """Examinations in threads."""

    def __init__(self, rules: ExamineRules) -> None:
        """Start no thread yet."""
        self._rules = rules
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="examine")
        self._running: dict[str, Future[DropRecord | Exception]] = {}
        self._owners: dict[str, int | None] = {}
        self._changes: Counter[str] = Counter()

    @property
    def is_busy(self) -> bool:
        """Return True if an examination has not ended."""
        return any(not future.done() for future in self._running.values())

    def begin(self, taken: TakenCase, record: DropRecord) -> None:
        """Begin an examination, unless it was begun before or its owner has many."""
        running = [self._owners[one] for one, future in self._running.items() if not future.done()]
        is_allowed = running.count(record.owner) < _THREADS_OF_OWNER
        if taken.taken_id not in self._running and is_allowed:
            self._owners[taken.taken_id] = record.owner
            work = partial(boundary, partial(examine, taken, record, self._rules))
            self._running[taken.taken_id] = self._pool.submit(work)

    def wait(self, seconds: float = _FINISH_SECONDS) -> None:
        """Wait until all examinations have ended, or the time is over."""
        wait(self._running.values(), timeout=seconds)

    def result(self, taken: TakenCase) -> DropRecord | Exception | None:
        """Return the examined record or the error, None while it is being examined."""
        future = self._running.get(taken.taken_id)
        if future is None or not future.done():
            return None
        del self._running[taken.taken_id], self._owners[taken.taken_id]
        result = future.result()
        if not isinstance(result, ChangedMeanwhile):
            self._changes.pop(taken.taken_id, None)
            return result
        self._changes[taken.taken_id] += 1
        if self._changes[taken.taken_id] < _MOST_CHANGES:
            return result
        return UnsafeDrop(
            "the drop was changed again and again after it was taken: drop a copy that is "
            "not changed any more"
        )

    def close(self) -> None:
        """Wait for the examinations that have begun, and begin no others."""
        self._pool.shutdown(cancel_futures=True)


@dataclass(slots=True, kw_only=True)
class TakenState:
    """What the watcher remembers about taken cases between two looks.

    Attributes:
        published: job by id of the taken folder, where the job is in the queue.
        waiting: cases that wait for the end of an earlier job of their name.
        is_busy: whether a case can go on soon.
    """

    published: dict[str, DefaceJob] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    is_busy: bool = False

    def forget(self, job_id: str) -> None:
        """Forget that a job was published, so that it is published again."""
        self.published = {one: job for one, job in self.published.items() if job.job_id != job_id}


class Pending(NamedTuple):
    """A taken case whose job is not in the queue."""

    taken: TakenCase
    record: DropRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Advanced:
    """The result for one taken case.

    Attributes:
        record: of the case.
        result: what happened; None if nothing did.
        error: why its drop cannot be used now.
    """

    record: DropRecord
    result: IntakeResult | None = None
    error: Exception | None = None


def advance_all(
    publisher: Publisher,
    examiner: Examiner,
    state: TakenState,
    on_result: Callable[[Advanced], None],
) -> None:
    """Bring every taken case as far as possible now.

    Args:
        publisher: what publishing needs.
        examiner: runs the examinations.
        state: what is remembered between two looks.
        on_result: called for each case that went on, or that cannot.

    Raises:
        TransientError: queue or ledger cannot be used now.
        OSError: `taken` cannot be read.
    """
    cases = {taken.taken_id: taken for taken in taken_cases(publisher.spool)}
    state.published = {one: job for one, job in state.published.items() if one in cases}
    pending = [
        Pending(taken, record)
        for one, taken in cases.items()
        if one not in state.published and (record := taken.record()) is not None
    ]
    for one in pending:
        if _needs_examination(one.taken, one.record):
            examiner.begin(one.taken, one.record)
    examiner.wait()
    state.waiting, state.is_busy = set(), examiner.is_busy
    holders = {
        job.case: (one, job.owner)
        for one, job in state.published.items()
        if publisher.ledger.has(job.job_id)
    }
    for one in sorted(pending, key=lambda one: one.record.taken_at):
        advanced = _advance_in_turn(publisher, examiner, state, one, holders)
        if advanced.result is not None or advanced.error is not None:
            on_result(advanced)


def _advance_in_turn(
    publisher: Publisher,
    examiner: Examiner,
    state: TakenState,
    pending: Pending,
    holders: dict[str, tuple[str, int | None]],
) -> Advanced:
    """Bring a taken case forward unless another one of its name is before it.

    Args:
        publisher: what publishing needs.
        examiner: runs the examinations.
        state: what is remembered between two looks.
        pending: the case.
        holders: id and owner of the taken case that holds a name; changed by this call.
    """
    taken, record = pending
    holder, owner = holders.setdefault(record.case, (taken.taken_id, record.owner))
    is_first = holder == taken.taken_id
    if not is_first and owner == record.owner:
        state.waiting.add(record.case)  # one job of a case at a time
        return Advanced(record=record)
    if is_first:
        advanced = _advance(publisher, examiner, taken, record)
    else:  # another user must not wait for it
        advanced = Advanced(record=record, result=rename(publisher.spool, taken, record))
    job = taken.job()
    if job is not None and publisher.ledger.has(job.job_id):
        state.published[taken.taken_id] = job
    elif advanced.result is not None:
        state.is_busy = True
        if is_first:
            del holders[record.case]
    return advanced


def _advance(
    publisher: Publisher, examiner: Examiner, taken: TakenCase, record: DropRecord
) -> Advanced:
    """Bring one taken case as far as possible now."""
    job = taken.job()
    if job is not None:
        return Advanced(record=record, result=_publish_again(publisher, record, job))
    if not record.entry:  # a replay that is being prepared
        return Advanced(record=record)
    try:
        examined = _examined(examiner, taken, record)
        result = None
        if examined is not None and taken.files.is_dir():
            result = publish_case(publisher, taken, examined)
        elif examined is not None:
            taken.remove()  # a killed watcher had put its files away
        return Advanced(record=examined or record, result=result)
    except (UnsafeDrop, UnsafeArchive, LateFiles) as error:
        return _refuse(publisher, taken, record, error)
    except (PermanentError, StorageUnavailable, OSError) as error:
        is_copied = record.left_in_inbox and not taken.files.is_dir()
        if is_copied:
            taken.remove()  # what is in the inbox is copied again
        is_gone = is_copied and isinstance(error, FileNotFoundError)
        return Advanced(record=record, error=None if is_gone else error)


def _examined(examiner: Examiner, taken: TakenCase, record: DropRecord) -> DropRecord | None:
    """Return the examined record, None while the drop is being examined.

    Raises:
        Exception: what the examination met.
    """
    if not _needs_examination(taken, record):
        return record
    examined = examiner.result(taken)
    if isinstance(examined, PermissionError) and not record.left_in_inbox:
        raise UnsafeDrop(
            "the drop holds a file that the service cannot read: give its group read access and "
            "drop the case again"
        ) from examined
    if isinstance(examined, Exception):
        raise examined
    return examined


def _needs_examination(taken: TakenCase, record: DropRecord) -> bool:
    """Return True if a drop is there that was not examined."""
    if not record.entry or record.manifest is not None:
        return False
    places = (taken.files, taken.archive, taken.drop)
    return record.left_in_inbox or any(os.path.lexists(place) for place in places)


def _publish_again(publisher: Publisher, record: DropRecord, job: DefaceJob) -> IntakeResult | None:
    """Publish a job that a killed watcher, replay or queue has lost."""
    if _has_ended(publisher, job) or publisher.ledger.has(job.job_id):
        return None
    if not record.entry:
        order = read_order(publisher.spool, job.case, job.job_id)
        is_replaying = time() - record.taken_at < _REPLAY_SECONDS
        if is_replaying or (order is not None and order.published):
            return None
    send(publisher, job, record)
    return IntakeResult.PUBLISHED


def _refuse(
    publisher: Publisher, taken: TakenCase, record: DropRecord, error: PermanentError
) -> Advanced:
    refused_as = refuse_taken(publisher.spool, taken, record, publisher.options, error)
    keep(publisher.ledger, record)
    _log.warning("drop_refused", job_id=refused_as, code=error.code)
    return Advanced(record=record, result=IntakeResult.REFUSED)


def _has_ended(publisher: Publisher, job: DefaceJob) -> bool:
    """Return True if a report says that a job has ended."""
    return any(
        one.ended and one.job_id == job.job_id for one in history_of(publisher.spool, job.case)
    )
