"""A watcher that lost its lock while frozen leaves the inbox alone and waits again."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from ctdeface_shared.broker.sqlite import SqliteBroker
from ctdeface_shared.settings.service import find_service
from ctdeface_shared.storage.locks import OWNER_FILE, WATCHER_LOCK
from tests.support.service.watcher import fill, wait_for

COMMAND = Path(sys.executable).parent / "ctdeface"
QUICK = {
    "CTDEFACE_WATCH__QUIET_PERIOD": "0.2",
    "CTDEFACE_WATCH__RESCAN_INTERVAL": "0.5",
    "CTDEFACE_OUTPUT__MIN_FREE_GB": "0",
    "CTDEFACE_METRICS__WATCH_PORT": "0",
}


def test_a_watcher_that_lost_its_lock_publishes_nothing_until_it_has_it_again(
    tmp_path: Path,
) -> None:
    """The lock in other hands is left alone; when it is gone, the same process goes on."""
    service = find_service(None, tmp_path / "spool")
    owner, log = service.spool.locks / WATCHER_LOCK / OWNER_FILE, tmp_path / "log"
    with (
        log.open("wb") as said,
        subprocess.Popen(
            [COMMAND, "watch", "--spool", tmp_path / "spool"], env=os.environ | QUICK, stderr=said
        ) as run,
    ):
        try:
            wait_for(lambda: (service.state_dir / "watcher.json").exists() and owner.exists())
            taken = json.dumps(
                json.loads(owner.read_text(encoding="utf-8"))
                | {"token": "another", "host": "another"}
            )
            owner.write_text(taken, encoding="utf-8")
            wait_for(lambda: "another_watcher_active" in log.read_text(encoding="utf-8"))
            assert "another_watcher_took_over" in log.read_text(encoding="utf-8")
            fill(service.spool.inbox / "a")
            queue = SqliteBroker(service.state_dir / "queue.sqlite3")
            time.sleep(1.0)
            assert queue.depth().ready == 0
            assert owner.read_text(encoding="utf-8") == taken
            owner.parent.rename(
                tmp_path / "given up"
            )  # at once: an empty lock would be taken between two steps
            wait_for(lambda: queue.depth().ready == 1)
            queue.close()
        finally:
            run.terminate()
    assert run.returncode == 0
