"""Replays with a real worker: once each, with other options, and after interruptions."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ctdeface_shared.broker.memory import MemoryBroker
from ctdeface_shared.broker.settlement import Reject
from ctdeface_shared.broker.sqlite import SqliteBroker
from ctdeface_shared.commands.main import main
from ctdeface_shared.errors import LateFiles, UnsafeDrop
from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.messages import decode_job, encode_job
from ctdeface_shared.jobs.options import DefaceOptions, FillRule, Originals, Profile
from ctdeface_shared.jobs.taken import TakenCase, new_record, taken_case, taken_cases
from ctdeface_shared.replay.case import Replay, replay_case
from ctdeface_shared.replay.dead_letters import Requeued, requeue_dead_letters
from ctdeface_shared.replay.request import ReplayOptions
from ctdeface_shared.replay.sources import NotReplayed
from ctdeface_shared.settings.sections import LimitsSection
from ctdeface_shared.status.spool_status import SpoolScanner
from ctdeface_shared.status.watcher_state import WATCHER_STATE, WatcherState, write_watcher_state
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_watcher.jobs.killed_replays import continue_replay
from ctdeface_watcher.jobs.refuse import Refusal, refuse
from ctdeface_worker.case.child_process import WarmChild
from ctdeface_worker.case.run import Child
from ctdeface_worker.report.model import State
from ctdeface_worker.service import attempts
from ctdeface_worker.service.consumer import handle
from tests.integration.test_worker_service import is_empty
from tests.support.service.slots import SlotOptions, make_slot
from tests.support.service.spools import Ends, drop, ends, job_for, reports
from tests.support.service.stand_in_pipeline import prepare, reversed_bytes

BULKY = ReplayOptions(profile=Profile.BULKY)
STEPS = ("ordered", "taken", "brought", "job written", "published", "quarantine marked")


class Killed(BaseException):
    """Stands for a kill between two steps."""


@dataclass(frozen=True, slots=True)
class Service:
    """A spool, a queue and one worker with a stand-in for the pipeline."""

    spool: ServiceSpool
    broker: MemoryBroker
    child: Child

    def work(self, originals: Originals = Originals.ARCHIVE) -> None:
        """Let the worker process the queue."""
        slot = make_slot(self.spool, self.broker, SlotOptions(originals=originals))
        slot = replace(slot, resources=replace(slot.resources, child=self.child))
        while delivery := self.broker.receive(0.05):
            assert self.broker.settle(delivery, handle(slot, delivery).settlement)


@pytest.fixture
def spool(tmp_path: Path) -> ServiceSpool:
    """An empty spool."""
    made = ServiceSpool.under(tmp_path / "spool")
    made.prepare(outbox_mode=0o750)
    made.prepare_inbox(moves_originals=True)
    return made


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    """One warm stand-in for all tests."""
    made = WarmChild(prepare)
    yield made
    made.close()


@pytest.fixture
def service(spool: ServiceSpool, child: Child) -> Service:
    """A service in which nothing has happened."""
    return Service(spool=spool, broker=MemoryBroker(), child=child)


def replay_with(service: Service, choices: ReplayOptions = BULKY) -> Replay:
    """Return the dependencies of a replay."""
    return Replay(
        spool=service.spool,
        publish=service.broker.publish,
        changes=choices,
        defaults=DefaceOptions(),
        limits=LimitsSection().tree(),
    )


def keeping(service: Service, choices: ReplayOptions = BULKY) -> Replay:
    """Return the dependencies of a replay where dropped files stay in the inbox."""
    return replace(replay_with(service, choices), kept=True)


def refused(service: Service, name: str = "a", originals: Originals = Originals.ARCHIVE) -> None:
    """Bring a case into the quarantine that only the profile bulky releases."""
    drop(service.spool, name, "needs bulky")
    copied = originals is Originals.KEEP
    service.broker.publish(job_for(service.spool, name, copied=copied))
    service.work(originals)
    assert ends(service.spool).quarantine == [name]


def test_a_refused_case_that_is_replayed_with_another_option_ends_in_the_outbox_once(
    service: Service,
) -> None:
    """Originals return to their place, both reports stay, and the quarantine names the replay."""
    refused(service)
    content = next((service.spool.quarantine / "a").glob("*/originals/0.dcm")).read_bytes()
    order = replay_case(replay_with(service), "a")
    assert ends(service.spool).taken == ["a"]
    service.work()
    assert ends(service.spool) == Ends(inbox=[], outbox=["a"], quarantine=["a"])
    assert (service.spool.outbox / "a" / "0.dcm").read_bytes() == reversed_bytes(content)
    assert (
        service.spool.archive / "originals" / "a" / order.job.job_id / "0.dcm"
    ).read_bytes() == content
    assert {report.state for report in reports(service.spool, "a")} == {State.REFUSED, State.DONE}
    (entry,) = (service.spool.quarantine / "a").iterdir()
    assert json.loads((entry / "replayed.json").read_bytes())["replayed_as"] == order.job.job_id
    assert (entry / "report.json").exists()
    seen = SpoolScanner(service.spool).look(0)
    assert (seen.is_idle, seen.refused, seen.released) == (True, (), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"ears": "false"}, r"ears \(bool_type\)"), ({"blur": True}, r"blur \(extra_forbidden\)")],
)
def test_options_of_a_report_that_are_not_valid_refuse_the_replay(
    service: Service, change: dict[str, object], message: str
) -> None:
    """A text once turned ears on, and an unknown option was ignored."""
    refused(service)
    (file,) = (service.spool.reports / "a").glob("*/report.json")
    report = json.loads(file.read_bytes())
    report["options"] |= change
    file.write_text(json.dumps(report), encoding="utf-8")
    with pytest.raises(
        NotReplayed, match=rf"options in its report\.json .*{message}.*drop the case"
    ):
        replay_case(replay_with(service), "a")
    assert ends(service.spool).not_ended == []


@pytest.mark.parametrize("killed_after", STEPS)
@pytest.mark.parametrize("worked", [False, True], ids=["again at once", "again after the worker"])
def test_a_replay_that_is_killed_between_two_steps_goes_on_when_it_is_run_again(
    service: Service, killed_after: str, worked: bool
) -> None:
    """One job, one output, and nothing is lost; also when the job has ended in between."""
    refused(service)

    def die(step: str) -> None:
        if step == killed_after:
            raise Killed

    with pytest.raises(Killed):
        replay_case(replace(replay_with(service), step=die), "a")
    if worked:
        service.work()
    replay_case(replay_with(service), "a")
    service.work()
    assert ends(service.spool) == Ends(inbox=[], outbox=["a"], quarantine=["a"])
    assert len(reports(service.spool, "a")) == 2
    assert len(list((service.spool.archive / "originals" / "a").glob("*/0.dcm"))) == 1
    assert not (service.spool.archive / "outputs").exists()
    assert list((service.spool.quarantine / "a").glob("*/replayed.json"))


@pytest.mark.parametrize("killed_after", STEPS[:4])
def test_a_replay_that_was_killed_can_be_run_again_with_other_options(
    service: Service, killed_after: str
) -> None:
    """Until it is published, another request replaces it."""
    refused(service)

    def die(step: str) -> None:
        if step == killed_after:
            raise Killed

    with pytest.raises(Killed):
        replay_case(
            replace(replay_with(service, ReplayOptions(fill=FillRule.parse("-1000"))), step=die),
            "a",
        )
    replay_case(replay_with(service), "a")
    service.work()
    assert ends(service.spool) == Ends(inbox=[], outbox=["a"], quarantine=["a"])
    assert [path.parent.name for path in service.spool.reports.glob("a/*/order.json")] == [
        reports_by_state(service.spool, State.DONE)
    ]


@pytest.mark.parametrize("killed_after", STEPS[1:3])
def test_a_killed_replay_does_not_keep_later_drops_waiting(
    service: Service, killed_after: str
) -> None:
    """The watcher writes its job, or removes its folder while there are no originals in it."""
    refused(service)

    def die(step: str) -> None:
        if step == killed_after:
            raise Killed

    with pytest.raises(Killed):
        replay_case(replace(replay_with(service), step=die), "a")
    (taken,) = taken_cases(service.spool)
    record = taken.record()
    assert record is not None
    continue_replay(service.spool, taken, record)
    assert taken.job() is None  # it may still be running
    continue_replay(service.spool, taken, replace(record, taken_at=0.0))
    if killed_after == "taken":
        assert ends(service.spool).taken == []
        replay_case(replay_with(service), "a")
    else:
        job = taken.job()
        assert job is not None
        service.broker.publish(job)
    service.work()
    assert ends(service.spool) == Ends(inbox=[], outbox=["a"], quarantine=["a"])


def reports_by_state(spool: ServiceSpool, state: State) -> str:
    """Return the job of case a that has this state."""
    (job,) = [report.job_id for report in reports(spool, "a") if report.state is state]
    return job


def test_a_second_replay_waits_for_the_first(service: Service) -> None:
    """Two different jobs would take the originals from each other; the same job is harmless."""
    refused(service)
    first = replay_case(replay_with(service), "a")
    assert replay_case(replay_with(service), "a") == first
    with pytest.raises(NotReplayed, match="on its way"):
        replay_case(replay_with(service, ReplayOptions(fill=FillRule.parse("-1000"))), "a")
    service.work()
    assert ends(service.spool) == Ends(inbox=[], outbox=["a"], quarantine=["a"])


def test_a_later_drop_in_the_inbox_is_left_alone(service: Service) -> None:
    """The replay needs nothing of the inbox."""
    refused(service)
    other = drop(service.spool, "a", "release", files=5)
    before = Manifest.scan(other)
    replay_case(replay_with(service), "a")
    service.work()
    assert Manifest.scan(other) == before
    assert ends(service.spool) == Ends(inbox=["a"], outbox=["a"], quarantine=["a"])
    assert len(list((service.spool.outbox / "a").iterdir())) == 2


def test_kept_originals_that_were_replaced_are_not_replayed(service: Service) -> None:
    """They may be another patient's; they and the quarantine are left alone."""
    refused(service, originals=Originals.KEEP)
    shutil.rmtree(service.spool.inbox / "a")
    before = Manifest.scan(drop(service.spool, "a", "release", files=5))
    with pytest.raises(NotReplayed, match="the inbox holds other files"):
        replay_case(keeping(service), "a")
    assert Manifest.scan(service.spool.inbox / "a") == before
    assert is_empty(service.broker)


