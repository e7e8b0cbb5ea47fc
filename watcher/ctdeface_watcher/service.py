"""The watcher: looks at the inbox, waits until cases are complete, and publishes a job for each; events only make it look sooner.

wake or rescan → read the inbox → settle → manifest → job → published, confirmed → noted; reports
close what has ended
"""

import errno
import os
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic, time

from ctdeface_shared import logs
from ctdeface_shared.broker.settlement import code_of
from ctdeface_shared.errors import (
    ConfigurationError,
    InputChanged,
    PermanentError,
    StorageUnavailable,
)
from ctdeface_shared.jobs.history import history_of
from ctdeface_shared.lifecycle import boundary
from ctdeface_shared.status.watcher_state import (
    DISK,
    UNFINISHED_JOBS,
    WatcherState,
    write_watcher_state,
)
from ctdeface_shared.storage.disk import require_free_space
from ctdeface_watcher.context import WatcherContext, WatchState
from ctdeface_watcher.inbox.late_files import gather_what_was_begun
from ctdeface_watcher.inbox.scan import Inbox, read_inbox, snapshot_of_file, take_snapshot
from ctdeface_watcher.inbox.stability import Verdict, judge, look
from ctdeface_watcher.inbox.zip_files import sweep_unpacked, take_zip
from ctdeface_watcher.jobs.lost import find_lost
from ctdeface_watcher.jobs.publish import offer
from ctdeface_watcher.jobs.rebuild_ledger import rebuild
from ctdeface_watcher.observer import WatchEvent
from ctdeface_watcher.retention import DAY_SECONDS, remove_expired

CLEARING_SECONDS = 3600.0
"""Longest time between two removals of what was kept long enough."""
_CLEARING_SHARE = 0.25
"""Removals come so often that nothing is kept longer than it should be by more than this share."""
_LONGEST_BREATH_SECONDS = 1.0
_MARKER_SECONDS = 1.0
_SHORTEST_PAUSE_SECONDS = 0.05

_log = logs.logger(__name__)


def watch(context: WatcherContext) -> None:
    """Look at the inbox until stopped, or until another watcher took over; whatever goes wrong with one look, the next begins afresh.

    Raises:
        ConfigurationError: the queue must be put right first.
    """
    watch_state = WatchState()
    while not context.stop.is_set() and context.is_active():
        begun = monotonic()
        seen = boundary(partial(look_once, context, watch_state))
        failed = code_of(seen) if isinstance(seen, Exception) else None
        if failed is not None and failed != watch_state.failed:
            _log.warning("look_failed", code=failed)
        watch_state.failed = failed
        state = boundary(
            partial(write_down, context, watch_state, seen if isinstance(seen, Inbox) else None)
        )
        context.observer.looked(state if isinstance(state, WatcherState) else None, failed)
        boundary(partial(_clear_away, context, watch_state))
        asked = boundary(partial(find_lost, context, watch_state))
        _tell_unknown(watch_state, asked)
        for outcome in (seen, asked):
            if isinstance(outcome, ConfigurationError):
                context.wakeups.close()
                raise outcome
        context.broker.tend(0.0)
        if context.wakeups.wait(_pause_until_next(context, watch_state), context.stop):
            context.stop.wait(
                min(max(monotonic() - begun, 0.05), _LONGEST_BREATH_SECONDS)
            )  # a copy in progress is one event after the other
    context.wakeups.close()


def _tell_unknown(watch_state: WatchState, asked: bool | Exception) -> None:
    """Say once when the queue cannot tell whether it lost jobs."""
    if isinstance(asked, Exception):
        before, watch_state.unknown = watch_state.unknown, code_of(asked)
        if watch_state.unknown != before:
            _log.warning("lost_jobs_unknown", code=watch_state.unknown)
    elif asked:
        watch_state.unknown = None


