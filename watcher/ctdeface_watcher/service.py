"""The watcher: publishes a job for each complete case.

Each look goes one way: scan → snapshot → verdict → taken → examined → job → queue → ledger.
Reports close the jobs that have ended. File events only make the next look come sooner.
"""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic, time

from ctdeface_shared import logs
from ctdeface_shared.broker.protocols import Broker
from ctdeface_shared.broker.settlement import code_of
from ctdeface_shared.errors import (
    ConfigurationError,
    CtDefaceError,
    PermanentError,
    StorageUnavailable,
    TransientError,
    UnsafeDrop,
)
from ctdeface_shared.lifecycle import boundary, notify
from ctdeface_shared.settings.sections import SpoolSection
from ctdeface_shared.status.watcher_state import (
    DISK,
    UNFINISHED_JOBS,
    WatcherState,
    write_watcher_state,
)
from ctdeface_shared.storage.checksum import digest_of_text
from ctdeface_shared.storage.disk import require_free_space
from ctdeface_shared.storage.private_tree import (
    is_removable,
    require_readable,
    shown,
    stats_of_entry,
)
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_watcher.inbox.events import Wakeups
from ctdeface_watcher.inbox.scan import (
    Inbox,
    InboxRules,
    scan_inbox,
    snapshot_of,
)
from ctdeface_watcher.inbox.stability import (
    SettleTimes,
    Snapshot,
    Verdict,
    add_scan,
    judge,
    seconds_to_next_scan,
)
from ctdeface_watcher.inbox.take import entry_folder, take
from ctdeface_watcher.inbox_state import STAYS, InboxState
from ctdeface_watcher.jobs.close_jobs import close_ended_jobs
from ctdeface_watcher.jobs.intake import IntakeResult
from ctdeface_watcher.jobs.ledger import Ledger
from ctdeface_watcher.jobs.lost import find_lost_jobs
from ctdeface_watcher.jobs.publish import Publisher, require_text
from ctdeface_watcher.jobs.rebuild_ledger import rebuild
from ctdeface_watcher.jobs.taken_cases import Advanced, Examiner, advance_all, find_pending
from ctdeface_watcher.retention import remove_expired, remove_remains, seconds_between_removals
from ctdeface_watcher.watch_events import EventKind, WatchEvent, WatchHook

_LOST_CHECK_SECONDS = 60.0
_TAKING_SECONDS = 5.0
"""After this time a look leaves further complete cases to the next one."""
_BUSY_SECONDS = 0.5
"""Time between two looks while a taken case can go on."""
_LONGEST_BREATH_SECONDS = 1.0
_SHORTEST_BREATH_SECONDS = 0.05
_EVENTS = {IntakeResult.PUBLISHED: EventKind.PUBLISHED, IntakeResult.KNOWN: EventKind.KNOWN}

_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRules:
    """When the watcher looks, publishes and pauses.

    Attributes:
        inbox: which names in the inbox count.
        settle: when a case is complete.
        moves: whether dropped files are moved out of the inbox.
        rescan_seconds: longest time between two looks.
        max_unfinished: no job is published while this many have not ended.
        min_free_gb: no job is published while less is free, 10⁹ bytes.
        retention: how long archive, quarantine and reports are kept.
        longest_job_seconds: an attempt that began longer ago has ended.
        lost_seconds: a job without a report may be lost after this time.
    """

    inbox: InboxRules
    settle: SettleTimes
    moves: bool
    rescan_seconds: float
    max_unfinished: int
    min_free_gb: float
    retention: SpoolSection
    longest_job_seconds: float
    lost_seconds: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """The parts of a watcher.

    Functions of other modules are given only the parts that they need.

    Attributes:
        rules: when it looks, publishes, pauses and tidies up.
        spool: the folders of the service.
        broker: the queue.
        ledger: the jobs that were published.
        publisher: publishes complete cases.
        examiner: reads taken cases and makes them private.
        wakeups: waits for events in the inbox.
        state_file: receives the result of each look, for `ctdeface status`.
        hooks: receive every event.
        is_active: tells whether this process is still the active watcher of the inbox.
    """

    rules: WatchRules
    spool: ServiceSpool
    broker: Broker
    ledger: Ledger
    publisher: Publisher
    examiner: Examiner
    wakeups: Wakeups
    state_file: Path
    hooks: tuple[WatchHook, ...] = ()
    is_active: Callable[[], bool] = lambda: True