def test_kept_originals_that_were_replaced_by_a_link_are_not_replayed(
    service: Service, tmp_path: Path
) -> None:
    """Nothing of the place behind the link is read or copied."""
    refused(service, originals=Originals.KEEP)
    (service.spool.inbox / "a").rename(tmp_path / "elsewhere")
    (service.spool.inbox / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeDrop, match="was replaced"):
        replay_case(keeping(service), "a")
    assert ends(service.spool).taken == []
    assert is_empty(service.broker)


@pytest.mark.parametrize("end", ["release", "needs bulky"])
def test_quarantined_originals_are_never_lost_when_dropped_files_are_kept_since(
    service: Service, end: str
) -> None:
    """The setting was `archive` when the case was dropped, so the inbox does not hold it."""
    refused(service)
    choices = BULKY if end == "release" else ReplayOptions(fill=FillRule.parse("-1000"))
    order = replay_case(keeping(service, choices), "a")
    service.work(Originals.KEEP)
    job = order.job.job_id
    place = {
        "release": service.spool.archive / "originals" / "a" / job,
        "needs bulky": service.spool.quarantine / "a" / job / "originals",
    }[end]
    assert Manifest.scan(place) == order.job.manifest
    assert ends(service.spool).not_ended == []


def test_a_released_case_is_replayed_from_a_copy_of_the_archive(service: Service) -> None:
    """The newer output replaces the older one, and the archive keeps its originals."""
    drop(service.spool, "a")
    first = job_for(service.spool, "a")
    service.broker.publish(first)
    service.work()
    archived = service.spool.archive / "originals" / "a" / first.job_id
    before = Manifest.scan(archived)
    order = replay_case(replay_with(service), "a")
    files = taken_case(service.spool, order.job.taken).files
    assert order.job.manifest == before == Manifest.scan(files)
    service.work()
    assert ends(service.spool) == Ends(inbox=[], outbox=["a"], quarantine=[])
    assert Manifest.scan(archived) == before
    assert [path.name for path in (service.spool.archive / "outputs" / "a").iterdir()] == [
        first.job_id
    ]


