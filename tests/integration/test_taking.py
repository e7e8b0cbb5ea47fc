"""Cases that the watcher cannot or may not move, and what it does with those that it has taken."""

import os
import subprocess
import sys
import time
import zipfile
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from ctdeface_shared.errors import UnsafeDrop
from ctdeface_shared.jobs import taken as taken_folders
from ctdeface_shared.jobs.manifest import Covers, Manifest, digest_of_times, job_id
from ctdeface_shared.jobs.messages import DefaceJob
from ctdeface_shared.jobs.options import DefaceOptions, Originals
from ctdeface_shared.jobs.replay_requests import ReplayRequest, write_order
from ctdeface_shared.jobs.taken import TakenCase, new_record, remove_unfinished, taken_cases
from ctdeface_shared.status.watcher_state import WATCHER_STATE, read_watcher_state
from ctdeface_shared.storage.private_tree import remove_tree
from ctdeface_watcher.inbox.stability import Snapshot, add_scan
from ctdeface_watcher.inbox.unzip import ZipLimits
from ctdeface_watcher.inbox_state import STAYS, InboxState
from ctdeface_watcher.watch_events import EventKind, WatchEvent
from ctdeface_worker.pipeline.result import CaseResult
from ctdeface_worker.report.model import State, describe
from tests.integration.small_disk import small_disk
from tests.integration.test_folders_not_readable import DEADLINE_SECONDS, published, watching
from tests.support.service.local_service import configured_service
from tests.support.service.unprivileged import UNPRIVILEGED
from tests.support.service.watcher import QUIET, RunningWatcher, fill, wait_for

OWNER = 4001
HOUR = 3600.0
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop as another user")


