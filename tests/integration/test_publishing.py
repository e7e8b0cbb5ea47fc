"""Publishing has one visible effect wherever it is interrupted, and never halves a case."""

import errno
import grp
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ctdeface_shared.errors import ConfigurationError, StorageUnavailable, VerificationFailed
from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_shared.storage import atomic, locks
from ctdeface_shared.storage.spool import Spool
from ctdeface_worker.imaging.domain import Fate
from ctdeface_worker.pipeline.result import CaseResult, FileResult
from ctdeface_worker.publishing.commit import publish, recover, resume
from ctdeface_worker.publishing.journal import find_report, record_refusal, report_folder
from ctdeface_worker.publishing.outbox import OutputRules
from ctdeface_worker.report.model import CaseReport, State, describe

STEPS = ("staged", "marked", "prepared", "renamed", "published", "before done", "done")
OVER_AN_EARLIER_OUTPUT = (*STEPS[:3], "set aside", *STEPS[3:])
OLD, NEW, NEWEST = (
    "2026-01-01T00:00:00.000+00:00",
    "2026-01-02T00:00:00.000+00:00",
    "2026-01-03T00:00:00.000+00:00",
)
RULES = OutputRules(stale_seconds=4000)


class Killed(BaseException):
    """Stands for the death of the process: nothing catches it."""


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """Empty folders."""
    made = Spool.beside(tmp_path / "out", tmp_path / "state")
    made.prepare(outbox_mode=0o750)
    return made


def stage(
    spool: Spool, job: str, text: str, created_at: str = NEW, case: str = "group/a"
) -> tuple[CaseReport, Path]:
    """Stage a case of two files, as a process would that is gone since."""
    staged = spool.staging / hashlib.sha256(f"{job} {created_at}".encode()).hexdigest()[:16]
    shutil.rmtree(staged, ignore_errors=True)
    contents = {"1.dcm": f"{text} one", "sub/2.dcm": f"{text} two"}
    for name, content in contents.items():
        (staged / "dicom" / name).parent.mkdir(parents=True, exist_ok=True)
        (staged / "dicom" / name).write_text(content, encoding="utf-8")
    (staged / locks.OWNER_FILE).write_text("{}", encoding="utf-8")
    mark_dead(staged)
    return report_of(job, contents, created_at, case), staged


def report_of(
    job: str, contents: dict[str, str], created_at: str = NEW, case: str = "group/a"
) -> CaseReport:
    """Describe what was proven."""
    digests = {
        name: hashlib.sha256(content.encode()).hexdigest() for name, content in contents.items()
    }
    files = tuple(
        FileResult(file=name, size=9, sha256="", fate=Fate.RELEASED, output_sha256=digests[name])
        for name in digests
    )
    result = CaseResult(released=True, files=files)
    made = describe(job, case, Manifest(files=2, bytes=18, digest="d"), DefaceOptions(), result)
    return replace(made, created_at=created_at)


def shown(spool: Spool, case: str = "group/a") -> dict[str, str]:
    """Content of every file that a user sees of a case."""
    folder = spool.outbox / case
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def content(text: str) -> dict[str, str]:
    """What a whole case looks like."""
    return {"1.dcm": f"{text} one", "sub/2.dcm": f"{text} two"}


def kill_after(step: str) -> Callable[[str], None]:
    """Die when a step is done."""

    def told(done: str) -> None:
        if done == step:
            raise Killed

    return told


def state_of(spool: Spool, job: str) -> State | None:
    """State in the report of a job."""
    report = find_report(spool, "group/a", job)
    return report.state if report else None


def mark_dead(staged: Path) -> None:
    """Make a staging folder look as its dead process left it long ago."""
    for path in (staged, staged / locks.OWNER_FILE):
        if path.exists():
            os.utime(path, (0, 0))


@pytest.mark.parametrize("step", STEPS)
def test_a_job_killed_after_any_step_is_published_once_by_the_next_process(
    spool: Spool, step: str
) -> None:
    """Nothing partial is ever there; what was staged only is swept, what was marked is finished."""
    report, staged = stage(spool, "job", "new")
    with pytest.raises(Killed):
        publish(spool, report, staged, RULES, step=kill_after(step))
    assert shown(spool) in ({}, content("new"))
    mark_dead(staged)
    recover(spool, RULES)
    locks.sweep(spool.staging, stale_seconds=10)
    if step == "staged":
        assert shown(spool) == {}
    else:
        assert shown(spool) == content("new")
        assert state_of(spool, "job") is State.DONE
    assert list(spool.staging.iterdir()) == []
    assert not (spool.archive / "outputs").exists()


