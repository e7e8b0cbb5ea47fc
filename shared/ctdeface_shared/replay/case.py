"""Replay a case: bring its originals into a taken folder, and publish a job of a higher generation.

request written → taken folder created → originals in it → job written → published → quarantine
marked → request marked. Each step can be repeated, so the same replay continues after a crash with
the request and the folder that it finds. Nothing is overwritten, archived originals stay in the
archive, and nothing is put into the inbox.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches

from ctdeface_shared.errors import StorageUnavailable
from ctdeface_shared.jobs.history import DROP_REFUSALS, JobReader, JobRecord
from ctdeface_shared.jobs.manifest import job_id
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
from ctdeface_shared.jobs.taken import (
    TakenCase,
    new_record,
    new_taken_id,
    taken_case,
    taken_cases,
)
from ctdeface_shared.replay.request import ReplayOptions
from ctdeface_shared.replay.sources import (
    NotReplayed,
    Place,
    Source,
    SourceRules,
    bring,
    find_source,
)
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.locks import MISSED_HEARTBEATS_SECONDS, claim_name, lock_name, locked
from ctdeface_shared.storage.spool import ServiceSpool, case_path
from ctdeface_shared.storage.tree_limits import TreeLimits

REPLAYED = "replayed.json"
"""Marks a replayed job in the quarantine, beside its report."""
LOCK_WAIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Dependencies and options of replays.

    Attributes:
        spool: folders of the service.
        publish: puts a job into the queue.
        changes: options that differ from the earlier job.
        defaults: options of a case without a readable report.
        limits: maximum content of a case.
        kept: whether dropped files stay in the inbox.
        now: returns the present time, UTC.
        dry_run: whether to change nothing.
        anyway: whether to replay also while a job of the case has begun and not ended.
        step: called with the name of each completed step (tests stop there).
    """

    spool: ServiceSpool
    publish: Callable[[DefaceJob], None]
    changes: ReplayOptions
    defaults: DefaceOptions
    limits: TreeLimits
    kept: bool = False
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    dry_run: bool = False
    anyway: bool = False
    step: Callable[[str], None] = lambda _: None

    @property
    def rules(self) -> SourceRules:
        """Return where to look for originals."""
        return SourceRules(spool=self.spool, limits=self.limits, kept=self.kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseJobs:
    """What is known about a case.

    Attributes:
        case: name of the case.
        records: its jobs that have begun, ended or were requested.
        latest: the newest of them with a report or request.
        taken: its taken folders.
    """

    case: str
    records: Sequence[JobRecord]
    latest: JobRecord | None
    taken: Sequence[TakenCase]


def replay_case(replay: Replay, case: str) -> ReplayRequest:
    """Replay the newest job of a case, or continue an interrupted replay.

    Returns:
        The request; `published` is False after a dry run.

    Raises:
        NotReplayed: the case is unknown or being processed, or its originals are gone.
        UnsafeDrop: kept originals are not the files of one user, or too many.
        BrokerUnavailable: the queue did not confirm; the replay can be repeated.
        StorageUnavailable: storage failed; the replay can be repeated.
    """
    with _exclusive(replay.spool, replay_lock(case)), atomic.storage_errors():
        records = JobReader(replay.spool.reports).of_case(case)
        latest = max(
            (one for one in records if one.state), key=lambda one: one.age_key, default=None
        )
        taken = tuple(_taken_of(replay.spool, case))
        if not records and not taken:
            raise NotReplayed(_unknown(replay.spool, case))
        known = CaseJobs(case=case, records=records, latest=latest, taken=taken)
        with _exclusive(
            replay.spool, claim_name(latest.job_id) if latest else lock_name(f"new {case}")
        ):
            return _replay(replay, known)


def replay_lock(case: str) -> str:
    """Return the name of the lock that a replay of a case holds."""
    return lock_name(f"replay {case}")


def next_job(records: Sequence[JobRecord], job: DefaceJob) -> DefaceJob:
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


def _replay(replay: Replay, known: CaseJobs) -> ReplayRequest:
    latest = known.latest
    if latest and latest.code in DROP_REFUSALS:
        raise NotReplayed(
            f"its last drop was refused as {latest.code} and is not a complete case: "
            "drop the complete case again"
        )
    earlier = read_order(replay.spool, known.case, latest.job_id) if latest else None
    if latest and earlier and _is_unfinished(replay, latest, earlier):
        continued = _continued(replay, latest, earlier)
        if continued is not None:
            return continued
    replaced = earlier if latest and latest.state is JobState.ORDERED else None
    _require_ended(replay, known, replaced)
    request, source = _new_request(replay, known, replaced)
    if replay.dry_run:
        return request
    write_order(replay.spool, request)
    replay.step("ordered")
    if replaced:
        drop_order(replay.spool, replaced)
    return _carry_out(replay, request, source)


def _continued(replay: Replay, latest: JobRecord, request: ReplayRequest) -> ReplayRequest | None:
    """Continue an interrupted replay; return None if its originals have changed since."""
    job, source = request.job, None
    if not latest.ended and not taken_case(replay.spool, job.taken).files.is_dir():
        source = find_source(replay.rules, job.case, request.replays, job.manifest.digest)
        if source.manifest != job.manifest:
            return None
    if replay.dry_run:
        return request
    if latest.ended:  # the replay was killed after its job was published
        return _mark(replay, request)
    return _carry_out(replay, request, source)


def _carry_out(replay: Replay, request: ReplayRequest, source: Source | None) -> ReplayRequest:
    """Carry out a request from the step that it had reached.

    Args:
        replay: dependencies.
        request: was written before.
        source: the originals; None if they are in the taken folder.
    """
    job = request.job
    taken = taken_case(replay.spool, job.taken)
    if source is not None:
        if not taken.folder.is_dir():
            record = replace(
                new_record("", job.case), owner=job.owner, left_in_inbox=job.left_in_inbox
            )
            TakenCase.create(replay.spool, record, job.taken)
        replay.step("taken")
        bring(replay.rules, source, taken)
    replay.step("brought")
    taken.write_job(job)
    replay.step("job written")
    replay.publish(job)
    replay.step("published")
    return _mark(replay, request)


def _taken_of(spool: ServiceSpool, case: str) -> Iterator[TakenCase]:
    """Yield the taken folders of a case."""
    for taken in taken_cases(spool):
        record = taken.record()
        if record is not None and record.case == case:
            yield taken


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
    """Return that a case has no job, with similar names if there are any."""
    if os.path.lexists(case_path(spool.inbox, case)):
        return "it is in the inbox: it is taken and gets a job when it is complete"
    known = {one.case for one in JobReader(spool.reports).read()}
    with suppress(OSError):
        known |= {entry.name for entry in spool.inbox.iterdir() if entry.is_dir()}
    near = get_close_matches(case, sorted(known), n=3)
    hint = f"did you mean {', '.join(near)}?" if near else "ctdeface status shows the cases"
    return f"no case and no job of this name is known: {hint}"


def _require_ended(replay: Replay, known: CaseJobs, replaced: ReplayRequest | None) -> None:
    """Check that no other job of the case has its originals.

    Raises:
        NotReplayed: the case is being examined, queued or processed.
    """
    others = [one for one in known.taken if not _is_of(one, replaced)]
    if not known.records and all(one.job() is None for one in others):
        raise NotReplayed("it was just taken out of the inbox: its job follows by itself")
    if replay.anyway:
        return
    latest = known.latest
    is_queued = any(one.job() is not None for one in others) or (
        latest is not None
        and latest.state is JobState.ORDERED
        and (replaced is None or replaced.published)
    )
    if is_queued or any(one.is_begun or one.is_publishing for one in known.records):
        raise NotReplayed(
            "a job of it is on its way and has not ended: wait for it; "
            "if the queue was lost, add --anyway"
        )


def _is_of(taken: TakenCase, request: ReplayRequest | None) -> bool:
    return request is not None and taken.taken_id == request.job.taken


def _is_unfinished(replay: Replay, latest: JobRecord, request: ReplayRequest) -> bool:
    """Return whether an interrupted replay asked for the same options as this one.

    A replay of release 0.1.0 has no taken folder and is not continued.
    """
    finished = latest.ended and request.published
    same = replay.changes.over(request.job.options) == request.job.options
    return not finished and same and bool(request.job.taken)


def _new_request(
    replay: Replay, known: CaseJobs, replaced: ReplayRequest | None
) -> tuple[ReplayRequest, Source | None]:
    """Return a request, and the originals if they are not in its taken folder yet."""
    waiting = _waiting_job(known, replaced)
    if waiting is not None:
        job = replace(
            waiting,
            submitted_at=replay.now(),
            options=replay.changes.over(waiting.options),
        )
        replays = replaced.replays if replaced else ""
        return ReplayRequest(job=next_job(known.records, job), replays=replays), None
    reported = max(
        (one for one in known.records if one.state not in {None, JobState.ORDERED}),
        key=lambda one: one.age_key,
        default=None,
    )
    replays = reported.job_id if reported else replaced.replays if replaced else ""
    digest = reported.digest if reported else ""
    source = find_source(replay.rules, known.case, replays, digest)
    job = DefaceJob(
        job_id="",
        case=known.case,
        manifest=source.manifest,
        submitted_at=replay.now(),
        options=replay.changes.over(_options(replay, known.case, replays)),
        taken=(replaced.job.taken if replaced else "") or new_taken_id(),
        left_in_inbox=source.place is Place.INBOX,
        owner=reported.owner if reported else None,
    )
    return ReplayRequest(job=next_job(known.records, job), replays=replays), source


def _waiting_job(known: CaseJobs, replaced: ReplayRequest | None) -> DefaceJob | None:
    """Return the job whose files are in a taken folder: of a replaced request, or a lost one."""
    filled = [one for one in known.taken if one.files.is_dir()]
    if replaced and any(_is_of(one, replaced) for one in filled):
        return replaced.job
    return next((job for job in (one.job() for one in filled) if job is not None), None)


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