def give(folder: Path, mode: int) -> None:
    """Give a case to another user, with a mode of its folder."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, OWNER, -1)
    folder.chmod(mode)


def test_a_kept_case_is_not_copied_again_by_the_next_watcher(watcher: RunningWatcher) -> None:
    """Nor by this one; the ledger knows it by device, inode, size and times."""
    watcher.originals = Originals.KEEP
    folder = fill(watcher.spool.inbox / "a")
    watcher.start()
    watcher.expect("a")
    (job,) = watcher.jobs
    assert job.left_in_inbox
    assert watcher.seen.kept == ("a",)
    watcher.end()
    before = watcher.spool.taken.stat().st_mtime_ns
    watcher.start()
    wait_for(lambda: watcher.seen.kept == ("a",))
    time.sleep(5 * QUIET)
    assert (watcher.jobs, watcher.spool.taken.stat().st_mtime_ns) == ([job], before)
    # The content is what counts: a touched file is read again, and known.
    os.utime(folder / "0.dcm")
    wait_for(lambda: watcher.spool.taken.stat().st_mtime_ns != before)
    assert watcher.jobs == [job]


def test_a_copy_that_was_begun_before_a_restart_is_not_begun_again(watcher: RunningWatcher) -> None:
    """It is finished instead; a case of 100 GB is copied once."""
    watcher.originals = Originals.KEEP
    folder = fill(watcher.spool.inbox / "a")
    record = replace(
        new_record("a", "a"), left_in_inbox=True, owner=os.getuid(), inode=folder.stat().st_ino
    )
    taken = TakenCase.create(watcher.spool, record)
    watcher.start()
    watcher.expect("a")
    assert [one.taken_id for one in taken_cases(watcher.spool)] == [taken.taken_id]
    assert watcher.jobs[0].taken == taken.taken_id


def test_a_case_that_is_touched_again_and_again_is_copied_less_and_less_often() -> None:
    """The time between two copies doubles up to an hour."""
    state, now, copies = InboxState(), 0.0, list[float]()
    while now < 10 * HOUR:
        if state.may_copy("a", now):
            state.note_copy("a", now, quiet=10.0)
            copies.append(now)
        now += 10.0
    pauses = [later - earlier for earlier, later in pairwise(copies)]
    assert pauses[:4] == [20.0, 40.0, 80.0, 160.0]
    assert max(pauses) == pauses[-1] == HOUR
    assert len(copies) < 20
    state.keep_only(frozenset())
    assert state.may_copy("a", now)


def test_an_entry_that_is_looked_at_again_is_not_another_drop() -> None:
    """It counts as dropped when it is first seen."""
    state = InboxState()
    state.seen["a"] = add_scan(None, Snapshot(files=1, bytes=1, newest_ns=1), 0.0)
    state.finish("a")
    state.look_again("a", 1.0)
    assert state.finished == {}
    assert state.seen["a"].first_seen == 1.0


def test_each_drop_is_counted_once(watcher: RunningWatcher) -> None:
    """However often the watcher looks at it, and whether it is taken, copied or refused."""
    events = Counter[EventKind]()

    def count(event: WatchEvent) -> None:
        events[event.kind] += 1

    watcher.hooks = (count,)
    watcher.originals = Originals.KEEP
    for name in "abc":
        fill(watcher.spool.inbox / name)
    (watcher.spool.inbox / "c" / "link").symlink_to("/etc/passwd")
    watcher.start()
    watcher.expect("a", "b")
    wait_for((watcher.spool.quarantine / "c").exists)
    time.sleep(5 * QUIET)
    assert (events[EventKind.DROPPED], events[EventKind.PUBLISHED]) == (3, 2)


def test_a_case_is_taken_from_an_inbox_that_is_read_only(watcher: RunningWatcher) -> None:
    """With `originals: keep`; it is copied once."""
    watcher.originals = Originals.KEEP
    with small_disk(watcher.spool.inbox, 8) as disk:
        fill(disk / "a")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        watcher.start()
        watcher.expect("a")
        assert watcher.seen.kept == ("a",)
        watcher.end()


@as_root
def test_a_folder_that_only_its_owner_can_move_is_copied_and_stays(tmp_path: Path) -> None:
    """As with the usual umask; the status says why, and the next watcher does not copy it again."""
    service = configured_service(tmp_path, None, watch={"quiet_period": 0.5})
    service.prepare()
    service.spool.inbox.mkdir(exist_ok=True)
    give(fill(service.spool.inbox / "a"), 0o755)
    config = tmp_path / "ctdeface.toml"

    def status() -> str:
        command = [*UNPRIVILEGED, sys.executable, "-m", "ctdeface_shared", "status"]
        done = subprocess.run(
            [*command, "--config", config], capture_output=True, text=True, check=True
        )
        return done.stdout

    for _ in range(2):
        with watching(service, config, tmp_path / "watcher.log"):
            wait_for(lambda: "note: a is processed from a copy" in status(), DEADLINE_SECONDS)
            wait_for(lambda: published(service) == 1, DEADLINE_SECONDS)
            time.sleep(3.0)
    assert published(service) == 1
    assert sorted(path.name for path in (service.spool.inbox / "a").iterdir()) == [
        "0.dcm",
        "1.dcm",
        "2.dcm",
    ]
    (taken,) = taken_cases(service.spool)
    assert {path.stat().st_uid for path in taken.files.rglob("*")} == {0}
    record = taken.record()
    assert record is not None
    assert (record.left_in_inbox, record.owner) == (True, OWNER)


@as_root
def test_a_case_with_a_folder_that_only_its_owner_can_change_is_copied(tmp_path: Path) -> None:
    """As after `mkdir` and `cp -r`: nothing of it remains in `taken`, and the note says why."""
    service = configured_service(tmp_path, None, watch={"quiet_period": 0.5})
    service.prepare()
    folder = fill(service.spool.inbox / ".a")
    fill(folder / "sub")
    give(folder, 0o777)
    (folder / "sub").chmod(0o755)
    folder.rename(service.spool.inbox / "a")
    with watching(service, tmp_path / "ctdeface.toml", tmp_path / "watcher.log"):
        wait_for(lambda: published(service) == 1, DEADLINE_SECONDS)
        fill(service.spool.inbox / "b")
        wait_for(lambda: published(service) == 2, DEADLINE_SECONDS)
        state = service.state_dir / WATCHER_STATE
        assert (seen := read_watcher_state(state)) is not None
        assert (seen.kept, seen.notes) == (("a",), {"a": STAYS})
        remove_tree(service.spool.inbox / "a")

        def is_forgotten() -> bool:
            now = read_watcher_state(state)
            return now is not None and not now.notes

        wait_for(is_forgotten, DEADLINE_SECONDS)
    for taken in taken_cases(service.spool):
        assert not taken.drop.exists()
        assert taken.files.is_dir()
    assert not any(service.spool.inbox.iterdir())


def old_replay(watcher: RunningWatcher, folder: Path, asked: DefaceOptions) -> DefaceJob:
    """Write the request of a replay as release 0.1.0 did, whose originals are in the inbox."""
    scanned = Manifest.scan(folder)
    manifest = replace(scanned, digest=digest_of_times(folder), covers=Covers.TIMES)
    job = DefaceJob(
        job_id=job_id("a", manifest, asked, 1),
        case="a",
        manifest=manifest,
        generation=1,
        submitted_at=datetime.now(UTC),
        options=asked,
    )
    write_order(watcher.spool, ReplayRequest(job=job, published=True))
    return job


def test_a_replay_that_release_0_1_0_began_keeps_its_options_and_its_name(
    watcher: RunningWatcher,
) -> None:
    """Series that it withholds stay withheld, also where the archived originals had an owner."""
    asked = DefaceOptions(withhold=("1.2.3",))
    folder = fill(watcher.spool.inbox / "a")
    first = DefaceJob(
        job_id=job_id("a", Manifest.scan(folder), DefaceOptions()),
        case="a",
        manifest=Manifest.scan(folder),
        submitted_at=datetime(2026, 1, 1, tzinfo=UTC),
        options=DefaceOptions(),
    )
    released = describe(first.job_id, "a", first.manifest, first.options, CaseResult(released=True))
    report = watcher.spool.reports / "a" / first.job_id
    report.mkdir(parents=True)
    done = replace(released, state=State.DONE, owner=OWNER, created_at="2026-01-01T00:00:00+00:00")
    (report / "report.json").write_bytes(done.to_json())
    archived = watcher.spool.archive / "originals" / "a" / first.job_id
    fill(archived)
    order = old_replay(watcher, folder, asked)
    watcher.start()
    watcher.expect("a")
    (job,) = watcher.jobs
    assert (job.options, job.generation) == (asked, order.generation + 1)


def test_other_files_than_those_of_an_old_replay_do_not_get_its_options(
    watcher: RunningWatcher,
) -> None:
    """They are another drop."""
    folder = fill(watcher.spool.inbox / "a")
    old_replay(watcher, folder, DefaceOptions(withhold=("1.2.3",)))
    (folder / "9.dcm").write_bytes(b"another")
    watcher.start()
    watcher.expect("a")
    assert watcher.jobs[0].options == DefaceOptions()


def test_cases_that_were_taken_and_have_no_job_count_as_unfinished(watcher: RunningWatcher) -> None:
    """Else the folder of taken cases would grow without bound while they cannot go on."""
    watcher.max_unfinished = 2
    watcher.limits = ZipLimits(files=9, bytes=10**18, ratio=10.0**18)
    record = replace(new_record("stuck.zip", "stuck"), is_zip=True, owner=os.getuid())
    taken = TakenCase.create(watcher.spool, record)
    _zip_of_size(taken.archive, 10**16)
    for name in "abc":
        fill(watcher.spool.inbox / name)
    watcher.start()
    wait_for(lambda: watcher.seen.paused == "unfinished jobs")
    time.sleep(5 * QUIET)
    assert [job.case for job in watcher.jobs] == ["a"]
    assert (watcher.seen.open_jobs, watcher.seen.waiting) == (1, ("b", "c", "stuck"))
    taken.remove()
    wait_for(lambda: [job.case for job in watcher.jobs] == ["a", "b"])


def _zip_of_size(path: Path, size: int) -> None:
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("1.dcm", b"one")
        packed.infolist()[0].file_size = size  # the directory that is written at the end says so


@as_root
def test_a_refused_drop_that_its_owner_locks_goes_to_the_quarantine_nevertheless(
    watcher: RunningWatcher,
) -> None:
    """With its taken folder, which is the service's own; no look fails because of it."""
    record = replace(new_record("a", "a"), owner=OWNER)
    taken = TakenCase.create(watcher.spool, record)
    taken.drop.mkdir()
    (taken.drop / "link").symlink_to("/etc/passwd")
    give(taken.drop, 0o555)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from ctdeface_shared.errors import UnsafeDrop\n"
        "from ctdeface_shared.jobs.options import DefaceOptions\n"
        "from ctdeface_shared.jobs.taken import taken_cases\n"
        "from ctdeface_shared.storage.spool import ServiceSpool\n"
        "from ctdeface_watcher.jobs.refuse import refuse_taken\n"
        "spool = ServiceSpool.under(Path(sys.argv[1]))\n"
        "(taken,) = taken_cases(spool)\n"
        "refuse_taken(spool, taken, taken.record(), DefaceOptions(), UnsafeDrop('a link'))\n"
    )
    root = watcher.spool.taken.parent
    subprocess.run([*UNPRIVILEGED, sys.executable, "-c", code, root], check=True)
    assert not list(watcher.spool.taken.iterdir())
    (quarantined,) = watcher.spool.quarantine.glob("a/*/originals/drop/link")
    assert quarantined.is_symlink()
    fill(watcher.spool.inbox / "b")
    watcher.start()
    watcher.expect("b")
    assert watcher.seen.paused is None


