"""The first command of the README."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_make_run_once_defaces_the_synthetic_head_and_says_where_it_is(tmp_path: Path) -> None:
    """With nothing set the service starts, releases the case and ends by itself."""
    spool = tmp_path / "spool"
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CTDEFACE_", "MAKE", "MFLAGS", "ARGS"))
    }
    quiet = {
        "CTDEFACE_METRICS__WATCH_PORT": "0",
        "CTDEFACE_METRICS__WORK_PORT": "0",
        "CTDEFACE_OUTPUT__MIN_FREE_GB": "0.1",
    }
    command = ["make", "--silent", "--assume-old=setup", "run", "ONCE=1", f"SPOOL={spool}"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=clean | quiet,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (
        f"synthetic-head-1: released, see {spool / 'outbox' / 'synthetic-head-1'}\n" in done.stdout
    )
    assert len(list((spool / "outbox" / "synthetic-head-1").iterdir())) > 50
    assert not list((spool / "inbox").iterdir())
