"""Does a case again: its originals go back into the inbox and a job of a higher generation is published.

order written → originals in the inbox → published → quarantine marked → order marked. Each step can
be repeated: whoever runs the same replay again after a crash goes on with the order that lies
there. Nothing is overwritten, and what lies in the archive stays there.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ctdeface_shared.errors import CtDefaceError, StorageUnavailable
from ctdeface_shared.jobs.history import DROP_REFUSALS, JobReader, JobRecord
from ctdeface_shared.jobs.manifest import Manifest, job_id
from ctdeface_shared.jobs.messages import DefaceJob, read_options
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_shared.jobs.replay_requests import (
    ReplayRequest,
    drop_order,
    read_order,
    write_order,
)
from ctdeface_shared.jobs.reports import REPEAT, REPORT, read_report
from ctdeface_shared.jobs.states import JobState
from ctdeface_shared.replay.request import ReplayOptions
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.locks import MISSED_HEARTBEATS_SECONDS, claim_name, lock_name, locked
from ctdeface_shared.storage.spool import ServiceSpool, case_path

REPLAYED = "replayed.json"
"""In the quarantine, beside the report of a job that was replayed."""
PATIENCE_SECONDS = 5.0
Records = Sequence[JobRecord]


class NotReplayed(CtDefaceError):
    """A case that cannot be replayed as things are; nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What is needed to do cases again.

    Attributes:
        spool: where they lie.
        publish: puts a job into the queue.
        choices: what shall be different.
        defaults: options of a case that has no readable report.
        now: the present time, UTC.
        only_look: change nothing, only say what would be done.
        anyway: also where a job of the case has begun and not ended.
        step: hears the name of each step that is done (tests stop there).
    """

    spool: ServiceSpool
    publish: Callable[[DefaceJob], None]
    choices: ReplayOptions
    defaults: DefaceOptions
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    only_look: bool = False
    anyway: bool = False
    step: Callable[[str], None] = lambda _: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the originals of a case are.

    Attributes:
        folder: there.
        manifest: what they consist of.
        is_archived: whether they must stay where they are, and a copy goes into the inbox.
    """

    folder: Path
    manifest: Manifest
    is_archived: bool = False


def replay_case(replay: Replay, case: str) -> ReplayRequest:
    """Replay the newest job of a case, or go on with a replay that was interrupted.

    Returns:
        The order; `published` is False where `only_look` kept it from being carried out.

    Raises:
        NotReplayed: the case is not there, is being worked on, or other files lie in the inbox
            under its name.
        BrokerUnavailable: the queue did not confirm; run it again.
        StorageUnavailable: storage failed; run it again.
    """
    with _alone(replay.spool, lock_name(f"replay {case}")), atomic.storage_errors():
        records = JobReader(replay.spool.reports).of_case(case)
        latest = max(
            (one for one in records if one.state), key=lambda one: one.age_key, default=None
        )
        with _alone(
            replay.spool, claim_name(latest.job_id) if latest else lock_name(f"new {case}")
        ):
            return _replay(replay, case, records, latest)


def _replay(replay: Replay, case: str, records: Records, latest: JobRecord | None) -> ReplayRequest:
    if latest and latest.code in DROP_REFUSALS:
        raise NotReplayed(
            f"what was dropped last under its name was refused as {latest.code} and is no whole case: drop the whole case again"
        )
    there = read_order(replay.spool, case, latest.job_id) if latest else None
    if latest and there and not (latest.ended and there.published) and _is_same(replay, there):
        if (
            latest.ended
        ):  # published, worked on and ended since, but the replay was killed before it marked that
            return there if replay.only_look else _mark(replay, there)
        source = find_source(replay.spool, case, there.replays, there.job.manifest.digest)
        if source.manifest == there.job.manifest:
            return there if replay.only_look else carry_out(replay, there, source)
    replaced = there if latest and latest.state is JobState.ORDERED else None
    _check_ended(replay, records, latest, replaced)
    order, source = _new_order(replay, case, records, replaced)
    if replay.only_look:
        return order
    write_order(replay.spool, order)
    replay.step("ordered")
    if replaced:
        drop_order(replay.spool, replaced)
    return carry_out(replay, order, source)


def carry_out(replay: Replay, order: ReplayRequest, source: Source) -> ReplayRequest:
    """Do what an order says, from wherever it was left."""
    _put_back(replay.spool, order, source)
    replay.step("put back")
    replay.publish(order.job)
    replay.step("published")
    return _mark(replay, order)


def next_job(records: Records, job: DefaceJob) -> DefaceJob:
    """Return a job as the newest of its case: of a higher generation, and submitted after all others whatever the clocks say."""
    generation = max([job.generation, *(one.generation for one in records)]) + 1
    last = max((one.created_at for one in records if one.created_at), default="")
    submitted = (
        max(job.submitted_at, datetime.fromisoformat(last) + timedelta(milliseconds=1))
        if last
        else job.submitted_at
    )
    return replace(
        job,
        job_id=job_id(job.case, job.manifest, job.options, generation),
        generation=generation,
        submitted_at=submitted,
    )


