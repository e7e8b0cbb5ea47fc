"""Every case is entered once in the audit log, wherever its writer is killed."""

import resource
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event

import pytest

from ctdeface_shared.audit.chain import TORN, Tail
from ctdeface_shared.audit.entry import CaseEnd, Entry, Outcome
from ctdeface_shared.audit.writer import audit_log
from ctdeface_shared.broker.memory import MemoryBroker
from ctdeface_shared.broker.settlement import Ack, Retry
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.jobs.taken import taken_case
from ctdeface_shared.settings.sections import AuditSection
from ctdeface_shared.storage.spool import ServiceSpool, Spool
from ctdeface_worker.batch.case import deface_case
from ctdeface_worker.batch.discovery import Case
from ctdeface_worker.case.child_process import WarmChild
from ctdeface_worker.publishing.audit_entry import attest
from ctdeface_worker.publishing.commit import publish, recover, resume
from ctdeface_worker.report.model import State
from ctdeface_worker.service.consumer import handle
from tests.integration.test_batch_case import batch_of, never
from tests.integration.test_publishing import NEWEST, STEPS, Killed, kill_after, mark_dead, stage
from tests.support.service.audited import (
    an_end,
    lines_of,
    log_in,
    problems,
    release,
    rewrite,
    rules_with,
    seen,
    write,
)
from tests.support.service.slots import RULE, SlotOptions, make_slot
from tests.support.service.spools import drop, job_for

ENDLESS = """
import sys
from itertools import count
from pathlib import Path
from ctdeface_shared.audit.entry import CaseEnd, Outcome
from ctdeface_shared.audit.writer import AuditLog, AuditTarget
root = Path(sys.argv[1])
target = AuditTarget(
    folder=root / "audit",
    locks=root / "locks",
    writer="host",
    stale_seconds=4000,
    segment_bytes=20_000,
)
with AuditLog(target) as log:
    for number in count():
        job = f"{sys.argv[2]}-{number}"
        end = CaseEnd(
            job_id=job,
            submitted_at="2026-01-02",
            outcome=Outcome.RELEASED,
            report="r",
            program="p",
        )
        log.record(end)
        print(number, flush=True)
"""


def _endless(root: Path, name: str) -> "subprocess.Popen[bytes]":
    """Enter jobs until killed, and print the number of each."""
    return subprocess.Popen([sys.executable, "-c", ENDLESS, root, name], stdout=subprocess.PIPE)


def _killed(process: "subprocess.Popen[bytes]", after: int) -> int:
    """Kill a process once it has printed this number; return its last number."""
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= after:
            break
    process.send_signal(signal.SIGKILL)
    last = [after, *map(int, process.stdout.read().split())][-1]
    process.wait()
    process.stdout.close()
    return last


def test_killed_writers_lose_nothing_that_they_said_was_entered_and_their_chains_go_on(
    tmp_path: Path,
) -> None:
    """Two processes are killed twice while they write; their chains stay whole and complete."""
    said: dict[str, int] = {}
    for folder in ("audit", "locks"):
        (tmp_path / folder).mkdir()
    for name in ("first", "second"):
        writers = {each: _endless(tmp_path, each) for each in (f"{name}-a", f"{name}-b")}
        for process in writers.values():  # both write before one is killed
            assert process.stdout is not None
            assert process.stdout.readline()
        said |= {each: _killed(process, 20) for each, process in writers.items()}
    chains = seen(tmp_path)
    assert [chain.name for chain in chains] == ["host.1", "host.2"]
    assert problems(tmp_path) == []
    entered = [end.job_id for chain in chains for end in chain.ends]
    assert len(set(entered)) == len(entered)
    assert {f"{name}-{number}" for name, last in said.items() for number in range(last + 1)} <= set(
        entered
    )


@pytest.mark.parametrize("cut", [1, 40, -1])
def test_a_line_that_a_killed_writer_left_unfinished_is_told_and_the_chain_goes_on(
    tmp_path: Path, cut: int
) -> None:
    """Nothing is removed; the next entry covers the partial line, so a later change shows."""
    write(tmp_path, "job-1", "job-2")
    lines = lines_of(tmp_path)
    rewrite(tmp_path, [lines[0], lines[1][:cut]])
    (chain,) = seen(tmp_path)
    assert (chain.problems, chain.notes) == (
        [],
        ["the last line is unfinished: its writer was killed, or is writing"],
    )
    write(tmp_path, "job-2", "job-3")
    (chain,) = seen(tmp_path)
    assert (chain.problems, chain.notes) == (
        [],
        ["a line before entry 2 is unfinished: its writer was killed"],
    )
    assert [end.job_id for end in chain.ends] == ["job-1", "job-2", "job-3"]
    later = lines_of(tmp_path)
    assert b"".join(later).startswith(b"".join([lines[0], lines[1][:cut]]))
    rewrite(tmp_path, [later[0], b"x" + later[1][1:], *later[2:]])
    assert len(problems(tmp_path)) == 1