def test_kept_originals_are_replayed_where_they_lie(service: Service) -> None:
    """With originals = keep nothing is moved."""
    refused(service, originals=Originals.KEEP)
    before = Manifest.scan(service.spool.inbox / "a")
    replay_case(keeping(service), "a")
    service.work(Originals.KEEP)
    assert ends(service.spool) == Ends(inbox=["a"], outbox=["a"], quarantine=["a"])
    assert Manifest.scan(service.spool.inbox / "a") == before
    assert not (service.spool.archive / "originals").exists()


def test_originals_that_were_archived_under_a_number_are_found_by_their_content(
    service: Service,
) -> None:
    """The same content was dropped again after its output was collected."""
    for _ in range(2):
        drop(service.spool, "a")
        service.broker.publish(job_for(service.spool, "a"))
        service.work()
    first, second = sorted((service.spool.archive / "originals" / "a").iterdir())
    assert second.name == f"{first.name}-2"
    shutil.rmtree(first)
    order = replay_case(replay_with(service), "a")
    assert order.job.manifest == Manifest.scan(second)


@pytest.mark.parametrize("stays_open", [False, True])
def test_a_refused_drop_beside_the_originals_is_not_trusted(
    service: Service, *, stays_open: bool
) -> None:
    """Its owner may still hold it open: a pipe in it must not be read, nor its files moved."""
    drop(service.spool, "a")
    service.broker.publish(job_for(service.spool, "a"))
    service.work()
    (original,) = (service.spool.archive / "originals" / "a").iterdir()
    refused_drop = service.spool.quarantine / "a" / "refused" / "originals"
    shutil.copytree(original, refused_drop)
    refused_drop.chmod(0o777)
    if stays_open:
        shutil.rmtree(original)
    else:
        original.rename(original.with_name(f"{original.name}-2"))
        os.mkfifo(refused_drop / "0")
    request = replay_case(replay_with(service), "a")
    files = taken_case(service.spool, request.job.taken).files
    assert Manifest.scan(files) == request.job.manifest
    assert files.stat().st_mode & 0o777 == 0o700
    assert refused_drop.exists() is not stays_open


