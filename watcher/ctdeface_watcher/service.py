"""The watcher: looks at the inbox, waits until cases are complete, and publishes a job for each; events only make it look sooner.

wake or rescan → read the inbox → settle → manifest → job → published, confirmed → noted; reports close what has ended
"""

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic, time

from ctdeface_shared import logs
from ctdeface_shared.broker.protocols import Broker
from ctdeface_shared.errors import StorageUnavailable
from ctdeface_shared.lifecycle import boundary
from ctdeface_shared.manifest import Manifest
from ctdeface_shared.options import DefaceOptions
from ctdeface_shared.spool import ServiceSpool
from ctdeface_watcher.events import Wakeups
from ctdeface_watcher.history import history_of
from ctdeface_watcher.intake import Answer, Settled, take_in
from ctdeface_watcher.ledger import Entry, Ledger
from ctdeface_watcher.scan import Inbox, Rules, read_inbox, take_snapshot
from ctdeface_watcher.stability import Patience, Verdict, Watched, judge, look

_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """Everything the watcher works with.

    Attributes:
        spool: where the inbox and the reports are.
        broker: where jobs are published.
        ledger: what was published.
        wakeups: what makes it look sooner.
        rules: how the inbox is read.
        patience: when a case is complete.
        options: what is asked for each case.
        rescan_seconds: between two looks at the inbox when nothing wakes it up.
        max_unfinished: no more jobs are published while so many have not ended.
        min_free_gb: nor while less is free.
        stop: set when the watcher shall end.
    """

    spool: ServiceSpool
    broker: Broker
    ledger: Ledger
    wakeups: Wakeups
    rules: Rules
    patience: Patience
    options: DefaceOptions
    rescan_seconds: float
    max_unfinished: int
    min_free_gb: float
    stop: threading.Event


@dataclass(slots=True)
class Memory:
    """What is remembered between two looks; lost with the process, and no harm done.

    Attributes:
        watched: cases that are not complete.
        judged: cases that were dealt with, with the snapshot they had then.
        told: strays that were reported.
    """

    watched: dict[str, Watched] = field(default_factory=dict)
    judged: dict[str, object] = field(default_factory=dict)
    told: set[Path] = field(default_factory=set)


def watch(post: Post) -> None:
    """Look at the inbox until stopped; whatever goes wrong with one look, the next one begins afresh."""
    memory = Memory()
    while not post.stop.is_set():
        seen = boundary(partial(look_once, post, memory))
        if isinstance(seen, Exception):
            _log.warning("look_failed", code=type(seen).__name__)
        pause = post.rescan_seconds if not memory.watched else min(post.rescan_seconds, max(post.patience.quiet / 2, 0.05))
        post.wakeups.wait(pause, post.stop)
    post.wakeups.close()


def look_once(post: Post, memory: Memory) -> Inbox:
    """Look once at inbox and reports, and publish what is complete.

    Raises:
        OSError: the inbox is not there or cannot be read.
        TransientError: queue or ledger cannot be used; nothing is lost.
    """
    _close_ended(post)
    inbox = read_inbox(post.spool.inbox, post.rules)
    for stray in set(inbox.strays) - memory.told:
        memory.told.add(stray)
        _log.warning("stray_in_inbox")  # its name may be a patient's; `ctdeface status` shows it
    for gone in (memory.watched.keys() | memory.judged.keys()) - inbox.cases.keys():
        memory.watched.pop(gone, None)
        memory.judged.pop(gone, None)
    for case, folder in inbox.cases.items():
        if post.stop.is_set():
            break
        _consider(post, memory, case, folder)
    return inbox


def _consider(post: Post, memory: Memory, case: str, folder: Path) -> None:
    """Look at one case; one that changes while it is read is looked at again the next time."""
    now = monotonic()
    try:
        snapshot = take_snapshot(folder, post.rules)
    except OSError:
        return
    if memory.judged.get(case) == snapshot:
        return
    watched = memory.watched[case] = look(memory.watched.get(case), snapshot, now)
    verdict = judge(watched, post.patience, now)
    if verdict is Verdict.GIVEN_UP:
        _log.warning("case_never_settled")
    elif verdict is not Verdict.SETTLED or not _publish(post, case, folder):
        return
    memory.judged[case] = snapshot
    del memory.watched[case]


def _publish(post: Post, case: str, folder: Path) -> bool:
    """Publish the job of a settled case; return whether nothing more is to be done about it as it is."""
    published = post.ledger.open_jobs()
    if len(published) >= post.max_unfinished or _is_full(post):
        return False
    settled = Settled(
        case=case,
        manifest=Manifest.scan(folder),
        history=history_of(post.spool, case),
        published=frozenset(entry.job_id for entry in published),
    )
    job = take_in(settled, post.options, datetime.now(UTC))
    if isinstance(job, Answer):
        return job is Answer.KNOWN
    post.broker.publish(job)
    post.ledger.note(Entry(job_id=job.job_id, case=case, digest=job.manifest.digest, generation=job.generation, published_at=time()))
    _log.info("job_published", job_id=job.job_id, files=job.manifest.files, megabytes=round(job.manifest.bytes / 1e6, 1))
    return True


def _is_full(post: Post) -> bool:
    try:
        post.spool.check_free_space(post.min_free_gb)
    except StorageUnavailable:
        _log.warning("paused_for_disk_space")
        return True
    return False


def _close_ended(post: Post) -> None:
    """Close the jobs whose reports say that they have ended."""
    for entry in post.ledger.open_jobs():
        for job in history_of(post.spool, entry.case):
            if job.job_id == entry.job_id and job.ended:
                post.ledger.close_job(job.job_id, job.state)
                _log.info("job_closed", job_id=job.job_id, code=job.state)
