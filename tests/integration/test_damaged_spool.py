"""Every kind of file under the spool is damaged while good cases pass.

The suite runs it small; `make fuzz` runs it at full size. Both are repeatable: the seed is printed
and can be given as CTDEFACE_TEST_SEED.
"""

import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest

from ctdeface_shared.exit_codes import EXIT_OK
from ctdeface_shared.storage.locks import OWNER_FILE, UNFINISHED
from ctdeface_shared.storage.private_tree import remove_tree
from ctdeface_shared.storage.spool import ServiceSpool
from tests.support.service import chaos
from tests.support.service.damage import (
    add_strange_entries,
    copy_folder,
    damage_file,
)
from tests.support.service.spools import drop, reports
from tests.support.service.stand_in_pipeline import reversed_bytes
from tests.support.service.unprivileged import UNPRIVILEGED

FULL = os.environ.get("CTDEFACE_TEST_DAMAGE") == "full"
ROUNDS = 12 if FULL else 1
GOOD_CASES = 20
COPIES = 12
"""Damaged copies of each kind of folder, so that each kind of file meets many kinds of damage."""
SEED = int(os.environ.get("CTDEFACE_TEST_SEED", "20261128"))
SETTLE_SECONDS = 120.0
VICTIMS = {"victim-1": "release", "victim-2": "refuse", "victim-3": "release"}


def environment() -> dict[str, str]:
    """Settings that make everything quick."""
    settings = {
        "WATCH__QUIET_PERIOD": "0.3",
        "WATCH__RESCAN_INTERVAL": "1",
        "OUTPUT__MIN_FREE_GB": "0.1",
        "METRICS__WATCH_PORT": "0",
        "METRICS__WORK_PORT": "0",
        "BROKER__RETRY_DELAYS": "[0.5, 1.0]",
    }
    return {**os.environ, **{f"CTDEFACE_{name}": value for name, value in settings.items()}}


@contextmanager
def service(spool: ServiceSpool) -> Iterator[Sequence[chaos.ServiceProcess]]:
    """Run a watcher and a worker; both must live through the block and end normally."""
    root = spool.inbox.parent
    processes = [
        chaos.ServiceProcess(
            name, (*UNPRIVILEGED, *command(root)), root.parent / f"{name}.log", environment()
        )
        for name, command in (("watcher", chaos.watcher), ("worker", chaos.stand_in_worker))
    ]
    for process in processes:
        process.start()
    try:
        yield processes
        for process in processes:
            assert process.process is not None
            assert process.process.poll() is None, end_of_log(process)
    finally:
        codes = {process.name: process.end() for process in processes}
    assert set(codes.values()) == {0}, codes


def end_of_log(process: chaos.ServiceProcess) -> str:
    """Return the last lines of a process."""
    return f"{process.name}: {process.log.read_text(errors='replace')[-4000:]}"


def wait(spool: ServiceSpool, is_over: Callable[[], bool], what: str) -> None:
    """Wait until something is over."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while not is_over():
        logs = "\n".join(
            f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}"
            for log in spool.inbox.parent.parent.glob("*.log")
        )
        assert time.monotonic() < deadline, f"{what}\n{logs}"
        time.sleep(0.1)


def status(spool: ServiceSpool, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run `ctdeface status` as a person would."""
    return subprocess.run(
        [*UNPRIVILEGED, str(chaos.COMMAND), "status", "--spool", str(spool.inbox.parent), *options],
        cwd=chaos.ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def make_victims(spool: ServiceSpool) -> None:
    """Let some cases end, so that there is something to damage, and copy what they left."""
    for case, plan in VICTIMS.items():
        drop(spool, case, plan)
    with service(spool):
        wait(
            spool,
            lambda: (
                len(chaos.names(spool.outbox) | chaos.names(spool.quarantine)) == len(VICTIMS)
                and not chaos.names(spool.taken)
            ),
            "the victims did not end",
        )
    job = next((spool.reports / "victim-1").iterdir())
    report = json.loads((job / "report.json").read_bytes())
    for number in range(COPIES):
        copy = copy_folder(job, spool.reports / f"victim-copy-{number}" / str(uuid4()))
        (copy / "order.json").write_text(json.dumps(an_order(report)), encoding="utf-8")
        (copy / "repeat.json").write_bytes((copy / "report.json").read_bytes())
        make_taken(spool, f"victim-taken-{number}", report)
        make_owned(spool.staging / f"{number:016x}", report)
        make_owned(spool.work / f"{number:016x}", None)
        make_owned(spool.locks / f"{number:032x}", None)
        copy_folder(spool.quarantine / "victim-2", spool.quarantine / f"victim-copy-{number}")
        copy_folder(spool.audit / next(iter(chaos.names(spool.audit))), spool.audit / f"x.{number}")


def an_order(report: Mapping[str, object]) -> dict[str, object]:
    """Return a replay request about a reported case."""
    manifest = dict(report["manifest"])  # type: ignore[call-overload]  # JSON has no types
    manifest.pop("covers", None)
    return {
        "schema_version": 2,
        "job_id": str(uuid4()),
        "case": report["case"],
        "manifest": manifest,
        "submitted_at": report["created_at"],
        "options": report["options"],
        "taken": "0" * 32,
        "replays": report["job_id"],
        "published": False,
    }


def make_taken(spool: ServiceSpool, case: str, report: Mapping[str, object]) -> None:
    """Make the folder of a taken case that has a job."""
    folder = spool.taken / uuid4().hex
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "plan.txt").write_text("release\n", encoding="utf-8")
    record = {"entry": case, "case": case, "taken_at": time.time(), "owner": os.geteuid()}
    (folder / "drop.json").write_text(json.dumps(record), encoding="utf-8")
    job = an_order(report) | {"case": case, "taken": folder.name}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")