@pytest.mark.parametrize(
    "missing", ["never dropped", "originals deleted", "in the inbox", "being examined", "queued"]
)
def test_what_cannot_be_replayed_says_why_and_changes_nothing(
    service: Service, missing: str
) -> None:
    """There are no originals, or a job is on its way already."""
    if missing == "originals deleted":
        drop(service.spool, "a")
        service.broker.publish(job_for(service.spool, "a"))
        service.work(Originals.DELETE)
    if missing == "in the inbox":
        drop(service.spool, "a")
    if missing == "being examined":
        TakenCase.create(service.spool, new_record("a", "a"))
    if missing == "queued":
        drop(service.spool, "a")
        job_for(service.spool, "a")
    reasons = {
        "never dropped": "no case and no job of this name is known",
        "originals deleted": "drop the case again",
        "in the inbox": "it is in the inbox: it is taken",
        "being examined": "just taken out of the inbox",
        "queued": "on its way",
    }
    with pytest.raises(NotReplayed, match=reasons[missing]):
        replay_case(replay_with(service), "a")
    assert is_empty(service.broker)


def test_late_files_in_the_quarantine_are_not_taken_for_a_case(service: Service) -> None:
    """Alone they would replace the output of the whole case."""
    folder = drop(service.spool, "a")
    late = Refusal(
        case="a",
        manifest=Manifest.scan(folder),
        options=DefaceOptions(),
        error=LateFiles("came late"),
    )
    refuse(service.spool, late, folder, folder.name)
    with pytest.raises(NotReplayed, match="drop the complete case again"):
        replay_case(replay_with(service), "a")
    assert ends(service.spool) == Ends(inbox=[], outbox=[], quarantine=["a"])
    assert is_empty(service.broker)


