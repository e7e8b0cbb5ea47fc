"""Folders of cases, and who owns the temporary ones."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from ctdeface_shared.errors import ConfigurationError, EscapingPath, StorageUnavailable
from ctdeface_shared.storage import locks, process_identity
from ctdeface_shared.storage.locks import (
    OWNER_FILE,
    UNFINISHED,
    is_abandoned,
    locked,
    owned_folder,
    sweep,
)
from ctdeface_shared.storage.spool import Spool, case_path

NO_PROCESS = 2**22 + 1  # above the highest pid that Linux gives


def left_behind(
    parent: Path, differs: Mapping[str, object] | None = None, seconds_ago: float = 0
) -> Path:
    """Create an owned folder of a dead process, with other facts about the owner."""
    with owned_folder(parent) as folder:
        owner = json.loads((folder / OWNER_FILE).read_text())
    folder.mkdir()
    (folder / OWNER_FILE).write_text(json.dumps(owner | {"pid": NO_PROCESS} | dict(differs or {})))
    for path in (folder / OWNER_FILE, folder):
        os.utime(path, (time.time() - seconds_ago,) * 2)
    return folder


@pytest.mark.parametrize("case", ["", "/a", "a/../b", "..", "a//b", "./a", "a\0"])
def test_a_case_never_leads_out_of_its_folder(tmp_path: Path, case: str) -> None:
    """Neither upward nor to the root, and never to the folder itself."""
    with pytest.raises(EscapingPath):
        case_path(tmp_path, case)


def test_an_owned_folder_is_gone_after_its_block_unless_it_is_unfinished(tmp_path: Path) -> None:
    """The mark keeps it, also from sweeps."""
    with owned_folder(tmp_path) as first, owned_folder(tmp_path) as second:
        (second / UNFINISHED).write_text("{}")
    assert list(tmp_path.iterdir()) == [second]
    assert not first.exists()
    assert sweep(tmp_path, stale_seconds=-1) == 0


def test_a_dead_process_of_this_machine_loses_its_folders_at_once(tmp_path: Path) -> None:
    """A living one keeps them, however old; a pid that was given again is not its earlier owner."""
    dead, reused = (
        left_behind(tmp_path),
        left_behind(tmp_path, {"pid": os.getpid(), "started": "long ago"}),
    )
    with owned_folder(tmp_path) as living:
        os.utime(living / OWNER_FILE, (0, 0))
        assert sweep(tmp_path, stale_seconds=1) == 2
        assert living.exists()
    assert not dead.exists()
    assert not reused.exists()


def test_a_folder_that_its_maker_had_not_signed_yet_goes_with_its_maker(tmp_path: Path) -> None:
    """Its name identifies the creator; on another machine only the heartbeat counts."""
    here, random = process_identity.short_name(), "0123456789abcdef"
    dead, elsewhere = (
        tmp_path / f".{where}.{NO_PROCESS}.1.{random}"
        for where in (here.partition(".")[0], "f" * 16)
    )
    living = tmp_path / f".{here}.{random}"
    for folder in (dead, elsewhere, living):
        folder.mkdir()
    assert sweep(tmp_path, stale_seconds=60) == 1
    assert sorted(tmp_path.iterdir()) == sorted([elsewhere, living])
    os.utime(elsewhere, (0, 0))
    assert sweep(tmp_path, stale_seconds=60) == 1


def test_a_sweep_leaves_folders_alone_that_ctdeface_did_not_make(tmp_path: Path) -> None:
    """Somebody may name a work root that holds other things, however old."""
    others = [
        tmp_path / name
        for name in ("thesis", "0123456789abcdef", "d41d8cd98f00b204e9800998ecf8427e")
    ]  # cases are named so too
    for other in others:
        other.mkdir()
        os.utime(other, (0, 0))
    assert sweep(tmp_path, stale_seconds=1) == 0
    assert all(other.exists() for other in others)


@pytest.mark.parametrize(
    "differs", [{"host": "elsewhere"}, {"boot": "another"}, {"pids": "pid:[1]"}]
)
def test_folders_of_other_machines_and_containers_are_abandoned_only_when_stale(
    tmp_path: Path, differs: dict[str, str]
) -> None:
    """There a pid says nothing; only time does."""
    assert not is_abandoned(left_behind(tmp_path, differs), stale_seconds=60)
    assert is_abandoned(left_behind(tmp_path, differs, seconds_ago=61), stale_seconds=60)


def test_a_folder_without_a_readable_owner_is_judged_by_its_age(tmp_path: Path) -> None:
    """Its process was killed while it wrote its owner file."""
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / OWNER_FILE).write_text("{")
    assert not is_abandoned(tmp_path / "bare", stale_seconds=60)
    assert is_abandoned(tmp_path / "bare", stale_seconds=-1)


def test_folders_and_locks_in_use_are_touched_again_and_again(tmp_path: Path) -> None:
    """So a job may last longer than the stale time."""
    (tmp_path / "work").mkdir()
    with (
        owned_folder(tmp_path / "work", heartbeat_seconds=0.01) as folder,
        locked(tmp_path, "case", stale_seconds=60, heartbeat_seconds=0.01),
    ):
        owners = [folder / OWNER_FILE, tmp_path / "case" / OWNER_FILE]
        for owner in owners:
            os.utime(owner, (0, 0))
        deadline = time.monotonic() + 5
        while any(owner.stat().st_mtime == 0 for owner in owners) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert all(owner.stat().st_mtime > 0 for owner in owners)


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    """The second waits and gives up; afterwards nothing is left of either."""
    with locked(tmp_path, "case", stale_seconds=60):
        with (
            pytest.raises(StorageUnavailable),
            locked(tmp_path, "case", stale_seconds=60, wait_seconds=0.1),
        ):
            pytest.fail("held twice")
        assert [path.name for path in tmp_path.iterdir()] == ["case"]
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_could_not_be_let_go_of_is_free_for_the_next(tmp_path: Path) -> None:
    """The share was unavailable for a moment, and the process that held it still runs."""
    (tmp_path / "locks").mkdir()
    with locked(tmp_path / "locks", "case", stale_seconds=60) as ours:
        (tmp_path / "locks").rename(tmp_path / "away")
        assert ours()
    (tmp_path / "away").rename(tmp_path / "locks")
    assert (tmp_path / "locks" / "case").is_dir()
    with locked(tmp_path / "locks", "case", stale_seconds=60, wait_seconds=0.5):
        pass
    assert not (tmp_path / "locks" / "case").exists()


def test_an_abandoned_lock_is_taken_over(tmp_path: Path) -> None:
    """Also when a taker died on the way."""
    left_behind(tmp_path).rename(tmp_path / "case")
    guard = tmp_path / ".case.taking"
    guard.mkdir()
    os.utime(guard, (0, 0))
    with locked(tmp_path, "case", stale_seconds=60, wait_seconds=2):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_whose_taker_died_too_is_taken_over_at_once(tmp_path: Path) -> None:
    """The guard that keeps two takers apart says whose it is."""
    left_behind(tmp_path).rename(tmp_path / "case")
    left_behind(tmp_path).rename(tmp_path / ".case.taking")
    with locked(tmp_path, "case", stale_seconds=60, wait_seconds=2):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_somebody_took_over_is_not_released_by_its_first_owner(tmp_path: Path) -> None:
    """A process that was frozen past the stale time finds the lock in other hands."""
    with locked(tmp_path, "case", stale_seconds=60):
        owner = json.loads((tmp_path / "case" / OWNER_FILE).read_text())
        (tmp_path / "case" / OWNER_FILE).write_text(json.dumps(owner | {"token": "another"}))
    assert (tmp_path / "case").is_dir()


def test_the_first_owner_of_a_lock_that_was_taken_over_is_told_and_touches_it_no_more(
    tmp_path: Path,
) -> None:
    """Else the lock would look alive when its new owner is dead."""
    with locked(tmp_path, "case", stale_seconds=60, heartbeat_seconds=0.01) as is_ours:
        assert is_ours()
        owner = tmp_path / "case" / OWNER_FILE
        owner.write_text(json.dumps(json.loads(owner.read_text()) | {"token": "another"}))
        assert not is_ours()
        time.sleep(0.05)  # a beat that had looked before
        os.utime(owner, (0, 0))
        time.sleep(0.1)
        assert owner.stat().st_mtime == 0


def test_a_spool_that_cannot_be_made_says_which_folder(tmp_path: Path) -> None:
    """A file has the name of a required folder."""
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigurationError, match="below cannot be created"):
        Spool.beside(tmp_path / "out" / "below", tmp_path / "state").prepare(outbox_mode=0o750)


def test_heartbeats_come_often_enough_for_any_stale_time() -> None:
    """The shortest stale time that settings can make is the grace alone."""
    assert locks.HEARTBEAT_SECONDS < 60
