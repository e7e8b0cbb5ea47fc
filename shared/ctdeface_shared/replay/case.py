"""Replay a case: return its originals to the inbox and publish a job of a higher generation.

request written → originals in the inbox → published → quarantine marked → request marked. Each step
can be repeated, so the same replay continues after a crash with the request that it finds. Nothing
is overwritten, and archived originals stay in the archive.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
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
"""Marks a replayed job in the quarantine, beside its report."""
LOCK_WAIT_SECONDS = 5.0
Records = Sequence[JobRecord]


class NotReplayed(CtDefaceError):
    """A case cannot be replayed in its present state; nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Dependencies and options of replays.

    Attributes:
        spool: folders of the service.
        publish: puts a job into the queue.
        changes: options that differ from the earlier job.
        defaults: options of a case without a readable report.
        now: returns the present time, UTC.
        dry_run: whether to change nothing.
        anyway: whether to replay also while a job of the case has begun and not ended.
        step: called with the name of each completed step (tests stop there).
    """

    spool: ServiceSpool
    publish: Callable[[DefaceJob], None]
    changes: ReplayOptions
    defaults: DefaceOptions
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    dry_run: bool = False
    anyway: bool = False
    step: Callable[[str], None] = lambda _: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The originals of a case.

    Attributes:
        folder: folder that holds them.
        manifest: their fingerprint.
        is_archived: whether they must stay there, so that a copy goes into the inbox.
    """

    folder: Path
    manifest: Manifest
    is_archived: bool = False


def replay_case(replay: Replay, case: str) -> ReplayRequest:
    """Replay the newest job of a case, or continue an interrupted replay.

    Returns:
        The request; `published` is False after a dry run.

    Raises:
        NotReplayed: the case is unknown or being processed, or the inbox holds other files under
            its name.
        BrokerUnavailable: the queue did not confirm; the replay can be repeated.
        StorageUnavailable: storage failed; the replay can be repeated.
    """
    with _exclusive(replay.spool, lock_name(f"replay {case}")), atomic.storage_errors():
        records = JobReader(replay.spool.reports).of_case(case)
        latest = max(
            (one for one in records if one.state), key=lambda one: one.age_key, default=None
        )
        if not records and not os.path.lexists(case_path(replay.spool.inbox, case)):
            raise NotReplayed(_unknown(replay.spool, case))
        with _exclusive(
            replay.spool, claim_name(latest.job_id) if latest else lock_name(f"new {case}")
        ):
            return _replay(replay, case, records, latest)


def _replay(replay: Replay, case: str, records: Records, latest: JobRecord | None) -> ReplayRequest:
    if latest and latest.code in DROP_REFUSALS:
        raise NotReplayed(
            f"its last drop was refused as {latest.code} and is not a complete case: "
            "drop the complete case again"
        )
    earlier = read_order(replay.spool, case, latest.job_id) if latest else None
    if latest and earlier and _is_unfinished(replay, latest, earlier):
        if latest.ended:  # the replay was killed after its job was published
            return earlier if replay.dry_run else _mark(replay, earlier)
        source = find_source(replay.spool, case, earlier.replays, earlier.job.manifest.digest)
        if source.manifest == earlier.job.manifest:
            return earlier if replay.dry_run else carry_out(replay, earlier, source)
    replaced = earlier if latest and latest.state is JobState.ORDERED else None
    _require_ended(replay, records, latest, replaced)
    request, source = _new_request(replay, case, records, replaced)
    if replay.dry_run:
        return request
    write_order(replay.spool, request)
    replay.step("ordered")
    if replaced:
        drop_order(replay.spool, replaced)
    return carry_out(replay, request, source)


def carry_out(replay: Replay, request: ReplayRequest, source: Source) -> ReplayRequest:
    """Carry out a request from the step that it had reached."""
    _put_back(replay.spool, request, source)
    replay.step("put back")
    replay.publish(request.job)
    replay.step("published")
    return _mark(replay, request)