def watch(watcher: Watcher, stop: threading.Event) -> None:
    """Look at the inbox until stopped or replaced by another watcher.

    A look that fails is followed by the next one.

    Raises:
        ConfigurationError: the queue's configuration must be corrected first.
    """
    state, rules = InboxState.counting(partial(_count_skip, watcher.hooks)), watcher.rules
    try:
        while not stop.is_set() and watcher.is_active():
            begun = monotonic()
            inbox = boundary(partial(look_once, watcher, state, stop))
            upkeep = boundary(partial(_finish_look, watcher, state, inbox))
            for outcome in (inbox, upkeep):
                if isinstance(outcome, ConfigurationError):
                    raise outcome
            watcher.broker.tend(0.0)
            pause = seconds_to_next_scan(
                state.seen.values(),
                rules.settle,
                monotonic(),
                rescan_seconds=rules.rescan_seconds,
                has_marker=rules.inbox.marker is not None,
            )
            pause = min(pause, _BUSY_SECONDS) if state.taken.is_busy else pause
            if watcher.wakeups.wait(pause, stop):
                # A copy in progress causes one event after the other.
                breath = max(monotonic() - begun, _SHORTEST_BREATH_SECONDS)
                stop.wait(min(breath, _LONGEST_BREATH_SECONDS))
    finally:
        watcher.examiner.close()
        watcher.wakeups.close()


def look_once(watcher: Watcher, state: InboxState, stop: threading.Event) -> Inbox:
    """Look once, and publish the cases that are complete.

    Raises:
        TransientError: inbox, queue or ledger cannot be used now; nothing is lost.
        OSError: reports or taken cases cannot be listed now.
    """
    spool, rules = watcher.spool, watcher.rules
    _update_ledger(watcher.ledger, spool, state)
    try:
        inbox = scan_inbox(spool.inbox, rules.inbox)
    except OSError as error:
        raise StorageUnavailable(f"the inbox cannot be read: {error.strerror}") from error
    _report_scan(inbox, state)
    if state.is_first:
        find_pending(watcher.publisher, state.taken)  # what is taken counts as unfinished
        state.is_first = False
    _update_pause(watcher, state)
    state.skips.keep_only("inbox", inbox.names.__contains__)
    take_until, state.has_more = monotonic() + _TAKING_SECONDS, False
    for name in (*inbox.cases, *inbox.zips):
        if stop.is_set():
            break
        process = partial(_process, watcher, state, name, is_zip=name in inbox.zips)
        if state.skips.attempt("inbox", name, process, None):
            state.has_more = monotonic() >= take_until
    if not stop.is_set():
        on_result = partial(_report_result, watcher, state)
        advance_all(watcher.publisher, watcher.examiner, state.taken, on_result)
        state.taken.is_busy |= state.has_more
    return inbox


def _count_skip(hooks: tuple[WatchHook, ...], code: str) -> None:
    notify(hooks, WatchEvent(kind=EventKind.SKIPPED, failed=code))


def _update_ledger(ledger: Ledger, spool: ServiceSpool, state: InboxState) -> None:
    """Rebuild an empty ledger, and close the jobs that have ended."""
    if ledger.replace_damaged() or not state.is_rebuilt:
        rebuild(ledger, spool)
        state.is_rebuilt = True
    ledger.write_recorded()
    close_ended_jobs(ledger, spool, state.skips)


