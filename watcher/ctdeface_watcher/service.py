"""The watcher: looks at the inbox, waits until cases are complete, and publishes a job for each; events only make it look sooner.

wake or rescan → read the inbox → settle → manifest → job → published, confirmed → noted; reports close what has ended
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
from ctdeface_shared.errors import ConfigurationError, InputChanged, PermanentError, StorageUnavailable
from ctdeface_shared.lifecycle import boundary
from ctdeface_shared.retention import DAY_SECONDS, remove_expired
from ctdeface_shared.watcher_state import DISK, UNFINISHED_JOBS, WatcherState, write_watcher_state
from ctdeface_watcher.desk import Memory, Post
from ctdeface_watcher.history import history_of
from ctdeface_watcher.late import gather_what_was_begun
from ctdeface_watcher.listener import Happening
from ctdeface_watcher.lost import find_lost
from ctdeface_watcher.publication import offer
from ctdeface_watcher.rebuild import rebuild
from ctdeface_watcher.scan import Inbox, read_inbox, snapshot_of_file, take_snapshot
from ctdeface_watcher.stability import Verdict, judge, look
from ctdeface_watcher.zips import sweep_unpacked, take_zip

CLEARING_SECONDS = 3600.0
"""Longest time between two removals of what was kept long enough."""
_CLEARING_SHARE = 0.25
"""Removals come so often that nothing is kept longer than it should be by more than this share."""
_LONGEST_BREATH_SECONDS = 1.0
_MARKER_SECONDS = 1.0
_SHORTEST_PAUSE_SECONDS = 0.05

_log = logs.logger(__name__)


def watch(post: Post) -> None:
    """Look at the inbox until stopped, or until another watcher took over; whatever goes wrong with one look, the next begins afresh.

    Raises:
        ConfigurationError: the queue must be put right first.
    """
    memory = Memory()
    while not post.stop.is_set() and post.is_active():
        begun = monotonic()
        seen = boundary(partial(look_once, post, memory))
        failed = code_of(seen) if isinstance(seen, Exception) else None
        if failed is not None and failed != memory.failed:
            _log.warning("look_failed", code=failed)
        memory.failed = failed
        state = boundary(partial(write_down, post, memory, seen if isinstance(seen, Inbox) else None))
        post.listener.looked(state if isinstance(state, WatcherState) else None, failed)
        boundary(partial(_clear_away, post, memory))
        asked = boundary(partial(find_lost, post, memory))
        _tell_unknown(memory, asked)
        for outcome in (seen, asked):
            if isinstance(outcome, ConfigurationError):
                post.wakeups.close()
                raise outcome
        post.broker.tend(0.0)
        if post.wakeups.wait(_pause_until_next(post, memory), post.stop):
            post.stop.wait(min(max(monotonic() - begun, 0.05), _LONGEST_BREATH_SECONDS))  # a copy in progress is one event after the other
    post.wakeups.close()


def _tell_unknown(memory: Memory, asked: bool | Exception) -> None:  # noqa: FBT001  what `find_lost` came to
    """Say once when the queue cannot tell whether it lost jobs."""
    if isinstance(asked, Exception):
        before, memory.unknown = memory.unknown, code_of(asked)
        if memory.unknown != before:
            _log.warning("lost_jobs_unknown", code=memory.unknown)
    elif asked:
        memory.unknown = None


def _pause_until_next(post: Post, memory: Memory) -> float:
    """Seconds until the next look: sooner while a case may be about to settle, or its marker to appear."""
    if not memory.watched:
        return post.rescan_seconds
    now = monotonic()
    due = [one.unchanged_since + post.patience.quiet - now for one in memory.watched.values()]
    soonest = min((left for left in due if left > 0), default=post.patience.quiet / 2)
    longest = _MARKER_SECONDS if post.rules.marker is not None else post.rescan_seconds
    return max(min(soonest, post.patience.quiet / 2, longest, post.rescan_seconds), _SHORTEST_PAUSE_SECONDS)


def look_once(post: Post, memory: Memory) -> Inbox:
    """Look once at inbox and reports, and publish what is complete.

    Raises:
        TransientError: inbox, queue or ledger cannot be used; nothing is lost.
    """
    if post.ledger.heal() or not memory.is_rebuilt:
        rebuild(post.ledger, post.spool)
        memory.is_rebuilt = True
    _close_ended(post, memory)
    try:
        inbox = read_inbox(post.spool.inbox, post.rules)
    except OSError as error:
        message = f"the inbox cannot be read: {error.strerror}"
        raise StorageUnavailable(message) from error
    if frozenset(inbox.strays) - memory.told:
        _log.warning("stray_in_inbox", files=len(inbox.strays))  # their names may be a patient's; `ctdeface status` shows them
    memory.told = frozenset(inbox.strays)
    zips = {path.relative_to(post.spool.inbox).as_posix(): path for path in inbox.zips}
    shut = [path.relative_to(post.spool.inbox).as_posix() for path in inbox.shut]
    memory.forget_all_but(inbox.cases.keys() | zips.keys() | set(shut))
    for name in shut:
        _say_unusable(memory, name, f"it cannot be read: {os.strerror(errno.EACCES)}")
    _has_to_wait(post, memory)
    blocked = _go_on_gathering(post, memory)
    for name, path in (inbox.cases | zips).items():
        if post.stop.is_set():
            break
        if name not in blocked:
            _consider(post, memory, name, path)
    return inbox


def write_down(post: Post, memory: Memory, inbox: Inbox | None) -> WatcherState:
    """Write down what was seen, for `ctdeface status`; a look that failed says why, and what was known before."""
    open_jobs = post.ledger.open_jobs()
    state = WatcherState(
        looked_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        waiting=tuple(sorted(memory.watched)),
        never_settled=memory.given_up,
        strays=tuple(path.relative_to(post.spool.inbox).as_posix() for path in sorted(memory.told)),
        unusable=memory.unusable,
        paused=memory.failed or memory.paused,
        open_jobs=len(open_jobs),
        oldest_open_at=open_jobs[0].published_at if open_jobs else None,
    )
    with suppress(OSError):  # a full disk keeps nobody from watching
        write_watcher_state(post.state_file, state if inbox is None else replace(state, cases=len(inbox.cases)))
    return state


def _consider(post: Post, memory: Memory, name: str, path: Path) -> None:
    """Look at one case or zip file; one that changes while it is read is looked at again the next time."""
    now = monotonic()
    try:
        is_zip = path.is_file()
        snapshot = snapshot_of_file(path) if is_zip else take_snapshot(path, post.rules)
        if memory.judged.get(name) == snapshot:
            return
        memory.given_up.pop(name, None)
        if name not in memory.watched and not is_zip:  # a zip file's case is told when it shows
            post.listener.happened(Happening.DROPPED)
        watched = memory.watched[name] = look(memory.watched.get(name), snapshot, now)
        verdict = judge(watched, replace(post.patience, marker_only=post.patience.marker_only and not is_zip), now)
        if verdict is Verdict.GIVEN_UP:
            memory.given_up[name] = round(now - watched.first_seen, 1)
            _log.warning("case_never_settled", seconds=memory.given_up[name])
            post.listener.happened(Happening.NEVER_SETTLED)
        elif verdict is not Verdict.SETTLED or not _take(post, memory, name, path):
            return
        else:
            memory.unusable.pop(name, None)
    except FileNotFoundError:
        return
    except OSError as error:
        _say_unusable(memory, name, f"it cannot be read: {error.strerror}")
        return
    except RecursionError:
        _say_unusable(memory, name, "its folders lie too deep in each other")
        return
    except PermanentError as error:
        _say_unusable(memory, name, str(error))
        post.listener.happened(Happening.UNUSABLE)
    memory.judged[name] = snapshot
    memory.watched.pop(name, None)


def _go_on_gathering(post: Post, memory: Memory) -> frozenset[str]:
    """Finish putting cases together that a watcher had begun; return those that must wait because it is not possible now."""
    outcomes = gather_what_was_begun(post.spool, post.rules)
    blocked = {case: error for case, error in outcomes.items() if error is not None}
    for case, error in blocked.items():
        _say_unusable(memory, case, f"its late files cannot be put together with the earlier ones: {error.strerror}")
    return frozenset(blocked)


def _take(post: Post, memory: Memory, name: str, path: Path) -> bool:
    """Deal with what has settled, unless nothing may be published now; return whether that is all as long as it stays as it is."""
    if _has_to_wait(post, memory) or not post.is_active():
        return False
    return take_zip(post, name, path) if path.is_file() else offer(post, memory, name, path)


def _say_unusable(memory: Memory, name: str, reason: str) -> None:
    """Tell once that a case cannot be published."""
    if memory.unusable.get(name) != reason:
        memory.unusable[name] = reason
        _log.warning("case_unusable")


def _has_to_wait(post: Post, memory: Memory) -> bool:
    """Whether nothing may be published now; told when it begins."""
    before, memory.paused = memory.paused, _pause(post, memory)
    if memory.paused is not None and memory.paused != before:
        _log.warning("paused_for_disk_space" if memory.paused == DISK else "paused_for_unfinished_jobs")
    return memory.paused is not None


def _pause(post: Post, memory: Memory) -> str | None:
    if post.ledger.count_open() + len(memory.unnoted) >= post.max_unfinished:
        return UNFINISHED_JOBS
    try:
        post.spool.check_free_space(post.min_free_gb)
    except StorageUnavailable:
        return DISK
    return None


def _close_ended(post: Post, memory: Memory) -> None:
    """Note what could not be noted before, and close the jobs whose reports say that they, or their replays, have ended."""
    while memory.unnoted:
        post.ledger.note(memory.unnoted[0])
        del memory.unnoted[0]
    for entry in post.ledger.open_jobs():
        for job in history_of(post.spool, entry.case):
            replayed = job.digest == entry.digest and job.generation > entry.generation
            if job.ended and (job.job_id == entry.job_id or replayed):
                post.ledger.close_job(entry.job_id, job.state)
                if job.code == InputChanged.__name__:
                    memory.judged.pop(entry.case, None)  # renamed or ignored files change a case, but not how it looks
                _log.info("job_closed", job_id=entry.job_id, code=job.state)
                break


def _clear_away(post: Post, memory: Memory) -> None:
    """Remove, now and then, what was kept long enough."""
    keeping = post.keeping
    days = [each for each in (keeping.archive_days, keeping.quarantine_days, keeping.reports_days) if each is not None]
    pause = min([CLEARING_SECONDS, *(each * DAY_SECONDS * _CLEARING_SHARE for each in days)])
    if memory.cleared_at is not None and monotonic() - memory.cleared_at < pause:
        return
    memory.cleared_at = monotonic()
    sweep_unpacked(post)
    removed = remove_expired(post.spool, post.keeping, now=time(), case_depth=post.rules.case_depth)
    if removed.archive or removed.quarantine or removed.reports:
        _log.info("expired_removed", files=removed.archive + removed.quarantine + removed.reports)
    post.ledger.forget_oldest()