def test_a_writer_that_is_killed_again_while_it_goes_on_leaves_no_puzzle(tmp_path: Path) -> None:
    """One entry covers several unfinished lines in a row."""
    write(tmp_path, "job-1")
    file = tmp_path / "audit" / "host.1" / "000001.jsonl"
    file.write_bytes(file.read_bytes() + b'{"at":' + TORN + b'{"at":"2026' + TORN + b'{"a')
    write(tmp_path, "job-2")
    assert problems(tmp_path) == []
    assert Tail.of(file.parent).seq == 2


def test_what_is_cut_off_under_a_living_writer_is_found_without_a_head(tmp_path: Path) -> None:
    """It continues what it wrote, not what was changed since."""
    with log_in(tmp_path) as log:
        for job in ("job-1", "job-2", "job-3"):
            log.record(an_end(job))
        rewrite(tmp_path, lines_of(tmp_path)[:1])
        log.record(an_end("job-4"))
        log.record(an_end("job-5"))
    assert problems(tmp_path) == [
        "entry 4 follows entry 1: entries are missing, repeated or out of order"
    ]


def test_two_writers_of_one_machine_have_a_chain_each_and_enter_no_end_twice(
    tmp_path: Path,
) -> None:
    """The second process takes the next number and finds the entries of the first."""
    with log_in(tmp_path) as one, log_in(tmp_path) as other:
        assert one.record(an_end("job-1"))
        assert other.record(an_end("job-2"))
        assert not other.record(an_end("job-1"))
        assert other.record(an_end("job-1", submitted_at=NEWEST))
    write(tmp_path, "job-3")
    assert [[end.job_id for end in chain.ends] for chain in seen(tmp_path)] == [
        ["job-1", "job-3"],
        ["job-2", "job-1"],
    ]
    assert list((tmp_path / "locks").iterdir()) == []


def test_a_writer_whose_lock_was_taken_over_goes_on_in_another_chain(tmp_path: Path) -> None:
    """After hours frozen it never writes into a chain that another process holds."""
    with log_in(tmp_path) as frozen:
        frozen.record(an_end("job-1"))
        (lock,) = (tmp_path / "locks").iterdir()
        lock.rename(tmp_path / "taken away")
        with log_in(tmp_path) as other:
            other.record(an_end("job-2"))
            frozen.record(an_end("job-3"))
            other.record(an_end("job-4"))
    assert [[end.job_id for end in chain.ends] for chain in seen(tmp_path)] == [
        ["job-1", "job-2", "job-4"],
        ["job-3"],
    ]
    assert problems(tmp_path) == []