def _report_scan(inbox: Inbox, state: InboxState) -> None:
    """Log new strays and unreadable folders, without names."""
    if inbox.strays - state.strays:
        _log.warning("stray_in_inbox", files=len(inbox.strays))
    state.strays = inbox.strays
    state.keep_only(inbox.names)
    for name in inbox.unreadable:
        state.mark_unusable(name, _unreadable(PermissionError(errno.EACCES, "")))


def _process(watcher: Watcher, state: InboxState, name: str, *, is_zip: bool) -> bool:
    """Take one case or zip file if it is complete; return whether it was."""
    with _errors_of(name, state, watcher.hooks):
        if _judge_anew(watcher, state, name, is_zip=is_zip) is not Verdict.COMPLETE:
            return False
        require_text(name)
        if state.has_more or _update_pause(watcher, state) or not watcher.is_active():
            return False
        _require_readable(watcher, name)
        if name in state.taken.copying or not state.may_copy(name, monotonic()):
            return False
        is_known = not watcher.rules.moves and _was_kept(watcher, state, name)
        is_left = is_known or _take(watcher, state, name)
        state.unusable.pop(name, None)
        if is_left:
            state.finish(name)
            state.kept.add(name)
        else:
            state.seen.pop(name)
        return True
    return False


def _take(watcher: Watcher, state: InboxState, name: str) -> bool:
    """Take a complete case; return whether it stays in the inbox.

    Raises:
        UnsafeDrop: it was replaced.
        OSError: it cannot be taken now.
    """
    seen = state.seen[name]
    seen_at = time() - (monotonic() - seen.first_seen)
    moves = watcher.rules.moves and _is_removable(watcher, name)
    taken = take(watcher.spool, name, seen_at, seen.snapshot.inode, moves=moves)
    record = taken.record()
    is_left = record is not None and record.left_in_inbox
    if is_left and watcher.rules.moves:
        _note_unmovable(state, name)
    if is_left and _was_kept(watcher, state, name):
        taken.remove()
        return is_left
    state.taken.unpublished += 1
    if is_left:
        state.note_copy(name, monotonic(), watcher.rules.settle.quiet)
    return is_left


def _require_readable(watcher: Watcher, name: str) -> None:
    """Check that the service can read a case, while its owner can still change that.

    Raises:
        PermissionError: it cannot.
    """
    with entry_folder(watcher.spool.inbox, name) as (folder, leaf):
        require_readable(folder, leaf, watcher.publisher.limits.depth)


def _is_removable(watcher: Watcher, name: str) -> bool:
    """Return True if nothing of a case would remain in `taken` that only its owner can remove."""
    with entry_folder(watcher.spool.inbox, name) as (folder, leaf):
        return is_removable(folder, leaf, watcher.publisher.limits.depth)


def _was_kept(watcher: Watcher, state: InboxState, name: str) -> bool:
    """Return True if an entry that stays in the inbox was processed as it is."""
    if watcher.ledger.has_kept(name, _digest_of(state.seen[name].snapshot)):
        return True  # it was refused
    with suppress(UnsafeDrop), entry_folder(watcher.spool.inbox, name) as (folder, leaf):
        stats = stats_of_entry(folder, leaf, watcher.publisher.limits)
        return watcher.ledger.has_kept(name, stats)
    return False


def _digest_of(snapshot: Snapshot) -> str:
    """Return the digest by which a refused drop is recognized, whose files may not be read."""
    return digest_of_text([repr(snapshot)])


def _note_unmovable(state: InboxState, name: str) -> None:
    if name not in state.notes:
        _log.warning("originals_left_in_inbox")
    state.note(name, STAYS)


