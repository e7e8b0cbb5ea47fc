"""Folders that the service may not read are named in the status and do not stop the others."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ctdeface_shared.broker import open_broker
from ctdeface_shared.commands.main import main
from ctdeface_shared.exit_codes import EXIT_CONFIGURATION, EXIT_OK
from ctdeface_shared.settings.service import ServiceConfig
from tests.support.service.audited import make_batch, spool_in
from tests.support.service.chaos import COMMAND, ROOT
from tests.support.service.local_service import configured_service
from tests.support.service.unprivileged import UNPRIVILEGED
from tests.support.service.watcher import fill, wait_for

SHUT = ("locked", "ward/half/series", "ward/shut")
"""A folder above cases, a folder in a case, and a case."""
DEADLINE_SECONDS = 60.0


@contextmanager
def watching(service: ServiceConfig, config: Path, log: Path) -> Iterator[None]:
    """Run the watcher during the block as a user bound by file modes."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*UNPRIVILEGED, COMMAND, "watch", "--config", config], cwd=ROOT, stderr=stream
        )
    try:
        yield
        assert process.poll() is None, log.read_text(encoding="utf-8")
    finally:
        process.terminate()
        process.wait(60)
        for name in SHUT:
            with suppress(FileNotFoundError):  # taken meanwhile
                (service.spool.inbox / name).chmod(0o700)


def bound(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run a command as a user bound by file modes."""
    command: list[str | Path] = [*UNPRIVILEGED, COMMAND, *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=DEADLINE_SECONDS
    )


def published(service: ServiceConfig) -> int:
    """Count the jobs that wait in the queue."""
    broker = open_broker(service.queue)
    ready = broker.depth().ready
    broker.close()
    return ready


def test_folders_of_the_inbox_that_cannot_be_read_are_reported_and_the_others_are_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`ctdeface status` names each with the reason and counts it as waiting; the log names none."""
    service = configured_service(
        tmp_path, None, watch={"quiet_period": 0.5, "rescan_interval": 0.5, "case_depth": 2}
    )
    service.prepare()
    service.spool.inbox.mkdir(exist_ok=True)
    for name in ("ward/open", "ward/half/series", "ward/shut", "locked/inside"):
        fill(service.spool.inbox / name)
    for name in SHUT:
        (service.spool.inbox / name).chmod(0)
    config, log = tmp_path / "ctdeface.toml", tmp_path / "watcher.log"

    def reported() -> list[str]:
        capsys.readouterr()
        assert main(["status", "--config", str(config)]) == EXIT_OK
        return re.findall(
            r"(\S+) cannot be used: it cannot be read \(Permission denied\)",
            capsys.readouterr().out,
        )

    with watching(service, config, log):
        wait_for(
            lambda: (
                published(service) == 1
                and sorted(reported()) == ["locked", "ward/half", "ward/shut"]
            ),
            DEADLINE_SECONDS,
        )
        seen = json.loads(bound("status", "--config", config, "--json").stdout)
        assert (seen["waiting"], seen["is_idle"]) == (len(SHUT), False)
        for name in SHUT:
            (service.spool.inbox / name).chmod(0o700)
        wait_for(lambda: published(service) == 4 and reported() == [], DEADLINE_SECONDS)
    logged = log.read_text(encoding="utf-8")
    assert logged.count('"event": "case_unusable"') == 3
    assert not [name for name in SHUT if name in logged]


def test_an_outbox_that_cannot_be_read_is_never_called_intact(tmp_path: Path) -> None:
    """The audit exits with 78 and names the folder."""
    folder = spool_in(make_batch(tmp_path)).outbox / "group/b"
    folder.chmod(0)
    done = bound(
        "audit", "verify", "--out", tmp_path / "out", "--public-key", tmp_path / "audit.key.pub"
    )
    folder.chmod(0o700)
    assert (done.returncode, done.stdout) == (EXIT_CONFIGURATION, "")
    assert f"{folder} cannot be read, but the whole spool must be checked" in done.stderr
