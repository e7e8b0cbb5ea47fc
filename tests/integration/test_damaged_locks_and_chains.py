"""A damaged lock, owner file or audit chain stops no process and no other case."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ctdeface_shared.audit.chain import segments
from ctdeface_shared.storage import locks as module
from ctdeface_shared.storage.locks import OWNER_FILE, is_held, locked, sweep
from tests.support.service.audited import an_end, log_in, problems, seen
from tests.support.service.damage import nested_folders

FAKES: dict[str, Callable[[Path], None]] = {
    "file": Path.touch,
    "pipe": os.mkfifo,
    "loop": lambda path: path.symlink_to(path.name),
    "link": lambda path: path.symlink_to("elsewhere"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("fake", FAKES)
def test_what_is_no_lock_is_removed_when_the_lock_is_taken(tmp_path: Path, fake: str) -> None:
    """Otherwise its case could never end."""
    (tmp_path / "elsewhere").mkdir()
    FAKES[fake](tmp_path / "lock")
    with locked(tmp_path, "lock", stale_seconds=1000.0, wait_seconds=1.0) as is_ours:
        assert is_ours()
    assert not os.path.lexists(tmp_path / "lock")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "owner",
    [
        b"",
        b"no json",
        b"[" * 4_000,
        b"[1]",
        json.dumps({"token": ["a"]}).encode(),
        json.dumps({"pid": 10**400, "token": "a"}).encode(),
        b"\xff" * 100,
        b"x" * 10_000,
    ],
)
def test_a_lock_with_a_damaged_owner_is_free_soon(
    tmp_path: Path, owner: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can hold it: its holder would notice that it is not its own any more."""
    monkeypatch.setattr(module, "DAMAGED_SECONDS", 0.2)
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock" / OWNER_FILE).write_bytes(owner)
    stale = 0.3 if b"pid" in owner else 1000.0
    with locked(tmp_path, "lock", stale_seconds=stale, wait_seconds=5.0) as is_ours:
        assert is_ours()


@pytest.mark.timeout(30)
@pytest.mark.parametrize("fake", ["folder", "pipe", "loop"])
def test_an_owner_file_that_is_none_blocks_nobody(tmp_path: Path, fake: str) -> None:
    """A pipe once blocked the sweep of every worker that started."""
    folder = tmp_path / f"{7:016x}"
    folder.mkdir()
    owner = folder / OWNER_FILE
    if fake == "folder":
        owner.mkdir()
    else:
        FAKES[fake](owner)
    for path in (owner, folder):
        os.utime(path, (time.time() - 10_000,) * 2, follow_symlinks=False)
    assert not is_held(folder, 100.0)
    sweep(tmp_path, stale_seconds=1e9)


@pytest.mark.timeout(60)
def test_a_sweep_removes_folders_of_any_depth(tmp_path: Path) -> None:
    """`shutil.rmtree` ended the start of a worker with a RecursionError."""
    deep, other = (tmp_path / f"{number:016x}" for number in (1, 2))
    with nested_folders(deep):
        other.mkdir()
        for folder in (deep, other):
            (folder / OWNER_FILE).write_text("{}", encoding="utf-8")
            for path in (folder / OWNER_FILE, folder):
                os.utime(path, (time.time() - 10_000,) * 2)
        assert sweep(tmp_path, stale_seconds=100.0) == 2
        assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(30)
@pytest.mark.parametrize("damage", ["folder", "pipe", "sparse", "chain is a file", "deep line"])
def test_entries_go_on_in_another_chain(tmp_path: Path, damage: str) -> None:
    """One damaged chain once kept every case of a worker from its end."""
    with log_in(tmp_path) as log:
        log.record(an_end("before"))
    chain = tmp_path / "audit" / "host.1"
    (segment,) = segments(chain)
    if damage == "sparse":
        os.truncate(segment, 50_000_000_000)
    elif damage == "deep line":
        segment.write_bytes(b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"\n")
    elif damage == "chain is a file":
        segment.unlink()
        chain.rmdir()
        chain.write_bytes(b"")
    else:
        segment.unlink()
        (Path.mkdir if damage == "folder" else os.mkfifo)(segment)
    with log_in(tmp_path) as log:
        assert log.record(an_end("after"))
        assert not log.record(an_end("after"))
    ends = [end.job_id for one in seen(tmp_path) for end in one.ends]
    assert ends == ["after"]
    assert damage == "chain is a file" or problems(tmp_path)
