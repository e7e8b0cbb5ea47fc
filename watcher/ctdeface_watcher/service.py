"""The watcher: publishes a job for each complete case.

Each look goes one way: scan → snapshot → verdict → manifest → job → queue → ledger. Reports close
the jobs that have ended. File events only make the next look come sooner.
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
    PermanentError,
    StorageUnavailable,
    TransientError,
)
from ctdeface_shared.lifecycle import boundary, notify
from ctdeface_shared.settings.sections import SpoolSection
from ctdeface_shared.status.watcher_state import (
    DISK,
    UNFINISHED_JOBS,
    WatcherState,
    write_watcher_state,
)
from ctdeface_shared.storage.disk import require_free_space
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_watcher.inbox.events import Wakeups
from ctdeface_watcher.inbox.scan import (
    Inbox,
    InboxRules,
    scan_inbox,
    snapshot_of_case,
    snapshot_of_zip,
)
from ctdeface_watcher.inbox.stability import (
    SettleTimes,
    Verdict,
    add_scan,
    judge,
    seconds_to_next_scan,
)
from ctdeface_watcher.inbox.zip_files import sweep_unpacked
from ctdeface_watcher.inbox_state import InboxState
from ctdeface_watcher.jobs.close_jobs import close_ended_jobs
from ctdeface_watcher.jobs.earlier_case import finish_gatherings
from ctdeface_watcher.jobs.intake import IntakeResult
from ctdeface_watcher.jobs.ledger import Ledger
from ctdeface_watcher.jobs.lost import find_lost_jobs
from ctdeface_watcher.jobs.publish import Publisher, publish_case
from ctdeface_watcher.jobs.rebuild_ledger import rebuild
from ctdeface_watcher.jobs.take_zip import ZipRules, take_zip
from ctdeface_watcher.retention import remove_expired, seconds_between_removals
from ctdeface_watcher.watch_events import EventKind, WatchEvent, WatchHook

_LOST_CHECK_SECONDS = 60.0
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
        zips: how zip files are taken.
        rescan_seconds: longest time between two looks.
        max_unfinished: no job is published while this many have not ended.
        min_free_gb: no job is published while less is free, 10⁹ bytes.
        retention: how long archive, quarantine and reports are kept.
        longest_job_seconds: an attempt that began longer ago has ended.
        lost_seconds: a job without a report may be lost after this time.
    """

    inbox: InboxRules
    settle: SettleTimes
    zips: ZipRules
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
    state, rules = InboxState(), watcher.rules
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
            if watcher.wakeups.wait(pause, stop):
                # A copy in progress causes one event after the other.
                breath = max(monotonic() - begun, _SHORTEST_BREATH_SECONDS)
                stop.wait(min(breath, _LONGEST_BREATH_SECONDS))
    finally:
        watcher.wakeups.close()


def look_once(watcher: Watcher, state: InboxState, stop: threading.Event) -> Inbox:
    """Look once, and publish the cases that are complete.

    Raises:
        TransientError: inbox, queue or ledger cannot be used now; nothing is lost.
        OSError: a report cannot be read now.
    """
    spool, rules = watcher.spool, watcher.rules
    _update_ledger(watcher.ledger, spool, state)
    try:
        inbox = scan_inbox(spool.inbox, rules.inbox)
        errors = finish_gatherings(spool, rules.inbox.case_depth)
    except OSError as error:
        raise StorageUnavailable(f"the inbox cannot be read: {error.strerror}") from error
    _report_scan(inbox, state)
    for case, problem in errors.items():
        state.mark_unusable(
            case, f"its late files cannot be combined with the earlier ones: {problem.strerror}"
        )
    _update_pause(watcher, state)
    for name, path in (inbox.cases | inbox.zips).items():
        if stop.is_set():
            break
        if name not in errors:
            _process(watcher, state, name, path)
    return inbox


def _update_ledger(ledger: Ledger, spool: ServiceSpool, state: InboxState) -> None:
    """Rebuild an empty ledger, and close the jobs that have ended."""
    if ledger.replace_damaged() or not state.is_rebuilt:
        rebuild(ledger, spool)
        state.is_rebuilt = True
    ledger.write_recorded()
    for case in close_ended_jobs(ledger, spool):
        state.finished.pop(case, None)


def _report_scan(inbox: Inbox, state: InboxState) -> None:
    """Log new strays and unreadable folders, without names."""
    if inbox.strays - state.strays:
        _log.warning("stray_in_inbox", files=len(inbox.strays))
    state.strays = inbox.strays
    state.keep_only(inbox.names)
    for name in inbox.unreadable:
        state.mark_unusable(name, _unreadable(PermissionError(errno.EACCES, "")))