def make_owned(folder: Path, report: Mapping[str, object] | None) -> None:
    """Make a staging folder, work folder or lock of a process that has ended."""
    folder.mkdir()
    owner = {"host": "gone", "boot": "x", "pids": "x", "pid": 7, "started": "1", "token": "ab"}
    (folder / OWNER_FILE).write_text(json.dumps(owner), encoding="utf-8")
    if report is not None:
        mark = {"outbox": folder.parent.parent.stat().st_ino, "report": report}
        (folder / UNFINISHED).write_text(json.dumps(mark), encoding="utf-8")
        (folder / "dicom").mkdir()
    long_ago = time.time() - 100_000
    for path in (folder / OWNER_FILE, folder):
        os.utime(path, (long_ago, long_ago))


def damageable(spool: ServiceSpool) -> list[Path]:
    """Return every file of the spool that no good case needs, except the queue's."""
    return sorted(
        path
        for path in spool.inbox.parent.rglob("*")
        if path.is_file() and not path.name.startswith("queue.sqlite3")
    )


def damage_at_rest(spool: ServiceSpool, chance: random.Random) -> list[Path]:
    """Damage every file while no process runs, and put strange entries into every folder."""
    found = damageable(spool)
    for path in found:
        damage_file(path, chance, is_content=path.parent.name == "files")
    others = [
        spool.outbox,
        spool.taken,
        spool.staging,
        spool.work,
        spool.archive / "originals",
        spool.locks,
        spool.audit,
        spool.quarantine,
    ]
    for place in (spool.inbox, spool.reports, *(others if FULL else chance.sample(others, 2))):
        add_strange_entries(place)
    return [path for path in found if "ledger" not in path.name and spool.audit not in path.parents]


def assert_passed(spool: ServiceSpool, inputs: Mapping[str, chaos.Contents]) -> None:
    """Every good case was released once, whole, and its originals are kept."""
    for case, files in inputs.items():
        released = {name: reversed_bytes(content) for name, content in files.items()}
        assert chaos.contents(spool.outbox / case) == released
        assert [report.state for report in reports(spool, case)] == ["done"]
        (kept,) = (spool.archive / "originals" / case).iterdir()
        assert chaos.contents(kept) == files


def assert_named(spool: ServiceSpool) -> None:
    """The status answers, and names what it could not examine with the reason."""
    shown = status(spool)
    assert shown.returncode == EXIT_OK, shown.stderr
    assert "was left out: " in shown.stdout
    plain = status(spool, "--json")
    assert plain.returncode == EXIT_OK, plain.stderr
    left_out = json.loads(plain.stdout)["skipped"]
    places = {one["place"] for one in left_out}
    assert {"reports", "taken"} <= places
    assert not [one for one in left_out if "unexpected" in one["reason"]]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", range(ROUNDS))
def test_good_cases_pass_while_everything_else_is_damaged(tmp_path: Path, number: int) -> None:
    """No process ends, no case waits for another, and the status names what is damaged."""
    chance = random.Random(SEED + number)
    print(f"seed {SEED + number}")
    spool = ServiceSpool.under(tmp_path / "spool")
    spool.prepare(outbox_mode=0o750)
    spool.inbox.mkdir()
    try:
        make_victims(spool)
        victims = damage_at_rest(spool, chance)
        good = [f"good-{one:02d}" for one in range(GOOD_CASES)]
        inputs = {}
        with service(spool):
            for case in good:
                inputs[case] = chaos.contents(drop(spool, case, files=3))
                for path in chance.sample(victims, 3):
                    with suppress(OSError):
                        damage_file(path, chance, is_content=path.parent.name == "files")
                time.sleep(0.05)
            wait(
                spool,
                lambda: (
                    set(good) <= chaos.names(spool.outbox)
                    and all(is_done(spool, case) for case in good)
                ),
                "not every good case was released",
            )
            assert_named(spool)
        assert_passed(spool, inputs)
    finally:
        remove_tree(tmp_path / "spool")


def is_done(spool: ServiceSpool, case: str) -> bool:
    """Return whether the only job of a case is done."""
    with suppress(ValueError):
        return [report.state for report in reports(spool, case)] == ["done"]
    return False