def next_job(records: Records, job: DefaceJob) -> DefaceJob:
    """Return a job as the newest of its case.

    Its generation is higher and its submission later than all others, regardless of the clocks.
    """
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
    """Find the originals of a job in inbox, quarantine or archive.

    Args:
        spool: folders of the service.
        case: name of the case.
        replayed: id of the job whose originals are wanted; empty if none had begun.
        digest: digest of their manifest; empty if unknown.

    Raises:
        NotReplayed: they are gone, or the inbox holds other files under their name.
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
            "its originals are neither in inbox, quarantine nor archive: drop the case again"
        )
    if inbox.is_dir() and not inbox.is_symlink():
        present = Manifest.scan(inbox)
        if not digest or present.digest in {digest, *(source.manifest.digest for source in found)}:
            return Source(folder=inbox, manifest=present)
    raise NotReplayed(
        "the inbox holds other files under its name: wait until their job has ended, "
        "or move them away"
    )


@contextmanager
def _exclusive(spool: ServiceSpool, name: str) -> Iterator[None]:
    """Hold a lock against other replays, or against the worker that holds the same claim.

    Raises:
        NotReplayed: a worker or another replay holds it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(
                locked(
                    spool.locks,
                    name,
                    stale_seconds=MISSED_HEARTBEATS_SECONDS,
                    wait_seconds=LOCK_WAIT_SECONDS,
                )
            )
        except StorageUnavailable:
            raise NotReplayed(
                "a worker or another replay is processing it: try again when that has ended"
            ) from None
        yield


def _unknown(spool: ServiceSpool, case: str) -> str:
    """Return that a case is unknown, with similar names if there are any."""
    known = {one.case for one in JobReader(spool.reports).read()}
    with suppress(OSError):
        known |= {entry.name for entry in spool.inbox.iterdir() if entry.is_dir()}
    near = get_close_matches(case, sorted(known), n=3)
    hint = f"did you mean {', '.join(near)}?" if near else "ctdeface status shows the cases"
    return f"no case and no job of this name is known: {hint}"


def _require_ended(
    replay: Replay, records: Records, latest: JobRecord | None, replaced: ReplayRequest | None
) -> None:
    """Check that no other job of the case will move its originals.

    Raises:
        NotReplayed: a job of the case is queued or being processed.
    """
    if replay.anyway:
        return
    if latest is None and not any(one.is_begun for one in records):
        raise NotReplayed(
            "it is on its way: it is in the inbox, and no job of it has begun yet; "
            "if the queue was lost, add --anyway"
        )
    queued = latest is None or (
        latest.state is JobState.ORDERED and (replaced is None or replaced.published)
    )
    if queued or any(one.is_begun or one.is_publishing for one in records):
        raise NotReplayed(
            "a job of it is on its way and has not ended: wait for it; "
            "if the queue was lost, add --anyway"
        )


def _is_unfinished(replay: Replay, latest: JobRecord, request: ReplayRequest) -> bool:
    """Return whether an interrupted replay asked for the same options as this one."""
    finished = latest.ended and request.published
    return not finished and replay.changes.over(request.job.options) == request.job.options


def _new_request(
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
    options = replay.changes.over(_options(replay, case, replays))
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


def _put_back(spool: ServiceSpool, request: ReplayRequest, source: Source) -> None:
    inbox = case_path(spool.inbox, request.job.case)
    if source.folder == inbox:
        return
    inbox.parent.mkdir(parents=True, exist_ok=True)
    if not source.is_archived:
        source.folder.rename(inbox)
        atomic.sync_folder(source.folder.parent)
        atomic.sync_folder(inbox.parent)
        return
    hidden = inbox.with_name(f".{request.job.job_id}.replay")
    shutil.rmtree(hidden, ignore_errors=True)  # left by a crash
    try:
        shutil.copytree(source.folder, hidden, symlinks=True)
        if Manifest.scan(hidden) != request.job.manifest:
            raise StorageUnavailable("the copy of the archived originals differs from them")
        hidden.rename(inbox)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    atomic.sync_folder(inbox.parent)


def _mark(replay: Replay, request: ReplayRequest) -> ReplayRequest:
    entry = case_path(replay.spool.quarantine, request.job.case) / request.replays
    if request.replays and entry.is_dir():
        content = {
            "replayed_as": request.job.job_id,
            "at": request.job.submitted_at.isoformat(timespec="seconds"),
        }
        atomic.write_file(entry / REPLAYED, json.dumps(content, indent=1).encode())
    replay.step("quarantine marked")
    # last: until then the same replay continues instead of beginning another one
    done = replace(request, published=True)
    write_order(replay.spool, done)
    return done
