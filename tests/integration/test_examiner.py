"""Examinations of taken cases: they take turns, end when they are asked to, and tidy up."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ctdeface_shared.errors import ChangedMeanwhile, StorageUnavailable, TransientError, UnsafeDrop
from ctdeface_shared.jobs.taken import DropRecord, TakenCase, new_record
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_watcher.inbox.examine import ExamineRules, examine
from ctdeface_watcher.inbox.unzip import ZipLimits
from ctdeface_watcher.jobs.taken_cases import Examiner
from tests.support.service.watcher import TREE_LIMITS, fill, wait_for

MOST_CHANGES = 5


@pytest.fixture
def spool(tmp_path: Path) -> ServiceSpool:
    """An empty spool."""
    made = ServiceSpool.under(tmp_path / "spool")
    made.prepare(outbox_mode=0o750)
    made.prepare_inbox(moves_originals=True)
    return made


@pytest.fixture
def rules(spool: ServiceSpool) -> ExamineRules:
    """The limits of the settings."""
    zips = ZipLimits(files=100, bytes=10**6)
    return ExamineRules(inbox=spool.inbox, limits=TREE_LIMITS, zips=zips, min_free_gb=0.0)


@pytest.fixture
def examiner(rules: ExamineRules) -> Iterator[Examiner]:
    """Closed at the end."""
    with closing(Examiner(rules)) as made:
        yield made


def taken_drop(spool: ServiceSpool, name: str = "a") -> tuple[TakenCase, DropRecord]:
    """Take a case that is open for its group, so that it is copied."""
    record = replace(new_record(name, name), owner=os.getuid())
    taken = TakenCase.create(spool, record)
    fill(taken.drop).chmod(0o770)
    return taken, record


def test_an_examination_that_cannot_go_on_leaves_nothing_half(
    spool: ServiceSpool, rules: ExamineRules
) -> None:
    """The disk may be full of it; the drop is as it was."""
    taken, record = taken_drop(spool)
    copied = 0

    def fail() -> None:
        nonlocal copied
        copied += 1
        if copied == 3:
            raise StorageUnavailable("the disk is full")

    with pytest.raises(StorageUnavailable):
        examine(taken, record, rules, fail)
    assert {path.name for path in taken.folder.iterdir()} == {"drop", "drop.json"}
    assert examine(taken, record, rules).manifest is not None
    assert {path.name for path in taken.folder.iterdir()} == {"files", "drop.json"}


def test_a_drop_that_does_not_fit_on_the_disk_is_not_begun(
    spool: ServiceSpool, rules: ExamineRules
) -> None:
    """It waits until there is room."""
    taken, record = taken_drop(spool)
    with pytest.raises(StorageUnavailable, match="free disk space"):
        examine(taken, record, replace(rules, min_free_gb=1e9))
    assert {path.name for path in taken.folder.iterdir()} == {"drop", "drop.json"}


def test_a_stopped_watcher_does_not_wait_for_the_end_of_a_large_copy(
    spool: ServiceSpool, rules: ExamineRules
) -> None:
    """Only for the present file; the next watcher begins the copy again."""
    examiner = Examiner(rules)
    taken, record = taken_drop(spool)
    for number in range(3000):
        (taken.drop / f"more {number}").write_bytes(b"x")
    threads = threading.active_count()
    examiner.begin([(taken, record)])
    wait_for(lambda: len(list((taken.folder / "files.part").glob("*"))) > 2)
    begun = time.monotonic()
    examiner.close()
    assert time.monotonic() - begun < 10.0
    assert threading.active_count() <= threads
    assert isinstance(examiner.result(taken), TransientError)
    assert {path.name for path in taken.folder.iterdir()} == {"drop", "drop.json"}


def test_a_drop_that_changes_again_and_again_is_refused(
    spool: ServiceSpool, examiner: Examiner
) -> None:
    """Its owner goes on writing through a file that is still open."""
    taken, record = taken_drop(spool)
    stop = threading.Event()

    def write() -> None:
        with (taken.drop / "0.dcm").open("r+b") as file:
            while not stop.is_set():
                file.seek(0)
                file.write(os.urandom(5))
                file.flush()

    for number in range(200):
        (taken.drop / f"more {number}").write_bytes(b"x")
    writer = threading.Thread(target=write)
    writer.start()
    results: list[object] = []
    try:
        while len(results) < MOST_CHANGES:
            examiner.begin([(taken, record)])
            wait_for(lambda: not examiner.is_busy)
            results.append(examiner.result(taken))
    finally:
        stop.set()
        writer.join()
    assert [type(one) for one in results] == [ChangedMeanwhile] * (MOST_CHANGES - 1) + [UnsafeDrop]


def test_one_user_does_not_occupy_all_examinations(spool: ServiceSpool, examiner: Examiner) -> None:
    """However many large drops one has, another one is examined beside them."""
    drops = []
    for name in "abcde":
        taken, record = taken_drop(spool, name)
        for number in range(3000):
            (taken.drop / f"more {number}").write_bytes(b"x")
        drops.append((taken, replace(record, owner=4001)))
    other, record = taken_drop(spool, "other")
    examiner.begin([*drops, (other, replace(record, owner=4002))])
    wait_for(other.files.is_dir)
    assert len(list(spool.taken.glob("*/files.part"))) == 3
    assert examiner.is_busy


def test_many_small_drops_of_one_user_are_examined_in_one_look(
    spool: ServiceSpool, examiner: Examiner
) -> None:
    """Their number is not limited to what runs at a time; what is left makes the next look soon."""
    drops = [taken_drop(spool, f"a{number}") for number in range(12)]
    examiner.begin(drops)
    examined = [taken for taken, _ in drops if taken.files.is_dir()]
    assert len(examined) > 3

    def is_done() -> bool:
        examiner.begin(drops)
        return not examiner.is_busy

    wait_for(is_done)
    assert all(taken.files.is_dir() for taken, _ in drops)