@pytest.mark.parametrize("step", OVER_AN_EARLIER_OUTPUT)
def test_a_kill_while_an_earlier_output_is_replaced_loses_neither(spool: Spool, step: str) -> None:
    """The earlier output is archived or still visible; the case is whole or absent."""
    publish(spool, *stage(spool, "early", "old", OLD), RULES)
    report, staged = stage(spool, "job", "new")
    with pytest.raises(Killed):
        publish(spool, report, staged, RULES, step=kill_after(step))
    assert shown(spool) in ({}, content("old"), content("new"))
    mark_dead(staged)
    recover(spool, RULES)
    archived = spool.archive / "outputs/group/a/early"
    if step == "staged":
        assert shown(spool) == content("old")
    else:
        assert shown(spool) == content("new")
        assert (archived / "1.dcm").read_text() == "old one"
    assert list((spool.archive / "outputs").glob("**/unknown*")) == []


@pytest.mark.parametrize("step", STEPS[2:])
def test_a_redelivered_job_goes_on_from_its_report(spool: Spool, step: str) -> None:
    """`resume` ends in the same state whatever was recorded, and again when it is called again."""
    report, staged = stage(spool, "job", "new")
    with pytest.raises(Killed):
        publish(spool, report, staged, RULES, step=kill_after(step))
    for _ in range(2):
        found = find_report(spool, "group/a", "job")
        assert found is not None
        final = resume(spool, found, RULES)
        assert final is not None
        assert final.state is State.DONE
        assert shown(spool) == content("new")


def test_an_older_job_that_finishes_after_a_newer_one_is_superseded(spool: Spool) -> None:
    """It changes nothing that is visible, and never counts as published."""
    publish(spool, *stage(spool, "newer", "newest", NEWEST), RULES)
    final = publish(spool, *stage(spool, "older", "old", OLD), RULES)
    assert final.state is State.SUPERSEDED
    assert not final.is_published
    assert shown(spool) == content("newest")
    assert resume(spool, final, RULES) == final
    assert "Superseded" in (report_folder(spool, final) / "report.html").read_text()


def test_a_later_drop_replaces_what_a_replay_published(spool: Spool) -> None:
    """Time decides between jobs of a case; a replay's generation counts for its own job only."""
    replayed, staged = stage(spool, "replayed", "old", OLD)
    publish(spool, replace(replayed, generation=3), staged, RULES)
    assert publish(spool, *stage(spool, "later", "new"), RULES).state is State.DONE
    assert shown(spool) == content("new")


def test_a_refusal_never_replaces_the_report_of_a_published_job(spool: Spool) -> None:
    """It is kept beside it, and the next publication takes it away."""
    done = publish(spool, *stage(spool, "job", "old", OLD), RULES)
    refused = replace(
        done,
        state=State.REFUSED,
        created_at=NEW,
        result=CaseResult(released=False, code="VerificationFailed"),
    )
    record_refusal(spool, refused, stale_seconds=60)
    folder = report_folder(spool, done)
    assert find_report(spool, "group/a", "job") == done
    assert CaseReport.from_json((folder / "repeat.json").read_bytes()) == refused
    publish(spool, *stage(spool, "job", "new", NEWEST), RULES)
    assert not (folder / "repeat.json").exists()


def test_a_repeated_job_keeps_each_earlier_output_and_report(spool: Spool) -> None:
    """Archived outputs get the job's name with a number, earlier reports the same numbers."""
    for text, at in (("first", OLD), ("second", NEW), ("third", NEWEST)):
        publish(spool, *stage(spool, "job", text, at), RULES)
    archive = spool.archive / "outputs/group/a"
    assert {path.name: (path / "1.dcm").read_text() for path in archive.iterdir()} == {
        "job": "first one",
        "job-2": "second one",
    }
    folder = spool.reports / "group/a/job"
    assert [
        CaseReport.from_json((folder / f"earlier-{n}.json").read_bytes()).created_at for n in (1, 2)
    ] == [OLD, NEW]
    assert shown(spool) == content("third")


def test_a_job_that_two_workers_finish_is_published_once(spool: Spool) -> None:
    """The slower of two deliveries finds the same output and archives nothing."""
    first = publish(spool, *stage(spool, "job", "new"), RULES)
    second = publish(spool, *stage(spool, "job", "new"), RULES)
    assert first.state is second.state is State.DONE
    assert shown(spool) == content("new")
    assert not (spool.archive / "outputs").exists()
    assert list(report_folder(spool, first).glob("earlier*")) == []