def _is_gone(taken: TakenCase) -> bool:
    return not taken.folder.exists()


def test_a_drop_that_was_replaced_before_it_was_taken_is_refused_and_in_the_inbox_copied_anew(
    watcher: RunningWatcher,
) -> None:
    """Only what was judged to be complete is used."""
    for originals, cases in ((Originals.ARCHIVE, ()), (Originals.KEEP, ("a",))):
        watcher.originals = originals
        record = replace(
            new_record("a", "a"),
            left_in_inbox=originals is Originals.KEEP,
            owner=os.getuid(),
            inode=1,
        )
        taken = TakenCase.create(watcher.spool, record)
        if originals is Originals.ARCHIVE:
            fill(taken.drop)
        else:
            fill(watcher.spool.inbox / "a")
        watcher.start()
        wait_for(partial(_is_gone, taken))
        watcher.expect(*cases)
        watcher.end()
    (refusal,) = watcher.spool.quarantine.glob("a/*/report.json")
    assert UnsafeDrop.__name__ in refusal.read_text(encoding="utf-8")


def test_what_a_killed_creation_left_in_taken_is_removed_later(
    watcher: RunningWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is being created keeps its hidden name for some milliseconds."""
    left = watcher.spool.taken / f".{7:032x}"
    left.mkdir()
    (left / "drop.json").write_text("{}")
    remove_unfinished(watcher.spool)
    assert left.is_dir()
    monkeypatch.setattr(taken_folders, "_CREATION_SECONDS", -1.0)
    remove_unfinished(watcher.spool)
    assert not left.exists()