def find_source(spool: ServiceSpool, case: str, replayed: str, digest: str) -> Source:
    """Find the originals of a job: in the inbox, the quarantine or the archive.

    Raises:
        NotReplayed: they are gone, or other files lie in the inbox under their name.
    """
    inbox = case_path(spool.inbox, case)
    places = (
        (case_path(spool.quarantine, case) / replayed / "originals", False),
        (case_path(spool.archive / "originals", case) / replayed, True),
    )
    found = [
        Source(folder=place, manifest=Manifest.scan(place), is_archived=kept)
        for place, kept in places
        if replayed and place.is_dir()
    ]
    if not os.path.lexists(inbox):
        if found:
            return found[0]
        raise NotReplayed(
            "its originals are neither in the inbox nor in quarantine or archive: drop the case again"
        )
    if inbox.is_dir() and not inbox.is_symlink():
        present = Manifest.scan(inbox)
        if not digest or present.digest in {digest, *(source.manifest.digest for source in found)}:
            return Source(folder=inbox, manifest=present)
    raise NotReplayed(
        "other files lie in the inbox under its name: wait until their job has ended, or move them away"
    )


@contextmanager
def _alone(spool: ServiceSpool, name: str) -> Iterator[None]:
    """Keep other replays away from a case, and wait for the worker that is just putting its originals away: it claims its job alike."""
    with ExitStack() as stack:
        try:
            stack.enter_context(
                locked(
                    spool.locks,
                    name,
                    stale_seconds=MISSED_HEARTBEATS_SECONDS,
                    patience_seconds=PATIENCE_SECONDS,
                )
            )
        except StorageUnavailable:
            raise NotReplayed(
                "a worker or another replay is at it: try again when that has ended"
            ) from None
        yield


def _check_ended(
    replay: Replay, records: Records, latest: JobRecord | None, replaced: ReplayRequest | None
) -> None:
    """A second job on its way would find its originals put away by the first.

    Raises:
        NotReplayed: a job of the case is on its way.
    """
    waiting = latest is None or (
        latest.state is JobState.ORDERED and (replaced is None or replaced.published)
    )
    begun = any(one.is_begun or one.is_publishing for one in records)
    if not replay.anyway and (waiting or begun):
        raise NotReplayed(
            "a job of it is on its way and has not ended; when the queue was lost, add --anyway"
        )


def _is_same(replay: Replay, order: ReplayRequest) -> bool:
    """Whether an order is what is asked for now."""
    return replay.choices.over(order.job.options) == order.job.options


def _new_order(
    replay: Replay, case: str, records: Records, replaced: ReplayRequest | None
) -> tuple[ReplayRequest, Source]:
    reported = max(
        (one for one in records if one.state not in {None, JobState.ORDERED}),
        key=lambda one: one.age_key,
        default=None,
    )
    replays = reported.job_id if reported else replaced.replays if replaced else ""
    digest = replaced.job.manifest.digest if replaced else reported.digest if reported else ""
    source = find_source(replay.spool, case, replays, digest)
    options = replay.choices.over(_options(replay, case, replays))
    job = DefaceJob(
        job_id="", case=case, manifest=source.manifest, submitted_at=replay.now(), options=options
    )
    return ReplayRequest(job=next_job(records, job), replays=replays), source


def _options(replay: Replay, case: str, replays: str) -> DefaceOptions:
    folder = case_path(replay.spool.reports, case) / replays
    for name in (REPEAT, REPORT):
        report = read_report(folder / name)
        if report is not None and report.options is not None:
            try:
                return read_options(report.options)
            except ValueError as error:  # ignoring one could release more than was requested
                raise NotReplayed(
                    f"the options in its {name} are not valid ({error}): drop the case again"
                ) from None
    return replay.defaults


def _put_back(spool: ServiceSpool, order: ReplayRequest, source: Source) -> None:
    inbox = case_path(spool.inbox, order.job.case)
    if source.folder == inbox:
        return
    inbox.parent.mkdir(parents=True, exist_ok=True)
    if not source.is_archived:
        source.folder.rename(inbox)
        atomic.sync_folder(source.folder.parent)
        atomic.sync_folder(inbox.parent)
        return
    hidden = inbox.with_name(f".{order.job.job_id}.replay")
    shutil.rmtree(hidden, ignore_errors=True)  # what a crash left behind
    try:
        shutil.copytree(source.folder, hidden, symlinks=True)
        if Manifest.scan(hidden) != order.job.manifest:
            raise StorageUnavailable("the archived originals could not be copied as they are")
        hidden.rename(inbox)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    atomic.sync_folder(inbox.parent)


def _mark(replay: Replay, order: ReplayRequest) -> ReplayRequest:
    entry = case_path(replay.spool.quarantine, order.job.case) / order.replays
    if order.replays and entry.is_dir():
        content = {
            "replayed_as": order.job.job_id,
            "at": order.job.submitted_at.isoformat(timespec="seconds"),
        }
        atomic.write_file(entry / REPLAYED, json.dumps(content, indent=1).encode())
    replay.step("quarantine marked")
    done = replace(
        order, published=True
    )  # last: as long as it is missing, the same replay goes on instead of beginning another
    write_order(replay.spool, done)
    return done
