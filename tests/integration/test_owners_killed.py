"""Processes killed while they handle folders leave nothing that a sweep cannot remove."""

import subprocess
import sys
import time
from pathlib import Path

from ctdeface_shared.storage.locks import sweep

KILLS = 12
AN_HOUR_SECONDS = 3600.0
BUSY = """
import sys
from pathlib import Path
from ctdeface_shared.storage.locks import claim_name, locked, owned_folder
parent = Path(sys.argv[1])
print(flush=True)
while True:
    with owned_folder(parent), locked(parent, claim_name("job"), stale_seconds=3600):
        pass
"""


def test_nothing_is_left_of_owners_that_are_killed(tmp_path: Path) -> None:
    """Two at a time are killed at random moments; the folders are far from stale."""
    for number in range(KILLS):
        crowd = [
            subprocess.Popen([sys.executable, "-c", BUSY, tmp_path], stdout=subprocess.PIPE)
            for _ in range(2)
        ]
        for member in crowd:
            assert member.stdout is not None
            member.stdout.readline()
        time.sleep(0.01 * number)
        for member in crowd:
            member.kill()
            member.communicate()
        sweep(tmp_path, stale_seconds=AN_HOUR_SECONDS)
        assert list(tmp_path.iterdir()) == []