@pytest.mark.parametrize("step", ["published", "done"])
def test_of_two_workers_with_different_outputs_the_faster_one_is_shown_and_told(
    spool: Spool, step: str
) -> None:
    """Processors may round differently; report and audit must match the visible output."""
    told: list[CaseReport] = []

    rules = replace(RULES, before_done=told.append)
    with pytest.raises(Killed):
        publish(spool, *stage(spool, "job", "first"), rules, step=kill_after(step))
    late, staged = stage(spool, "job", "second")
    final = publish(spool, late, staged, rules)
    assert shown(spool) == content("first")
    found = find_report(spool, "group/a", "job")
    assert found is not None
    assert found.outputs == final.outputs != late.outputs
    assert all(report.outputs == found.outputs for report in told)
    assert (found.state, final.state) == (State.DONE, State.DONE)
    assert not (staged / locks.UNFINISHED).exists()


def test_staged_files_that_changed_after_the_proof_are_not_published(spool: Spool) -> None:
    """Neither at once nor by a later process."""
    report, staged = stage(spool, "job", "new")
    (staged / "dicom/1.dcm").write_text("tampered")
    with pytest.raises(VerificationFailed):
        publish(spool, report, staged, RULES)
    mark_dead(staged)
    assert recover(spool, RULES) == ()
    assert locks.sweep(spool.staging, stale_seconds=10) == 1
    assert shown(spool) == {}


def test_staging_outlives_storage_that_fails_while_publishing(spool: Spool, tmp_path: Path) -> None:
    """After an I/O error the staged case survives sweeps until it is published."""

    def fail(_: CaseReport) -> None:
        raise OSError(5, "Input/output error")

    with locks.owned_folder(spool.staging) as staged:
        shutil.move(stage(spool, "job", "new")[1] / "dicom", staged / "dicom")
        with pytest.raises(StorageUnavailable, match="Input/output"):
            publish(
                spool, report_of("job", content("new")), staged, replace(RULES, before_done=fail)
            )
    assert locks.sweep(spool.staging, stale_seconds=-1) == 1  # the empty folder only
    assert staged.is_dir()
    found = find_report(spool, "group/a", "job")
    assert found is not None
    final = resume(spool, found, RULES)
    assert final is not None
    assert final.state is State.DONE
    assert not staged.exists()
    assert list(tmp_path.rglob(locks.UNFINISHED)) == []


def test_staging_of_a_living_process_or_of_another_outbox_is_left_alone(
    spool: Spool, tmp_path: Path
) -> None:
    """Only what dead processes left for this outbox is finished."""
    report, staged = stage(spool, "job", "new")
    with pytest.raises(Killed):
        publish(spool, report, staged, RULES, step=kill_after("prepared"))
    assert recover(spool, RULES) == ()  # touched a moment ago, perhaps by another machine
    mark_dead(staged)
    elsewhere = replace(spool, outbox=tmp_path / "elsewhere")
    elsewhere.outbox.mkdir()
    assert recover(elsewhere, RULES) == ()
    assert len(recover(spool, RULES)) == 1


@pytest.mark.parametrize("step", ["renamed", "published", "before done"])
@pytest.mark.parametrize("redelivered", [False, True])
def test_a_case_that_was_collected_before_its_job_was_done_is_not_published_again(
    spool: Spool, step: str, redelivered: bool
) -> None:
    """If the output was collected after a crash, the next process only records the end."""
    report, staged = stage(spool, "job", "new")
    with pytest.raises(Killed):
        publish(spool, report, staged, RULES, step=kill_after(step))
    shutil.rmtree(spool.outbox / "group/a")
    mark_dead(staged)
    if redelivered:
        found = find_report(spool, "group/a", "job")
        assert found is not None
        assert resume(spool, found, RULES) is not None
    else:
        recover(spool, RULES)
    assert state_of(spool, "job") is State.DONE
    assert not (spool.outbox / "group/a").exists()


def test_a_job_that_ends_after_a_newer_or_the_same_one_was_collected_is_not_published(
    spool: Spool,
) -> None:
    """A collected output is never replaced by an older one, nor published again."""
    publish(spool, *stage(spool, "newer", "newest", NEWEST), RULES)
    shutil.rmtree(spool.outbox / "group/a")
    assert publish(spool, *stage(spool, "older", "old", OLD), RULES).state is State.SUPERSEDED
    assert publish(spool, *stage(spool, "newer", "newest", NEWEST), RULES).state is State.DONE
    assert not (spool.outbox / "group/a").exists()


@pytest.mark.parametrize("earlier", [False, True])
def test_a_case_that_was_marked_and_then_refused_by_a_later_attempt_is_not_published(
    spool: Spool, earlier: bool
) -> None:
    """It stays refused, also when the job had been released before; staging is removed."""
    if earlier:
        publish(spool, *stage(spool, "job", "old", OLD), RULES)
        shutil.rmtree(spool.outbox / "group/a")
    report, staged = stage(spool, "job", "new")
    with pytest.raises(Killed):
        publish(spool, report, staged, RULES, step=kill_after("marked"))
    record_refusal(
        spool,
        replace(
            report,
            state=State.REFUSED,
            result=CaseResult(released=False, code="VerificationFailed"),
        ),
        stale_seconds=60,
    )
    mark_dead(staged)
    assert recover(spool, RULES) == ()
    assert shown(spool) == {}
    assert not staged.exists()


