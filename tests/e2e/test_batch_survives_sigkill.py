"""A batch killed at random moments shows no partial case, and the next run completes it.

The suite kills a few times; `make chaos` sets CTDEFACE_TEST_KILLS for the full number, with six
cases.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ctdeface_shared.commands.main import main
from ctdeface_shared.exit_codes import EXIT_OK
from ctdeface_shared.storage.locks import UNFINISHED
from tests.support.cases import write_small_cases

KILLS = int(os.environ.get("CTDEFACE_TEST_KILLS", "4"))
CASES = 6 if KILLS >= 20 else 3
LONGEST_SECONDS = 8.0 if KILLS >= 20 else 4.0
COMMAND = Path(sys.executable).parent / "ctdeface"
Shown = dict[str, dict[str, str]]


def start(scans: Path, out: Path) -> subprocess.Popen[bytes]:
    """Start the batch in a process group of its own, its output in a file beside OUT."""
    command: list[str | Path] = [COMMAND, "deface", "-i", scans, "-o", out]
    with log_of(out).open("ab") as log:
        environment = {**os.environ, "CTDEFACE_OUTPUT__MIN_FREE_GB": "0.1"}
        return subprocess.Popen(
            command,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
        )


def log_of(out: Path) -> Path:
    """Where the batch that writes OUT says what it does."""
    return out.with_suffix(".log")


def state_of(out: Path) -> Path:
    """The state root of OUT."""
    return out.with_name(f"{out.name}.ctdeface")


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder; nothing for a missing folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def shown(out: Path) -> Shown:
    """Every case in OUT with its files."""
    return {case.name: digests(case) for case in sorted(out.iterdir())} if out.is_dir() else {}


def wait_for_a_moment(
    process: subprocess.Popen[bytes], out: Path, chance: random.Random, *, while_publishing: bool
) -> bool:
    """Wait for a random moment or for a publication; return False if the batch ended before."""
    deadline = time.monotonic() + (60 if while_publishing else chance.uniform(0.3, LONGEST_SECONDS))
    while process.poll() is None and time.monotonic() < deadline:
        if while_publishing and any((state_of(out) / "staging").glob(f"*/{UNFINISHED}")):
            time.sleep(chance.uniform(0, 0.1))
            break
        time.sleep(0.002)
    return process.poll() is None


@pytest.mark.timeout(1200)
def test_a_batch_killed_at_random_moments_never_shows_a_partial_case_and_completes(
    tmp_path: Path,
) -> None:
    """Kills hit the parent alone and the whole group, at any moment and during publications."""
    seed = int(os.environ.get("CTDEFACE_TEST_SEED", "20261121"))
    print(f"seed {seed}, {KILLS} kills, {CASES} cases")
    chance = random.Random(seed)
    scans = tmp_path / "scans"
    write_small_cases(scans, CASES)
    before = shown(scans)
    seen: list[Shown] = []
    out, round_number, done = tmp_path / "out-0", 0, 0
    while done < KILLS:
        process = start(scans, out)
        if wait_for_a_moment(process, out, chance, while_publishing=done % 4 in {1, 2}):
            kill = (
                os.killpg if done % 2 else os.kill
            )  # with four kills each kind of moment meets each kind of kill
            kill(process.pid, signal.SIGKILL)
            done += 1
        else:  # the batch was complete before its kill: begin anew
            round_number += 1
            out = tmp_path / f"out-{round_number}"
        process.wait()
        seen.append(shown(out))

    assert start(scans, out).wait() == 0, log_of(out).read_text()
    final = shown(out)
    assert main(["audit", "verify", "--out", str(out)]) == EXIT_OK
    assert shown(scans) == before
    assert {case: files.keys() for case, files in final.items()} == {
        case: files.keys() for case, files in before.items()
    }
    assert all(final[case] != before[case] for case in final)
    for (
        earlier
    ) in seen:  # whatever was visible at any time is byte for byte what an undisturbed run gives
        assert earlier.items() <= final.items()
    assert [
        path for name in ("work", "staging", "locks") for path in (state_of(out) / name).iterdir()
    ] == []
