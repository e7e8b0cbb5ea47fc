"""Every taken case, from its examination to its published job.

Examinations run beside the looks, so that a large case does not stop the others. A killed watcher
finds all taken cases again in their folders.
"""

import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from time import monotonic, time
from typing import NamedTuple

from ctdeface_shared import logs
from ctdeface_shared.errors import (
    ChangedMeanwhile,
    PermanentError,
    StorageUnavailable,
    TransientError,
    UnsafeDrop,
)
from ctdeface_shared.jobs.history import history_of
from ctdeface_shared.jobs.messages import DefaceJob
from ctdeface_shared.jobs.replay_requests import read_order
from ctdeface_shared.jobs.taken import (
    RECORD,
    DropRecord,
    TakenCase,
    remove_unfinished,
    taken_cases,
)
from ctdeface_shared.lifecycle import boundary
from ctdeface_shared.storage.bounded import DamagedFile
from ctdeface_watcher.inbox.examine import ExamineRules, examine
from ctdeface_watcher.jobs.intake import IntakeResult
from ctdeface_watcher.jobs.killed_replays import REPLAY_SECONDS, continue_replay
from ctdeface_watcher.jobs.ledger import Entry, Ledger
from ctdeface_watcher.jobs.publish import Publisher, keep, publish_case, rename, send
from ctdeface_watcher.jobs.refuse import refuse_taken
from ctdeface_watcher.skips import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Skips

_PLACE = "taken"
_THREADS = 4
_THREADS_OF_OWNER = 3
"""Maximum number of examinations of one user's drops at a time, so that others go on."""
_MOST_CHANGES = 5
"""After this number of changes during its examination, a taken drop is refused."""
_FINISH_SECONDS = 1.0
"""How long a look waits for examinations, which are usually short."""