def test_a_replay_keeps_off_a_job_that_a_worker_is_just_bringing_to_its_end(
    service: Service,
) -> None:
    """The report of a refusal exists before its originals are in the quarantine."""
    refused(service)
    (report,) = reports(service.spool, "a")
    with (
        attempts.claimed(service.spool.locks, report.job_id),
        pytest.raises(NotReplayed, match="a worker or another replay is processing it"),
    ):
        replay_case(replay_with(service), "a")
    assert is_empty(service.broker)


def test_a_case_whose_queue_was_lost_is_replayed_anyway(service: Service) -> None:
    """Only on request, because only a person knows that its job is lost."""
    drop(service.spool, "a")
    lost = job_for(service.spool, "a")
    order = replay_case(replace(replay_with(service, ReplayOptions()), anyway=True), "a")
    assert (order.job.taken, order.job.generation) == (lost.taken, 1)
    service.broker.publish(lost)  # it was not lost
    service.work()
    assert [report.job_id for report in reports(service.spool, "a")] == [order.job.job_id]
    assert ends(service.spool) == Ends(inbox=[], outbox=["a"], quarantine=[])


def test_looking_only_changes_nothing(service: Service) -> None:
    """The request is shown as it would be written."""
    refused(service)
    before = sorted(path for path in service.spool.inbox.parent.rglob("*"))
    order = replay_case(replace(replay_with(service), dry_run=True), "a")
    assert (order.published, order.job.generation, order.job.options.profile) == (
        False,
        1,
        Profile.BULKY,
    )
    assert sorted(path for path in service.spool.inbox.parent.rglob("*")) == before
    assert is_empty(service.broker)


def bury(service: Service, body: bytes) -> None:
    """Let the queue give up a message."""
    service.broker.queue.put(body)
    delivery = service.broker.receive(1.0)
    assert delivery is not None
    service.broker.settle(delivery, Reject("UnexpectedError"))


def requeue(replay: Replay, service: Service) -> list[Requeued]:
    """Replay all dead letters."""
    return list(requeue_dead_letters(replay, service.broker))


def test_dead_letters_become_jobs_again_and_what_is_none_is_left(service: Service) -> None:
    """Unreadable messages, and jobs whose files are gone or another job's, stay with a reason."""
    jobs = {}
    for name in ("a", "gone", "replaced"):
        drop(service.spool, name)
        jobs[name] = job_for(service.spool, name)
        bury(service, encode_job(jobs[name]))
    bury(service, b"no job")
    taken_case(service.spool, jobs["gone"].taken).remove()
    newer = replace(jobs["replaced"], job_id="00000000-0000-0000-0000-000000000000")
    taken_case(service.spool, newer.taken).write_job(newer)
    outcomes = {one.case: one for one in requeue(replay_with(service, ReplayOptions()), service)}
    assert {case: one.reason.split(":")[0] for case, one in outcomes.items()} == {
        "a": "",
        "gone": "its files are gone",
        "replaced": "its files belong to another job",
        "": "InvalidMessage",
    }
    assert service.broker.depth().dead == 3
    service.work()
    assert ends(service.spool).outbox == ["a"]
    assert reports(service.spool, "a")[0].generation == 1


def test_a_dead_letter_whose_replay_was_killed_is_replayed_by_the_same_job(
    service: Service,
) -> None:
    """The earlier request is continued."""
    drop(service.spool, "a")
    bury(service, encode_job(job_for(service.spool, "a")))

    def die(_: str) -> None:
        raise Killed

    with pytest.raises(Killed):
        requeue(replace(replay_with(service), step=die), service)
    (revived,) = requeue(replay_with(service), service)
    assert [path.parent.name for path in service.spool.reports.glob("a/*/order.json")] == [
        revived.request.job.job_id if revived.request else ""
    ]
    service.work()
    assert ends(service.spool) == Ends(inbox=[], outbox=["a"], quarantine=[])


