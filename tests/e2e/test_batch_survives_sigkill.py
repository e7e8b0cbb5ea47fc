"""SIGKILL at random moments of a batch: never a partial case in OUT, never an undefaced pixel there, and the next run completes.

The suite kills a few times; `make chaos` sets CTDEFACE_TEST_KILLS for the full number.
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

from tests.cases import write_small_cases

CASES = 6
COMMAND = Path(sys.executable).parent / "ctdeface"


def start(scans: Path, out: Path) -> subprocess.Popen[bytes]:
    """Start the batch in a process group of its own, its output in a file beside OUT."""
    command: list[str | Path] = [COMMAND, "deface", "-i", scans, "-o", out]
    with log_of(out).open("ab") as log:
        return subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)


def log_of(out: Path) -> Path:
    """Where the batch that writes OUT says what it does."""
    return out.with_suffix(".log")


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder; nothing for a missing folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def undisturbed(scans: Path, out: Path) -> tuple[dict[str, dict[str, str]], float]:
    """Run once without disturbance; what each case must look like, and how long the whole batch takes."""
    begun = time.monotonic()
    assert start(scans, out).wait() == 0, log_of(out).read_text()
    return {case.name: digests(case) for case in out.iterdir()}, time.monotonic() - begun


def assert_nothing_partial(out: Path, expected: dict[str, dict[str, str]]) -> int:
    """Every case in OUT is whole, defaced and byte for byte the undisturbed result; returns how many there are."""
    present = sorted(out.iterdir()) if out.is_dir() else []
    for case in present:
        assert digests(case) == expected[case.name], f"{case.name} differs from the undisturbed run"
    return len(present)


@pytest.mark.timeout(1200)
def test_a_batch_killed_at_random_moments_never_shows_a_partial_case_and_completes(tmp_path: Path) -> None:
    """Kills fall on the parent alone and on the whole group in turn, at moments spread over the whole batch."""
    seed = int(os.environ.get("CTDEFACE_TEST_SEED", "20261121"))
    kills = int(os.environ.get("CTDEFACE_TEST_KILLS", "3"))
    print(f"seed {seed}, {kills} kills")  # noqa: T201  shown when the test fails: needed to repeat it
    chance = random.Random(seed)  # noqa: S311  moments, not secrets
    scans = tmp_path / "scans"
    write_small_cases(scans, CASES)
    before = digests(scans)
    expected, seconds = undisturbed(scans, tmp_path / "expected")
    assert len(expected) == CASES

    out, round_number, done = tmp_path / "out-0", 0, 0
    while done < kills:
        process = start(scans, out)
        try:
            process.wait(timeout=chance.uniform(0.3, seconds))
        except subprocess.TimeoutExpired:
            kill = os.killpg if done % 2 else os.kill
            kill(process.pid, signal.SIGKILL)
            process.wait()
            done += 1
        else:  # the batch was complete before its kill: begin anew
            round_number += 1
            out = tmp_path / f"out-{round_number}"
        assert_nothing_partial(out, expected)

    assert start(scans, out).wait() == 0, log_of(out).read_text()
    assert assert_nothing_partial(out, expected) == CASES
    assert digests(scans) == before
    state = out.with_name(f"{out.name}.ctdeface")
    assert [path for name in ("work", "staging") for path in (state / name).iterdir()] == []
