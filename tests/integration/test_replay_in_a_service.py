"""A replay beside running processes causes no second job for restored originals."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctdeface_shared.commands.main import main
from ctdeface_shared.status.spool_status import SpoolScanner
from ctdeface_shared.status.watcher_state import WATCHER_STATE, read_watcher_state
from ctdeface_worker.report.model import State
from tests.support.service.local_service import ROOT, LocalService, configured_service
from tests.support.service.spools import Ends, drop, ends, reports

QUIET_SECONDS = 0.3


@pytest.fixture
def service(tmp_path: Path) -> Iterator[LocalService]:
    """A watcher, and a worker with a stand-in for the pipeline, over the embedded queue."""
    watch = {"quiet_period": QUIET_SECONDS, "rescan_interval": QUIET_SECONDS}
    service_config = configured_service(
        tmp_path, None, watch=watch, metrics={"watch_port": 0, "work_port": 0}
    )
    service_config.prepare()
    local_service = LocalService(folder=tmp_path, service=service_config)
    local_service.start()
    watcher = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "ctdeface_shared",
            "watch",
            "--config",
            str(tmp_path / "ctdeface.toml"),
        ],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    yield local_service
    local_service.stop()
    watcher.kill()
    watcher.wait()


def test_a_refused_case_is_replayed_and_ends_in_the_outbox_once(service: LocalService) -> None:
    """Two jobs in all: the refused one and the replay; the watcher knows of no open one."""
    drop(service.spool, "a", "needs bulky")
    service.until(lambda: len(SpoolScanner(service.spool).look(time.time()).refused) == 1)
    assert (
        main(
            ["replay", "a", "--profile", "bulky", "--config", str(service.folder / "ctdeface.toml")]
        )
        == 0
    )
    service.until(lambda: ends(service.spool).outbox == ["a"] and service.is_idle())
    time.sleep(5 * QUIET_SECONDS)
    assert service.is_idle()
    assert ends(service.spool) == Ends(inbox=[], outbox=["a"], quarantine=["a"])
    assert sorted(report.state for report in reports(service.spool, "a")) == [
        State.DONE,
        State.REFUSED,
    ]
    state = read_watcher_state(service.service.state_dir / WATCHER_STATE)
    assert state is not None
    assert state.open_jobs == 0