def _pause_until_next(context: WatcherContext, watch_state: WatchState) -> float:
    """Seconds until the next look: sooner while a case may be about to settle, or its marker to appear."""
    if not watch_state.watched:
        return context.rescan_seconds
    now = monotonic()
    due = [
        one.unchanged_since + context.patience.quiet - now for one in watch_state.watched.values()
    ]
    soonest = min((left for left in due if left > 0), default=context.patience.quiet / 2)
    longest = _MARKER_SECONDS if context.rules.marker is not None else context.rescan_seconds
    return max(
        min(soonest, context.patience.quiet / 2, longest, context.rescan_seconds),
        _SHORTEST_PAUSE_SECONDS,
    )


def look_once(context: WatcherContext, watch_state: WatchState) -> Inbox:
    """Look once at inbox and reports, and publish what is complete.

    Raises:
        TransientError: inbox, queue or ledger cannot be used; nothing is lost.
    """
    if context.ledger.heal() or not watch_state.is_rebuilt:
        rebuild(context.ledger, context.spool)
        watch_state.is_rebuilt = True
    _close_ended(context, watch_state)
    try:
        inbox = read_inbox(context.spool.inbox, context.rules)
    except OSError as error:
        raise StorageUnavailable(f"the inbox cannot be read: {error.strerror}") from error
    if frozenset(inbox.strays) - watch_state.told:
        _log.warning(
            "stray_in_inbox", files=len(inbox.strays)
        )  # their names may be a patient's; `ctdeface status` shows them
    watch_state.told = frozenset(inbox.strays)
    zips = {path.relative_to(context.spool.inbox).as_posix(): path for path in inbox.zips}
    unreadable = [path.relative_to(context.spool.inbox).as_posix() for path in inbox.unreadable]
    watch_state.forget_all_but(inbox.cases.keys() | zips.keys() | set(unreadable))
    for name in unreadable:
        _say_unusable(watch_state, name, f"it cannot be read: {os.strerror(errno.EACCES)}")
    _has_to_wait(context, watch_state)
    blocked = _go_on_gathering(context, watch_state)
    for name, path in (inbox.cases | zips).items():
        if context.stop.is_set():
            break
        if name not in blocked:
            _consider(context, watch_state, name, path)
    return inbox


def write_down(
    context: WatcherContext, watch_state: WatchState, inbox: Inbox | None
) -> WatcherState:
    """Write down what was seen, for `ctdeface status`; a look that failed says why, and what was known before."""
    open_jobs = context.ledger.open_jobs()
    state = WatcherState(
        looked_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        waiting=tuple(sorted(watch_state.watched)),
        never_settled=watch_state.given_up,
        strays=tuple(
            path.relative_to(context.spool.inbox).as_posix() for path in sorted(watch_state.told)
        ),
        unusable=watch_state.unusable,
        paused=watch_state.failed or watch_state.paused,
        open_jobs=len(open_jobs),
        oldest_open_at=open_jobs[0].published_at if open_jobs else None,
    )
    with suppress(OSError):  # a full disk keeps nobody from watching
        write_watcher_state(
            context.state_file, state if inbox is None else replace(state, cases=len(inbox.cases))
        )
    return state


def _consider(context: WatcherContext, watch_state: WatchState, name: str, path: Path) -> None:
    """Look at one case or zip file; one that changes while it is read is looked at again the next time."""
    now = monotonic()
    try:
        is_zip = path.is_file()
        snapshot = snapshot_of_file(path) if is_zip else take_snapshot(path, context.rules)
        if watch_state.judged.get(name) == snapshot:
            return
        watch_state.given_up.pop(name, None)
        if (
            name not in watch_state.watched and not is_zip
        ):  # a zip file's case is told when it shows
            context.observer.happened(WatchEvent.DROPPED)
        watched = watch_state.watched[name] = look(watch_state.watched.get(name), snapshot, now)
        verdict = judge(
            watched,
            replace(context.patience, marker_only=context.patience.marker_only and not is_zip),
            now,
        )
        if verdict is Verdict.GIVEN_UP:
            watch_state.given_up[name] = round(now - watched.first_seen, 1)
            _log.warning("case_never_settled", seconds=watch_state.given_up[name])
            context.observer.happened(WatchEvent.NEVER_SETTLED)
        elif verdict is not Verdict.SETTLED or not _take(context, watch_state, name, path):
            return
        else:
            watch_state.unusable.pop(name, None)
    except FileNotFoundError:
        return
    except OSError as error:
        _say_unusable(watch_state, name, f"it cannot be read: {error.strerror}")
        return
    except RecursionError:
        _say_unusable(watch_state, name, "its folders lie too deep in each other")
        return
    except PermanentError as error:
        _say_unusable(watch_state, name, str(error))
        context.observer.happened(WatchEvent.UNUSABLE)
    watch_state.judged[name] = snapshot
    watch_state.watched.pop(name, None)


