"""`ctdeface doctor` on healthy and on broken services."""

import json
import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctdeface_shared.broker.sqlite import SqliteBroker
from ctdeface_shared.commands.main import main
from ctdeface_shared.doctor.finding import Grade
from ctdeface_shared.doctor.storage import Account, judge_clock, judge_inbox
from ctdeface_shared.settings.service import find_service


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The spool of a service that was started once."""
    service = find_service(None, tmp_path / "spool")
    service.prepare()
    SqliteBroker(service.state_dir / "queue.sqlite3").close()
    return tmp_path / "spool"


def examined(
    root: Path, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[int, dict[str, list[str]]]:
    """Return the exit code, and the findings that are not ok by subject."""
    code = main(["doctor", "--json", "--spool", str(root), *more])
    findings = json.loads(capsys.readouterr().out)["findings"]
    told: dict[str, list[str]] = {}
    for one in findings:
        if one["grade"] != Grade.OK:
            told.setdefault(one["about"], []).append(f"{one['grade']}: {one['said']}")
    return code, told


@pytest.fixture
def umask() -> Iterator[None]:
    """Restore the umask of the process afterwards."""
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_a_service_that_was_started_is_healthy(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every finding is ok, and no file is left behind."""
    monkeypatch.setenv("CTDEFACE_OUTPUT__MIN_FREE_GB", "0")
    for port in ("WATCH_PORT", "WORK_PORT"):
        monkeypatch.setenv(f"CTDEFACE_METRICS__{port}", "0")
    before = sorted(root.rglob("*"))
    assert examined(root, capsys) == (0, {})
    assert sorted(root.rglob("*")) == before