def _process(watcher: Watcher, state: InboxState, name: str, path: Path) -> None:
    """Process one case or zip file."""
    rules = watcher.rules
    with _errors_of(name, state, watcher.hooks):
        is_zip = path.is_file()
        if _judge_anew(watcher, state, name, path) is not Verdict.COMPLETE:
            return
        if _update_pause(watcher, state) or not watcher.is_active():
            return
        first_seen = state.seen[name].first_seen
        if is_zip:
            result = take_zip(watcher.spool, watcher.ledger, rules.zips, name, path)
        else:
            result = publish_case(watcher.publisher, name, path, first_seen)
        if result in _EVENTS:
            settled = monotonic() - first_seen
            notify(watcher.hooks, WatchEvent(kind=_EVENTS[result], settle_seconds=settled))
        if result is not IntakeResult.BUSY:
            state.unusable.pop(name, None)
            state.finish(name)


def _judge_anew(watcher: Watcher, state: InboxState, name: str, path: Path) -> Verdict | None:
    """Take a snapshot and return the verdict.

    Returns:
        None if the entry was processed and has not changed since.

    Raises:
        OSError: the entry cannot be read, or changes while it is read.
        RecursionError: its folders are nested too deeply.
    """
    now, settle = monotonic(), watcher.rules.settle
    if path.is_file():
        snapshot = snapshot_of_zip(path)
        settle = replace(settle, marker_only=False)  # no marker can be beside a zip file
    else:
        snapshot = snapshot_of_case(path, watcher.rules.inbox)
    if state.finished.get(name) == snapshot:
        return None
    state.never_settled.pop(name, None)
    if name not in state.seen and path.is_dir():  # a zip file counts when its case appears
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
    except RecursionError:
        state.mark_unusable(
            name,
            "folders are nested too deeply, and a few hundred levels are supported: drop the "
            "folder that holds the images",
        )
    except PermanentError as error:
        state.mark_unusable(name, str(error))
        notify(hooks, WatchEvent(kind=EventKind.UNUSABLE))
        state.finish(name)


def _unreadable(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return (
            f"it cannot be read ({os.strerror(errno.EACCES)}), and the service needs to read every "
            "file and folder of a case: give its user read access"
        )
    return f"it cannot be read or moved ({error.strerror}): the next look tries again"


def _update_pause(watcher: Watcher, state: InboxState) -> bool:
    """Return True if publishing is paused; log when a pause begins.

    Raises:
        StorageUnavailable: the ledger cannot be read.
    """
    before, state.paused = state.paused, _pause_reason(watcher)
    if state.paused is not None and state.paused != before:
        _log.warning(
            "paused_for_disk_space" if state.paused == DISK else "paused_for_unfinished_jobs"
        )
    return state.paused is not None


def _pause_reason(watcher: Watcher) -> str | None:
    if watcher.ledger.count_open() >= watcher.rules.max_unfinished:
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
    _remove_expired(watcher, state)
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
        waiting=tuple(sorted(state.seen)),
        never_settled=state.never_settled,
        strays=tuple(sorted(state.strays)),
        unusable=state.unusable,
        paused=state.failed or state.paused,
        open_jobs=len(open_jobs),
        oldest_open_at=open_jobs[0].published_at if open_jobs else None,
    )
    with suppress(OSError):  # a full disk must not stop the watcher
        write_watcher_state(watcher.state_file, result)
    return result


def _remove_expired(watcher: Watcher, state: InboxState) -> None:
    """Remove expired files from time to time."""
    retention = watcher.rules.retention
    if monotonic() < state.next_removal:
        return
    state.next_removal = monotonic() + seconds_between_removals(retention)
    depth = watcher.rules.inbox.case_depth
    try:
        sweep_unpacked(watcher.spool.inbox, depth)
        removed = remove_expired(watcher.spool, retention, now=time(), case_depth=depth)
        watcher.ledger.trim()
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
        overdue = [entry for entry in ledger.open_jobs() if entry.published_at < oldest]
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
            state.finished.pop(entry.case, None)
            _log.warning("job_lost_by_queue", job_id=entry.job_id)
    except (TransientError, OSError) as error:
        if code_of(error) != state.lost_check_failed:
            _log.warning("lost_jobs_unknown", code=code_of(error))
        state.lost_check_failed = code_of(error)
    else:
        state.lost_check_failed = None