_LEAVES_NAME = frozenset({IntakeResult.RENAMED, IntakeResult.KNOWN, IntakeResult.REFUSED})
"""Results after which the next case of the same name can go on."""

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
        self._pauses: dict[str, tuple[float, float]] = {}
        self._stop = threading.Event()
        self._waits = False

    @property
    def is_busy(self) -> bool:
        """Return True if an examination has not ended, or waits for its turn."""
        return self._waits or bool(self._active())

    def begin(self, drops: Iterable[tuple[TakenCase, DropRecord]]) -> None:
        """Begin examinations, a few of each owner at a time, for as long as a look may take.

        Those that run or have failed recently are left out.

        Args:
            drops: taken cases that are not examined, oldest first.
        """
        waiting: dict[int | None, deque[tuple[TakenCase, DropRecord]]] = {}
        for taken, record in drops:
            _, again_at = self._pauses.get(taken.taken_id, (0.0, 0.0))
            if taken.taken_id not in self._running and monotonic() >= again_at:
                waiting.setdefault(record.owner, deque()).append((taken, record))
        end = monotonic() + _FINISH_SECONDS
        while True:
            active = self._active()
            self._begin_allowed(waiting, active)
            self._waits = any(waiting.values())
            if not active or monotonic() >= end:
                return
            futures = [self._running[one] for one in active]
            wait(futures, timeout=max(end - monotonic(), 0.0), return_when=FIRST_COMPLETED)

    def _active(self) -> list[str]:
        return [one for one, future in self._running.items() if not future.done()]

    def _begin_allowed(
        self,
        waiting: Mapping[int | None, deque[tuple[TakenCase, DropRecord]]],
        active: list[str],
    ) -> None:
        """Begin what each owner may have at a time, and add it to what is active."""
        counts = Counter(self._owners[one] for one in active)
        for owner, drops in waiting.items():
            while drops and counts[owner] < _THREADS_OF_OWNER:
                taken, record = drops.popleft()
                work = partial(_examine, taken, record, self._rules, self._go_on)
                self._running[taken.taken_id] = self._pool.submit(partial(boundary, work))
                self._owners[taken.taken_id] = owner
                active.append(taken.taken_id)
                counts[owner] += 1

    def result(self, taken: TakenCase) -> DropRecord | Exception | None:
        """Return the examined record or the error, None while it is being examined."""
        future = self._running.get(taken.taken_id)
        if future is None or not future.done():
            return None
        del self._running[taken.taken_id], self._owners[taken.taken_id]
        result = future.result()
        self._note_pause(taken.taken_id, result)
        # Its owner can also lock a file or move it away, through a folder that is still open.
        if not isinstance(result, (ChangedMeanwhile, BlockingIOError, FileNotFoundError)):
            self._changes.pop(taken.taken_id, None)
            return result
        self._changes[taken.taken_id] += 1
        if self._changes[taken.taken_id] < _MOST_CHANGES:
            return result
        return UnsafeDrop(
            "the drop was changed again and again after it was taken: drop a copy that is "
            "not changed any more"
        )

    def _note_pause(self, taken_id: str, result: DropRecord | Exception) -> None:
        """Let a case that could not be read wait; longer after each failure."""
        pause, _ = self._pauses.pop(taken_id, (FIRST_PAUSE_SECONDS / 2, 0.0))
        if isinstance(result, OSError) and not isinstance(result, FileNotFoundError):
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            self._pauses[taken_id] = (pause, monotonic() + pause)

    def close(self) -> None:
        """End the examinations after their present file; the next watcher begins them again."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def _go_on(self) -> None:
        """Check that the examinations may go on.

        Raises:
            TransientError: the watcher stops.
        """
        if self._stop.is_set():
            raise TransientError("the watcher was stopped")


def _examine(
    taken: TakenCase, record: DropRecord, rules: ExamineRules, go_on: Callable[[], None]
) -> DropRecord | Exception:
    """Examine a case; an error of its files is returned, because it is not a bug."""
    try:
        return examine(taken, record, rules, go_on)
    except OSError as error:
        return error


@dataclass(slots=True, kw_only=True)
class TakenState:
    """What the watcher remembers about taken cases between two looks.

    Attributes:
        published: job by id of the taken folder, where the job is in the queue.
        silent: job by id of the taken folder, where another process published it or a report says
            that it has ended, although its files are still there.
        lost: ids of jobs that must be published again.
        waiting: cases that wait for the end of an earlier job of their name, or for storage.
        failing: names in the inbox of the cases that cannot go on now.
        copying: names in the inbox of the cases that stay there and have no job yet.
        unpublished: number of cases without a job.
        is_busy: whether a case can go on soon.
        skips: what is left out because of an error, here and elsewhere in a look.
    """

    published: dict[str, DefaceJob] = field(default_factory=dict)
    silent: dict[str, Entry] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)
    failing: set[str] = field(default_factory=set)
    copying: set[str] = field(default_factory=set)
    unpublished: int = 0
    is_busy: bool = False
    skips: Skips = field(default_factory=Skips)

    def lose(self, job_id: str) -> None:
        """Let a job be published again, because neither the queue nor a worker has it."""
        self.lost.add(job_id)
        self.published = {one: job for one, job in self.published.items() if job.job_id != job_id}
        self.silent = {one: job for one, job in self.silent.items() if job.job_id != job_id}

    def keep_only(self, present: Collection[str], ledger: Ledger) -> None:
        """Forget folders that are gone, and jobs that have ended.

        Raises:
            StorageUnavailable: the ledger cannot be read.
        """
        self.published = {
            one: job
            for one, job in self.published.items()
            if one in present and ledger.has(job.job_id)
        }
        self.silent = {one: job for one, job in self.silent.items() if one in present}


class Pending(NamedTuple):
    """A taken case whose job is not known to be in the queue."""

    taken: TakenCase
    record: DropRecord
    job: DefaceJob | None

    @property
    def is_unpublished(self) -> bool:
        """Return True for a drop that has no job yet."""
        return bool(self.record.entry) and self.job is None and self.taken.folder.is_dir()


@dataclass(frozen=True, slots=True, kw_only=True)
class Advanced:
    """The result for one taken case.

    Attributes:
        record: of the case.
        result: what happened; None if nothing did.
        error: why its drop cannot be used now.
        is_left: whether it is copied again from the inbox.
    """

    record: DropRecord
    result: IntakeResult | None = None
    error: Exception | None = None
    is_left: bool = False


def find_pending(publisher: Publisher, state: TakenState) -> list[Pending]:
    """Return the taken cases that may go on, those with a job first, then the oldest.

    Raises:
        StorageUnavailable: the ledger cannot be read.
        OSError: `taken` cannot be read.
    """
    remove_unfinished(publisher.spool)
    cases = {taken.taken_id: taken for taken in taken_cases(publisher.spool)}
    state.keep_only(cases, publisher.ledger)
    state.skips.keep_only(_PLACE, lambda name: name.partition(" ")[0] in cases)
    pending = []
    for name, taken in cases.items():
        if name not in state.published:
            one = state.skips.attempt(_PLACE, name, partial(_pending, taken), None)
            pending.extend([one] if one else [])
    state.lost &= {one.job.job_id for one in pending if one.job is not None}
    state.unpublished = sum(one.is_unpublished for one in pending)
    state.copying = {
        one.record.entry for one in pending if one.record.left_in_inbox and one.is_unpublished
    }
    return sorted(pending, key=lambda one: (one.job is None, one.record.taken_at))


def _pending(taken: TakenCase) -> Pending | None:
    """Read a taken case.

    Returns:
        None if it has no record and no files, as when it is being removed.

    Raises:
        DamagedFile: its record cannot be used.
        OSError: its record cannot be read.
    """
    record = taken.record()
    if record is not None:
        return Pending(taken, record, taken.job())
    if os.path.lexists(taken.folder / RECORD) or taken.files.is_dir():
        raise DamagedFile(
            f"its {RECORD} is missing or damaged: move its files into the inbox, and remove it"
        )
    return None


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
        ConfigurationError: the queue's configuration must be corrected first.
        OSError: `taken` cannot be read.
    """
    pending = find_pending(publisher, state)
    examiner.begin(
        (one.taken, one.record) for one in pending if _needs_examination(one.taken, one.record)
    )
    state.waiting, state.failing, state.is_busy = set(), set(), examiner.is_busy
    holders = {job.case: (one, job.owner) for one, job in state.published.items()}
    for one in pending:
        advanced = _advance_in_turn(publisher, examiner, state, one, holders)
        if advanced.result is not None or advanced.error is not None:
            on_result(advanced)
    state.unpublished = sum(
        one.is_unpublished and one.taken.taken_id not in state.published for one in pending
    )


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

    Raises:
        TransientError: queue or ledger cannot be used now.
        ConfigurationError: the queue's configuration must be corrected first.
    """
    taken, record, _ = pending
    holder, owner = holders.setdefault(record.case, (taken.taken_id, record.owner))
    is_first = holder == taken.taken_id
    if not is_first and (owner == record.owner or None in {owner, record.owner}):
        state.waiting.add(record.case)  # one job of a case at a time
        return Advanced(record=record)
    advance = partial(_advance, publisher, examiner, state, pending, is_first=is_first)
    left_out = Advanced(record=record, result=IntakeResult.BUSY)
    name = f"{taken.taken_id} ({record.case})"
    advanced = state.skips.attempt(_PLACE, name, advance, left_out)
    _note(state, advanced)
    if is_first and advanced.result in _LEAVES_NAME:
        del holders[record.case]
    job = taken.job() if advanced.result is IntakeResult.PUBLISHED else None
    if job is not None:
        state.published[taken.taken_id] = job
    return advanced


def _note(state: TakenState, advanced: Advanced) -> None:
    """Note whether a case waits, and whether the next look should come soon."""
    result, record = advanced.result, advanced.record
    state.is_busy |= result in _LEAVES_NAME or result is IntakeResult.COMBINED
    if result is IntakeResult.BUSY or (advanced.error is not None and not advanced.is_left):
        state.waiting.add(record.case)
    if advanced.error is not None and not advanced.is_left:
        state.failing.add(record.entry)


def _advance(
    publisher: Publisher,
    examiner: Examiner,
    state: TakenState,
    pending: Pending,
    *,
    is_first: bool,
) -> Advanced:
    """Bring one taken case as far as possible now.

    Args:
        publisher: what publishing needs.
        examiner: runs the examinations.
        state: what is remembered between two looks.
        pending: the case.
        is_first: whether the name is free for it; otherwise another user has it.

    Raises:
        TransientError: queue or ledger cannot be used now.
        ConfigurationError: the queue's configuration must be corrected first.
    """
    taken, record, job = pending
    if job is not None:
        return Advanced(record=record, result=_publish_again(publisher, state, pending, job))
    if not record.entry:  # a replay that is being prepared
        continue_replay(publisher.spool, taken, record)
        return Advanced(record=record)
    try:
        examined = _examined(examiner, taken, record)
        result = None
        if examined is not None and not taken.files.is_dir():
            taken.remove()  # a killed watcher had put its files away
        elif examined is not None and is_first:
            result = publish_case(publisher, taken, examined)
        elif examined is not None:
            result = rename(publisher.spool, taken, examined)
        changed = taken.record() if result is IntakeResult.RENAMED else examined
        return Advanced(record=changed or record, result=result)
    except PermanentError as error:
        return _refuse(publisher, taken, record, error)
    except (StorageUnavailable, OSError) as error:
        return _failed(taken, record, error)


def _failed(taken: TakenCase, record: DropRecord, error: Exception) -> Advanced:
    """Return why a case cannot go on now; one that was left in the inbox is copied again."""
    is_left = record.left_in_inbox and not taken.files.is_dir()
    if is_left:
        taken.remove()
    is_gone = is_left and isinstance(error, FileNotFoundError)
    return Advanced(record=record, error=None if is_gone else error, is_left=is_left)


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


def _publish_again(
    publisher: Publisher, state: TakenState, pending: Pending, job: DefaceJob
) -> IntakeResult | None:
    """Publish a job that a killed watcher, replay or queue has lost."""
    taken, record, _ = pending
    has_ended = _has_ended(publisher, job)
    if has_ended and not taken.files.is_dir():
        taken.remove()  # a killed worker had put its files away
        return None
    if job.job_id not in state.lost:
        if publisher.ledger.has(job.job_id):
            state.published[taken.taken_id] = job
            return None
        if has_ended or _is_published_by_replay(publisher, record, job):
            # It is in other hands; if those do not exist any more, it counts as lost.
            state.silent.setdefault(taken.taken_id, _entry(job))
            return None
    send(publisher, job, record)
    state.lost.discard(job.job_id)
    return IntakeResult.PUBLISHED


def _is_published_by_replay(publisher: Publisher, record: DropRecord, job: DefaceJob) -> bool:
    if record.entry:
        return False
    order = read_order(publisher.spool, job.case, job.job_id)
    is_replaying = time() - record.taken_at < REPLAY_SECONDS
    return is_replaying or (order is not None and order.published)


def _entry(job: DefaceJob) -> Entry:
    return Entry(
        job_id=job.job_id,
        case=job.case,
        digest=job.manifest.digest,
        generation=job.generation,
        published_at=time(),
    )


def _refuse(
    publisher: Publisher, taken: TakenCase, record: DropRecord, error: PermanentError
) -> Advanced:
    try:
        refused_as = refuse_taken(publisher.spool, taken, record, publisher.options, error)
        keep(publisher.ledger, record)
    except (StorageUnavailable, OSError) as storage:
        return Advanced(record=record, error=storage)
    _log.warning("drop_refused", job_id=refused_as, code=error.code)
    return Advanced(record=record, result=IntakeResult.REFUSED)


def _has_ended(publisher: Publisher, job: DefaceJob) -> bool:
    """Return True if a report says that a job has ended."""
    return any(
        one.ended and one.job_id == job.job_id for one in history_of(publisher.spool, job.case)
    )