def test_the_lines_for_a_person_begin_with_the_grade(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The grade comes first, so `grep problem` works."""
    main(["doctor", "--spool", str(root)])
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} <= {
        "ok",
        "warning",
        "problem",
    }


def test_before_the_first_start_missing_folders_are_no_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are created at the first start, not by the command."""
    code, told = examined(tmp_path / "new", capsys)
    assert code == 0
    assert told["folders"][0].startswith("warning: inbox, outbox")
    assert not (tmp_path / "new").exists()


def test_something_else_in_the_place_of_a_folder_is_a_problem(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The service could not start."""
    (root / "staging").rmdir()
    (root / "staging").write_text("no folder", encoding="utf-8")
    code, told = examined(root, capsys)
    assert code == 78
    assert any(
        line.startswith(f"problem: staging at {root / 'staging'}") for line in told["folders"]
    )


def test_an_inbox_on_another_file_system_is_a_problem_unless_originals_are_kept(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Originals could not be moved out of it atomically."""
    monkeypatch.setenv("CTDEFACE_SPOOL__INBOX", "/proc/self/fdinfo")
    code, told = examined(root, capsys)
    assert code == 78
    assert [line.split(" are on")[0] for line in told["disks"]] == ["problem: inbox and taken"]
    assert "it to the user" in told["folders"][0]
    monkeypatch.setenv("CTDEFACE_SPOOL__ORIGINALS", "keep")
    assert examined(root, capsys)[1].keys().isdisjoint({"disks", "folders"})


@pytest.mark.parametrize(
    ("mode", "lacks"),
    [
        (0o3770, []),
        (0o700, []),
        (0o755, []),
        (0o770, ["chmod +t", "chmod g+s"]),
        (0o2770, ["chmod +t"]),
        (0o1770, ["chmod g+s"]),
        (0o1777, ["chmod o-w", "chmod g+s"]),
    ],
)
def test_an_inbox_whose_users_can_touch_drops_of_others_is_told(
    root: Path, capsys: pytest.CaptureFixture[str], mode: int, lacks: list[str]
) -> None:
    """Each finding ends with the command to run."""
    (root / "inbox").chmod(mode)
    told = examined(root, capsys)[1].get("inbox", [])
    assert [line.rpartition(": ")[2] for line in told] == [
        f"{command} {root / 'inbox'}" for command in lacks
    ]
    assert all(line.startswith("warning: ") for line in told)


@pytest.mark.parametrize(
    ("service", "moves", "lacks"),
    [
        (Account(uid=5, groups=frozenset({7})), True, []),
        (Account(uid=6, groups=frozenset({7})), True, ["chown 6"]),
        (Account(uid=6, groups=frozenset({7})), False, []),
        (Account(uid=5, groups=frozenset({8})), True, ["chgrp 8"]),
        (Account(uid=0, groups=frozenset({0})), True, []),
    ],
)
def test_an_inbox_of_another_user_or_group_is_told(
    service: Account, moves: bool, lacks: list[str]
) -> None:
    """In a sticky folder only the owner can move what others dropped."""
    status = os.stat_result((stat.S_IFDIR | 0o3770, 1, 1, 2, 5, 7, 0, 0, 0, 0))
    told = judge_inbox(Path("/srv/in box"), status, service, moves_originals=moves)
    commands = [re.findall(r"(\w+ \d+) '/srv/in box'", text) for text in told]
    assert commands == [[command] for command in lacks]


def test_folders_that_lie_in_each_other_are_a_problem(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Released cases would be taken for new drops."""
    monkeypatch.setenv("CTDEFACE_SPOOL__INBOX", str(root / "outbox" / "in"))
    code, told = examined(root, capsys)
    assert code == 78
    assert told["layout"][0].startswith("problem: the folder")


def test_a_queue_that_cannot_be_reached_is_a_problem(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its password is not shown."""
    code, told = examined(root, capsys, "--broker", "amqp://me:secret@127.0.0.1:1")
    assert code == 78
    assert "secret" not in told["queue"][0]


def test_a_disk_that_is_nearly_full_is_told(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured against the setting that stops the service."""
    monkeypatch.setenv("CTDEFACE_OUTPUT__MIN_FREE_GB", "1e9")
    code, told = examined(root, capsys)
    assert code == 78
    assert "make space" in told["space"][0]


def test_only_the_folders_above_the_cases_are_counted_as_watched(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the watcher listens to them; a case may have many folders."""
    for service in ("one", "two"):
        (root / "inbox" / service / "case" / "series" / "deep").mkdir(parents=True)
    for depth, watched in (("1", 1), ("2", 3), ("3", 5)):
        monkeypatch.setenv("CTDEFACE_WATCH__CASE_DEPTH", depth)
        main(["doctor", "--json", "--spool", str(root)])
        (said,) = [
            one["said"]
            for one in json.loads(capsys.readouterr().out)["findings"]
            if one["about"] == "events"
        ]
        assert said.startswith(f"{watched} folders to watch")


def test_networks_are_looked_for_in_the_folder_of_the_settings(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker looks there, too, and not among the user's data."""
    monkeypatch.setenv("CTDEFACE_DEFACE__SEGMENTER", "nnunet:mine")
    monkeypatch.setenv("CTDEFACE_MODELS__FOLDER", str(tmp_path / "networks"))
    _, told = examined(root, capsys)
    assert f"the model 'mine' is not installed in {tmp_path / 'networks'}" in told["worker"][0]


def test_a_segmenter_that_is_not_there_is_a_problem(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finding names the value of the setting."""
    monkeypatch.setenv("CTDEFACE_DEFACE__SEGMENTER", "nonesuch")
    code, told = examined(root, capsys)
    assert code == 78
    assert "nonesuch" in told["worker"][0]


def test_more_threads_than_cores_are_told(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slower, but no reason to stop."""
    monkeypatch.setenv("CTDEFACE_WORK__JOBS", "4096")
    code, told = examined(root, capsys)
    assert code == 0
    assert "lower work.jobs" in told["cores"][0]


@pytest.mark.usefixtures("umask")
def test_a_umask_that_locks_the_owner_out_is_a_problem(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Looking at it does not change it."""
    os.umask(0o277)
    code, told = examined(root, capsys)
    assert os.umask(0o022) == 0o277
    assert code == 78
    assert told["umask"][0].startswith("problem: 0277")


def test_a_group_that_is_not_there_is_a_problem(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers could not give released cases to it."""
    monkeypatch.setenv("CTDEFACE_OUTPUT__OUTBOX_GROUP", "no-such-group")
    code, told = examined(root, capsys)
    assert code == 78
    assert "no-such-group" in told["group"][0]


@pytest.mark.parametrize(
    ("written", "grade"),
    [
        (100.0, Grade.OK),
        (104.0, Grade.OK),
        (110.0, Grade.WARNING),
        (90.0, Grade.WARNING),
        (1000.0, Grade.PROBLEM),
    ],
)
def test_clocks_are_compared_through_the_time_of_a_new_file(written: float, grade: Grade) -> None:
    """Machines that share a spool judge heartbeats by such times."""
    assert judge_clock(99.9, written, 100.1).grade is grade


def test_a_metrics_port_that_is_in_use_is_reported_with_its_setting(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second service on one machine would end at its start."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        monkeypatch.setenv("CTDEFACE_METRICS__WATCH_PORT", str(taken))
        monkeypatch.setenv("CTDEFACE_METRICS__WORK_PORT", "0")
        code, told = examined(root, capsys)
    assert code == 0
    assert told["ports"][0].startswith(f"warning: port {taken} at 127.0.0.1 is in use")
    assert "metrics.watch_port" in told["ports"][0]