def _report_result(watcher: Watcher, state: InboxState, advanced: Advanced) -> None:
    """Note and count what happened to a taken case."""
    record, result = advanced.record, advanced.result
    name = record.entry
    if advanced.error is not None:
        state.mark_unusable(name, _reason(advanced.error))
        if advanced.is_left:
            state.look_again(name, monotonic())
        return
    state.unusable.pop(name, None)
    if result is IntakeResult.REFUSED and record.left_in_inbox and name in state.finished:
        watcher.ledger.add_kept(name, _digest_of(state.finished[name]))
    if result in _EVENTS:
        settled = max(time() - record.seen_at, 0.0)
        notify(watcher.hooks, WatchEvent(kind=_EVENTS[result], settle_seconds=settled))
    if result is IntakeResult.KNOWN:
        state.note(
            name,
            "was dropped again with the same content, so it has no new job: "
            f"ctdeface replay {shown(record.case)} repeats the earlier one",
        )
    elif result is IntakeResult.RENAMED:
        state.note(
            name,
            "is not from the owner, patient and study of the earlier case of its name, so it is "
            f"a case of its own: {shown(record.case)}",
        )


def _judge_anew(watcher: Watcher, state: InboxState, name: str, *, is_zip: bool) -> Verdict | None:
    """Take a snapshot and return the verdict.

    Returns:
        None if the entry was processed and has not changed since.

    Raises:
        UnsafeDrop: the entry is replaced by a link while it is read.
        RecursionError: its folders are nested too deeply.
        OSError: the entry cannot be read, or changes while it is read.
    """
    now, settle = monotonic(), watcher.rules.settle
    snapshot = snapshot_of(watcher.spool.inbox, name, watcher.rules.inbox)
    if is_zip:
        settle = replace(settle, marker_only=False)  # no marker can be beside a zip file
    if state.finished.get(name) == snapshot:
        return None
    state.never_settled.pop(name, None)
    state.kept.discard(name)
    if name not in state.seen:
        notify(watcher.hooks, WatchEvent(kind=EventKind.DROPPED))
    seen = state.seen[name] = add_scan(state.seen.get(name), snapshot, now)
    verdict = judge(seen, settle, now)
    if verdict is Verdict.NEVER_SETTLED:
        state.never_settled[name] = round(now - seen.first_seen, 1)
        _log.warning("case_never_settled", seconds=state.never_settled[name])
        notify(watcher.hooks, WatchEvent(kind=EventKind.NEVER_SETTLED))
        state.finish(name)
    return verdict


@contextmanager
def _errors_of(name: str, state: InboxState, hooks: tuple[WatchHook, ...]) -> Iterator[None]:
    """Record an entry's errors, so that the others are processed."""
    try:
        yield
    except FileNotFoundError:
        pass  # it changes while it is read; the next look takes it
    except OSError as error:
        state.mark_unusable(name, _unreadable(error))
    except UnsafeDrop as error:  # such as one that was replaced while it was read
        state.mark_unusable(name, str(error))
    except RecursionError:
        state.mark_unusable(
            name,
            "its folders are nested deeper than limits.depth allows: drop the folder that holds "
            "the images",
        )
    except PermanentError as error:
        state.mark_unusable(name, str(error))
        notify(hooks, WatchEvent(kind=EventKind.UNUSABLE))
        state.finish(name)


def _reason(error: Exception) -> str:
    """Return why a taken case cannot go on now."""
    if isinstance(error, OSError):
        return _unreadable(error)
    if isinstance(error, CtDefaceError):
        return str(error)
    return f"an unexpected {type(error).__name__}: see the log"