def test_the_command_replays_every_case_that_was_refused_for_a_code(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others stay; each has a line of output."""
    refused(service)
    root = str(service.spool.inbox.parent)
    capsys.readouterr()
    assert main(["replay", "--all", "--code", "VerificationFailed", "--spool", root]) == 0
    assert capsys.readouterr().out == "nothing to replay\n"
    assert (
        main(["replay", "--all", "--code", "FaceNotFound", "--profile", "bulky", "--spool", root])
        == 0
    )
    assert capsys.readouterr().out.startswith("a: replayed as job ")
    queue = SqliteBroker(service.spool.inbox.parent / "state" / "queue.sqlite3")
    delivery = queue.receive(0.0)
    queue.close()
    assert delivery is not None
    job = decode_job(delivery.body)
    assert (job.case, job.generation, job.options.profile) == ("a", 1, Profile.BULKY)


def test_the_command_replays_refused_cases_that_stay_in_the_inbox(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watcher's last scan tells that they do not wait."""
    refused(service, originals=Originals.KEEP)
    monkeypatch.setenv("CTDEFACE_SPOOL__ORIGINALS", "keep")
    root = service.spool.inbox.parent
    scan = WatcherState(looked_at="2026-11-28T12:00:00+00:00", cases=1, kept=("a",))
    (root / "state").mkdir(exist_ok=True)
    write_watcher_state(root / "state" / WATCHER_STATE, scan)
    capsys.readouterr()
    assert main(["replay", "--all", "--profile", "bulky", "--spool", str(root)]) == 0
    assert capsys.readouterr().out.startswith("a: replayed as job ")


def test_root_makes_no_folders_in_the_service_of_another_user(
    spool: ServiceSpool, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worker could not write its report into them; other users are not affected."""
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(spool.reports, 65534, -1)
    assert main(["replay", "--all", "--spool", str(spool.inbox.parent)]) == (78 if is_root else 0)
    printed = capsys.readouterr()
    assert ("sudo -u" in printed.err) is is_root
    assert not list(spool.reports.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nobody"], 1, "nobody: not replayed: no case and no job of this name is known"),
        (["../a"], 1, "../a: not replayed: the case name does not stay inside its folder"),
        (["--dead"], 0, "nothing to replay"),
        (["a", "--code", "FaceNotFound"], 78, "--code needs --all"),
        (["--all", "--withhold", "1.2"], 78, "--withhold needs one CASE"),
        (["a", "--fill", "bright"], 78, "air, p10 or a whole number of HU is required"),
    ],
)
def test_the_command_says_what_is_wrong(
    spool: ServiceSpool,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    """In one line, with an exit code for scripts."""
    assert main(["replay", *arguments, "--spool", str(spool.inbox.parent)]) == code
    printed = capsys.readouterr()
    assert said in printed.out + printed.err


def test_a_misspelled_case_is_answered_with_the_names_that_are_close(service: Service) -> None:
    """The advice for a lost queue would be dangerous here, and is not given."""
    drop(service.spool, "a-case")
    with pytest.raises(NotReplayed, match=r"did you mean a-case\?") as caught:
        replay_case(replay_with(service), "a-csae")
    assert "--anyway" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "hint"),
    [("Verification", "did you mean VerificationFailed?"), ("xyz", "ctdeface status shows")],
)
def test_an_unknown_code_ends_with_the_code_that_was_meant(
    service: Service, capsys: pytest.CaptureFixture[str], code: str, hint: str
) -> None:
    """A misspelled code is not the same as nothing to do."""
    place = ["--spool", str(service.spool.inbox.parent)]
    assert main(["replay", *place, "--all", "--code", code]) == 2
    assert hint in capsys.readouterr().err