def test_a_full_disk_is_worth_another_attempt_and_leaves_the_chain_whole(tmp_path: Path) -> None:
    """A half-written line counts as unfinished."""
    with log_in(tmp_path) as log:
        log.record(an_end("job-1"))
        size = (tmp_path / "audit" / "host.1" / "000001.jsonl").stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                log.record(an_end("job-2"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
        assert log.record(an_end("job-2"))
    assert problems(tmp_path) == []
    assert len(lines_of(tmp_path)) == 3


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """Empty folders."""
    made = Spool.beside(tmp_path / "out", tmp_path / "state")
    made.prepare(outbox_mode=0o750)
    return made


def _entries(root: Path) -> list[CaseEnd]:
    assert problems(root) == []
    return [end for chain in seen(root) for end in chain.ends]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("again", [resume, recover])
def test_a_publication_killed_at_any_step_is_entered_exactly_once(
    spool: Spool, tmp_path: Path, step: str, again: object
) -> None:
    """One output and one entry, and no entry before the output exists."""
    state = tmp_path / "state"
    with log_in(state) as log:
        report, staged = stage(spool, "job", "new")
        with pytest.raises(Killed):
            publish(spool, report, staged, rules_with(log, spool), step=kill_after(step))
        assert len(_entries(state)) == (1 if step in {"before done", "done"} else 0)
        mark_dead(staged)
        prepared = replace(report, state=State.PREPARED, staged=staged.name)
        there = (
            recover(spool, rules_with(log, spool))
            if again is recover
            else resume(spool, prepared, rules_with(log, spool))
        )
        if (
            step == "staged" and again is recover
        ):  # nothing says yet that it was proven: the job is worked on again
            assert (there, _entries(state)) == ((), [])
            return
    (end,) = _entries(state)
    assert (end.job_id, end.outcome, end.files, end.outputs) == (
        "job",
        Outcome.RELEASED,
        2,
        report.outputs_digest,
    )


def test_an_entry_names_the_outputs_that_it_replaces(spool: Spool, tmp_path: Path) -> None:
    """So that an earlier output cannot be put back unnoticed."""
    with log_in(tmp_path / "state") as log:
        release(spool, log, "old")
        release(spool, log, "new", "newer", created_at=NEWEST)
    assert [end.replaces for end in _entries(tmp_path / "state")] == [(), ("old",)]


def test_a_job_is_not_done_before_its_entry_is_on_the_disk(spool: Spool, tmp_path: Path) -> None:
    """Without an entry the case stays published and not done; the entry follows later."""
    state = tmp_path / "state"
    with log_in(state) as log:
        report, staged = stage(spool, "job", "new")
        (state / "audit").rmdir()
        (state / "audit").write_text("a file where the folder was", encoding="utf-8")
        with pytest.raises(NotADirectoryError):
            publish(spool, report, staged, rules_with(log, spool))
        (state / "audit").unlink()
        (state / "audit").mkdir()
        (final,) = recover(spool, rules_with(log, spool)) or (
            resume(spool, replace(report, staged=staged.name), rules_with(log, spool)),
        )
    assert final is not None
    assert final.state is State.DONE
    assert len(_entries(state)) == 1


def test_a_refused_job_is_entered_before_it_is_settled_and_once(tmp_path: Path) -> None:
    """A delivery whose entry fails is repeated; one repeated after its end is not entered again."""
    spool = ServiceSpool.under(tmp_path)
    spool.prepare(outbox_mode=0o750)
    spool.prepare_inbox(moves_originals=True)
    drop(spool, "a")
    job = job_for(spool, "a")
    (taken_case(spool, job.taken).files / "late.dcm").write_bytes(b"late")
    broker = MemoryBroker()
    broker.publish(job)
    delivery = broker.receive(1.0)
    assert delivery is not None
    last = replace(delivery, attempt=RULE.max_attempts)
    with log_in(tmp_path) as log:
        options = SlotOptions(attest=partial(attest, log, spool, Outcome.QUARANTINED))
        slot = make_slot(spool, broker, options)
        spool.audit.rmdir()
        spool.audit.write_text("a file where the folder was", encoding="utf-8")
        assert isinstance(handle(slot, last).settlement, Retry)
        spool.audit.unlink()
        spool.audit.mkdir()
        assert handle(slot, last).settlement == Ack()
        assert handle(slot, last).settlement == Ack()
    (end,) = _entries(tmp_path)
    assert (end.job_id, end.outcome, end.code, end.outputs) == (
        job.job_id,
        Outcome.QUARANTINED,
        "InputChanged",
        "",
    )


def test_a_batch_enters_what_it_refuses_and_nothing_that_a_person_broke_off(tmp_path: Path) -> None:
    """A stop does not end a case."""
    batch = batch_of(tmp_path)
    gone = Case(name="gone", folder=tmp_path / "gone")
    with log_in(tmp_path / "state") as log:
        stop = Event()
        batch = replace(
            batch, stop=stop, attest=partial(attest, log, batch.spool, Outcome.REJECTED)
        )
        stop.set()
        deface_case(batch, gone, WarmChild(never), lambda _: None)
        assert _entries(tmp_path / "state") == []
        stop.clear()
        deface_case(batch, gone, WarmChild(never), lambda _: None)
    (end,) = _entries(tmp_path / "state")
    assert (end.outcome, end.code, end.inputs) == (Outcome.REJECTED, "UnexpectedError", "")


def test_a_key_that_cannot_be_used_ends_the_program_before_any_job(
    spool: Spool, tmp_path: Path
) -> None:
    """No key, another kind of key, and a key that every user may read."""
    file = tmp_path / "audit.key"
    with (
        pytest.raises(ConfigurationError, match="cannot be read"),
        audit_log(spool, AuditSection(key_file=file), stale_seconds=1),
    ):
        pytest.fail("written without the key")
    file.write_text("no key", encoding="utf-8")
    file.chmod(0o600)
    with (
        pytest.raises(ConfigurationError, match="ctdeface audit key"),
        audit_log(spool, AuditSection(key_file=file), stale_seconds=1),
    ):
        pytest.fail("written without a key")
    file.chmod(0o644)
    with (
        pytest.raises(ConfigurationError, match="chmod 600"),
        audit_log(spool, AuditSection(key_file=file), stale_seconds=1),
    ):
        pytest.fail("written with a key that everybody knows")


def test_the_log_holds_no_name(spool: Spool, tmp_path: Path) -> None:
    """Neither case nor file names: digests and job ids only."""
    with log_in(tmp_path / "state") as log:
        release(spool, log, "job", case="Mustermann^Erika")
    (line,) = lines_of(tmp_path / "state")
    assert b"Mustermann" not in line
    assert b"dcm" not in line
    assert Entry.from_line(line[:-1]).end.job_id == "job"