def _go_on_gathering(context: WatcherContext, watch_state: WatchState) -> frozenset[str]:
    """Finish putting cases together that a watcher had begun; return those that must wait because it is not possible now."""
    outcomes = gather_what_was_begun(context.spool, context.rules)
    blocked = {case: error for case, error in outcomes.items() if error is not None}
    for case, error in blocked.items():
        _say_unusable(
            watch_state,
            case,
            f"its late files cannot be put together with the earlier ones: {error.strerror}",
        )
    return frozenset(blocked)


def _take(context: WatcherContext, watch_state: WatchState, name: str, path: Path) -> bool:
    """Deal with what has settled, unless nothing may be published now; return whether that is all as long as it stays as it is."""
    if _has_to_wait(context, watch_state) or not context.is_active():
        return False
    return (
        take_zip(context, name, path) if path.is_file() else offer(context, watch_state, name, path)
    )


def _say_unusable(watch_state: WatchState, name: str, reason: str) -> None:
    """Tell once that a case cannot be published."""
    if watch_state.unusable.get(name) != reason:
        watch_state.unusable[name] = reason
        _log.warning("case_unusable")


def _has_to_wait(context: WatcherContext, watch_state: WatchState) -> bool:
    """Whether nothing may be published now; told when it begins."""
    before, watch_state.paused = watch_state.paused, _pause(context, watch_state)
    if watch_state.paused is not None and watch_state.paused != before:
        _log.warning(
            "paused_for_disk_space" if watch_state.paused == DISK else "paused_for_unfinished_jobs"
        )
    return watch_state.paused is not None


def _pause(context: WatcherContext, watch_state: WatchState) -> str | None:
    if context.ledger.count_open() + len(watch_state.unnoted) >= context.max_unfinished:
        return UNFINISHED_JOBS
    try:
        places = {**context.spool.disk_places, "state": context.state_file.parent}
        require_free_space(places, context.min_free_gb)
    except StorageUnavailable:
        return DISK
    return None


def _close_ended(context: WatcherContext, watch_state: WatchState) -> None:
    """Note what could not be noted before, and close the jobs whose reports say that they, or their replays, have ended."""
    while watch_state.unnoted:
        context.ledger.note(watch_state.unnoted[0])
        del watch_state.unnoted[0]
    for entry in context.ledger.open_jobs():
        for job in history_of(context.spool, entry.case):
            replayed = job.digest == entry.digest and job.generation > entry.generation
            if job.state and job.ended and (job.job_id == entry.job_id or replayed):
                context.ledger.close_job(entry.job_id, job.state)
                if job.code == InputChanged.__name__:
                    watch_state.judged.pop(
                        entry.case, None
                    )  # renamed or ignored files change a case, but not how it looks
                _log.info("job_closed", job_id=entry.job_id, code=job.state)
                break


def _clear_away(context: WatcherContext, watch_state: WatchState) -> None:
    """Remove, now and then, what was kept long enough."""
    keeping = context.keeping
    days = [
        each
        for each in (keeping.archive_days, keeping.quarantine_days, keeping.reports_days)
        if each is not None
    ]
    pause = min([CLEARING_SECONDS, *(each * DAY_SECONDS * _CLEARING_SHARE for each in days)])
    if watch_state.cleared_at is not None and monotonic() - watch_state.cleared_at < pause:
        return
    watch_state.cleared_at = monotonic()
    sweep_unpacked(context)
    removed = remove_expired(
        context.spool, context.keeping, now=time(), case_depth=context.rules.case_depth
    )
    if removed.archive or removed.quarantine or removed.reports:
        _log.info("expired_removed", files=removed.archive + removed.quarantine + removed.reports)
    context.ledger.forget_oldest()