def _unreadable(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return (
            f"it cannot be read ({os.strerror(errno.EACCES)}), and the service needs to read every "
            "file and folder of a case: give the service's user or group read access"
        )
    return f"it cannot be read or moved ({error.strerror}): the next look tries again"


def _update_pause(watcher: Watcher, state: InboxState) -> bool:
    """Return True if publishing is paused; log when a pause begins.

    Raises:
        StorageUnavailable: the ledger cannot be read.
    """
    before, state.paused = state.paused, _pause_reason(watcher, state.taken.unpublished)
    if state.paused is not None and state.paused != before:
        _log.warning(
            "paused_for_disk_space" if state.paused == DISK else "paused_for_unfinished_jobs"
        )
    return state.paused is not None


def _pause_reason(watcher: Watcher, unpublished: int) -> str | None:
    if watcher.ledger.count_open() + unpublished >= watcher.rules.max_unfinished:
        return UNFINISHED_JOBS
    try:
        require_free_space(watcher.spool.disk_places, watcher.rules.min_free_gb)
    except StorageUnavailable:
        return DISK
    return None


def _finish_look(watcher: Watcher, state: InboxState, looked: Inbox | Exception) -> None:
    """Report the look, remove expired files, and find lost jobs.

    Raises:
        ConfigurationError: the queue's configuration must be corrected first.
    """
    failed = code_of(looked) if isinstance(looked, Exception) else None
    if failed is not None and failed != state.failed:
        _log.warning("look_failed", code=failed)
    state.failed = failed
    cases = len(looked.cases) if isinstance(looked, Inbox) else 0
    written = _write_state(watcher, state, cases)
    notify(watcher.hooks, WatchEvent(kind=EventKind.LOOKED, state=written, failed=failed))
    _remove_expired(watcher, state, looked)
    _forget_lost_jobs(watcher, state)


def _write_state(watcher: Watcher, state: InboxState, cases: int) -> WatcherState | None:
    """Write the state after a look for `ctdeface status`.

    After an error it holds what was known before.
    """
    try:
        open_jobs = watcher.ledger.open_jobs()
    except StorageUnavailable:
        return None
    result = WatcherState(
        looked_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        cases=cases,
        waiting=tuple(sorted({*state.seen, *state.taken.waiting})),
        never_settled=state.never_settled,
        kept=tuple(sorted(state.kept)),
        notes=state.notes,
        strays=tuple(sorted(state.strays)),
        unusable=state.unusable,
        paused=state.failed or state.paused,
        open_jobs=len(open_jobs),
        oldest_open_at=open_jobs[0].published_at if open_jobs else None,
        skipped=state.skips.found,
    )
    with suppress(OSError):  # a full disk must not stop the watcher
        write_watcher_state(watcher.state_file, result)
    return result


def _remove_expired(watcher: Watcher, state: InboxState, looked: Inbox | Exception) -> None:
    """Remove expired files, and what is left of ended cases, from time to time."""
    retention = watcher.rules.retention
    if monotonic() < state.next_removal:
        return
    state.next_removal = monotonic() + seconds_between_removals(retention)
    depth = watcher.rules.inbox.case_depth
    try:
        removed = remove_expired(watcher.spool, retention, now=time(), case_depth=depth)
        remove_remains(watcher.spool, time())
        watcher.ledger.trim()
        if isinstance(looked, Inbox):
            watcher.ledger.trim_kept(looked.names)
    except (OSError, StorageUnavailable) as error:
        _log.warning("expired_not_removed", code=code_of(error))
        return
    if removed.archive or removed.quarantine or removed.reports:
        _log.info("expired_removed", files=removed.archive + removed.quarantine + removed.reports)


def _forget_lost_jobs(watcher: Watcher, state: InboxState) -> None:
    """Forget jobs that were lost with their queue.

    The next look publishes them again.

    Raises:
        ConfigurationError: the queue's configuration must be corrected first.
    """
    rules, ledger = watcher.rules, watcher.ledger
    if monotonic() < state.next_lost_check:
        return
    try:
        oldest = time() - rules.lost_seconds
        known = (*ledger.open_jobs(), *state.taken.silent.values())
        overdue = [entry for entry in known if entry.published_at < oldest]
        if not overdue:
            return
        state.next_lost_check = monotonic() + min(_LOST_CHECK_SECONDS, rules.lost_seconds)
        for entry in find_lost_jobs(
            overdue,
            watcher.broker,
            watcher.spool,
            longest_job_seconds=rules.longest_job_seconds,
        ):
            ledger.remove_job(entry.job_id)
            state.taken.lose(entry.job_id)
            _log.warning("job_lost_by_queue", job_id=entry.job_id)
    except (TransientError, OSError) as error:
        if code_of(error) != state.lost_check_failed:
            _log.warning("lost_jobs_unknown", code=code_of(error))
        state.lost_check_failed = code_of(error)
    else:
        state.lost_check_failed = None