def test_a_case_that_cannot_be_finished_does_not_keep_the_others_from_being_finished(
    spool: Spool,
) -> None:
    """An I/O error with one dead case does not keep a starting worker from the next."""

    def fail_for_one(report: CaseReport) -> None:
        if report.case == "group/a":
            raise PermissionError(errno.EACCES, "forbidden")

    for job, case in (("job", "group/a"), ("other", "group/b")):
        report, staged = stage(spool, job, "new", case=case)
        with pytest.raises(Killed):
            publish(spool, report, staged, RULES, step=kill_after("renamed"))
        mark_dead(staged)
    finished = recover(spool, replace(RULES, before_done=fail_for_one))
    assert [report.case for report in finished] == ["group/b"]
    assert state_of(spool, "job") is State.PUBLISHED
    assert [report.state for report in recover(spool, RULES)] == [State.DONE]


def test_nested_cases_get_the_outbox_mode_on_every_folder(spool: Spool) -> None:
    """The parent folders of a case too, whatever the umask."""
    publish(
        spool,
        *stage(spool, "job", "new", case="site/day/a"),
        replace(RULES, folder_mode=0o755, file_mode=0o644),
    )
    modes = {
        name: (spool.outbox / name).stat().st_mode & 0o777
        for name in ("site", "site/day", "site/day/a", "site/day/a/sub")
    }
    assert set(modes.values()) == {0o755}
    assert (spool.outbox / "site/day/a/1.dcm").stat().st_mode & 0o777 == 0o644


def test_every_folder_of_a_nested_case_gets_the_outbox_group(spool: Spool) -> None:
    """A group that does not exist is a configuration error, and nothing stays in staging for it."""
    group = grp.getgrgid(os.getgid()).gr_name
    publish(spool, *stage(spool, "job", "new", case="site/day/a"), replace(RULES, group=group))
    assert {
        (spool.outbox / name).group()
        for name in ("site", "site/day", "site/day/a", "site/day/a/1.dcm")
    } == {group}
    with pytest.raises(ConfigurationError, match="no-such-group"):
        publish(spool, *stage(spool, "job", "newer", NEWEST), replace(RULES, group="no-such-group"))
    assert list(spool.staging.glob(f"*/{locks.UNFINISHED}")) == []


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS]
)
def test_storage_that_is_full_or_lost_is_worth_another_attempt(spool: Spool, number: int) -> None:
    """Whatever step it happens at; any other error of the system stays what it is."""

    def fail(step: str) -> None:
        if step == "prepared":
            raise OSError(number, "as the system says")

    with pytest.raises(StorageUnavailable, match="as the system says"):
        publish(spool, *stage(spool, "job", "new"), RULES, step=fail)
    with pytest.raises(PermissionError), atomic.storage_errors():
        raise PermissionError(errno.EACCES, "forbidden")


def test_names_that_are_no_utf_8_are_published_and_reported(spool: Spool) -> None:
    """The bytes stay as they are on the disk; the report shows them escaped, and reads back."""
    case, file = os.fsdecode(b"M\xfcller"), os.fsdecode(b"\xff.dcm")
    staged = spool.staging / "one"
    (staged / "dicom").mkdir(parents=True)
    (staged / "dicom" / file).write_text("new")
    done = publish(spool, report_of("job", {file: "new"}, case=case), staged, RULES)
    assert find_report(spool, case, "job") == done
    assert (spool.outbox / case / file).read_text() == "new"
    assert rb"M\udcfcller" in (report_folder(spool, done) / "report.json").read_bytes()
    assert rb"\udcff.dcm" in (report_folder(spool, done) / "report.html").read_bytes()


HOLD = """
import sys, time
from pathlib import Path
from ctdeface_shared.storage.locks import locked
with locked(Path(sys.argv[1]), "case", stale_seconds=4000):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_processes_never_hold_the_lock_of_a_case_together_and_a_dead_one_loses_it(
    tmp_path: Path,
) -> None:
    """While the other lives our patience ends; as soon as it is killed the lock is ours."""
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(StorageUnavailable),
            locks.locked(tmp_path, "case", stale_seconds=4000, wait_seconds=0.2),
        ):
            pytest.fail("the lock was held twice")
        other.kill()
        other.wait()
        begun = time.monotonic()
        with locks.locked(tmp_path, "case", stale_seconds=4000, wait_seconds=5):
            assert time.monotonic() - begun < 2
    assert list(tmp_path.iterdir()) == []
