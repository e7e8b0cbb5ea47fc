"""The modes of files and folders, independent of the umask."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ctdeface_shared.broker import open_broker
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.jobs import attempt_log
from ctdeface_shared.jobs.options import Originals
from ctdeface_shared.settings.service import ServiceConfig, find_service
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.locks import locked
from ctdeface_watcher.jobs.ledger import Ledger
from ctdeface_worker.publishing.commit import publish
from ctdeface_worker.publishing.originals import archive
from ctdeface_worker.publishing.quarantine import show
from ctdeface_worker.report.model import State
from tests.integration.test_publishing import report_of, stage
from tests.support.service.audited import log_in, rules_with
from tests.support.service.spools import drop, job_for

OTHERS, GROUP = 0o007, 0o070


@contextmanager
def umask(value: int) -> Iterator[None]:
    """Use a umask for the time of the block."""
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


def used_site(root: Path) -> ServiceConfig:
    """A spool with one released and one refused case, and all files of both services."""
    service = find_service(None, root)
    service.prepare()
    spool = service.spool
    for name in ("a", "b"):
        drop(spool, name)
    broker = open_broker(service.queue)
    job = job_for(spool, "a")
    broker.publish(job)
    broker.close()
    with (
        Ledger(service.state_dir),
        log_in(root) as log,
        locked(spool.locks, "0" * 32, stale_seconds=1.0),
    ):
        report, staged = stage(spool, "job", "new", case="a")
        publish(spool, report, staged, rules_with(log, spool))
        archive(spool, replace(report, taken=job.taken))
        attempt_log.begin(spool.reports / "a" / "job")
        refused = replace(report_of("other", {"1.dcm": "x"}, case="b"), state=State.REFUSED)
        atomic.make_folder(spool.reports / "b" / "other", mode=0o700)
        for name in ("report.html", "report.json"):
            atomic.write_file(spool.reports / "b" / "other" / name, refused.to_json())
        show(spool, refused, Originals.ARCHIVE)
    return service


def mode_of(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("given", [0o000, 0o022, 0o077])
def test_nobody_else_can_reach_a_patient_whatever_the_umask(given: int, tmp_path: Path) -> None:
    """Only the group reads the outbox and drops; all other folders are private."""
    with umask(given):
        service = used_site(tmp_path / "spool")
    spool = service.spool
    assert {mode_of(folder) for folder in (*spool.private, service.state_dir)} == {0o700}
    assert mode_of(spool.inbox) == 0o3770
    outbox = [spool.outbox, *spool.outbox.rglob("*")]
    assert {mode_of(path) for path in outbox if path.is_dir()} == {0o750}
    assert {mode_of(path) for path in outbox if path.is_file()} == {0o640}
    assert mode_of(spool.outbox.parent) & OTHERS == 0
    assert [path for path in service.state_dir.iterdir() if mode_of(path) & (GROUP | OTHERS)] == []
    written = [path for folder in (spool.reports, spool.audit) for path in folder.rglob("*")]
    assert len(written) >= 8
    assert [path for path in written if mode_of(path) & (GROUP | OTHERS)] == []


@pytest.mark.parametrize("given", [0o000, 0o077])
def test_what_is_handed_out_beside_the_outbox_has_exactly_its_mode(
    given: int, tmp_path: Path
) -> None:
    """NIfTI files are copied with the mode of released files."""
    (tmp_path / "one.nii.gz").write_bytes(b"voxels")
    with umask(given):
        atomic.copy_file(tmp_path / "one.nii.gz", tmp_path / "two.nii.gz", mode=0o640)
    assert mode_of(tmp_path / "two.nii.gz") == 0o640


def test_private_folders_that_were_opened_to_others_are_closed_at_the_start(tmp_path: Path) -> None:
    """As a volume of Kubernetes with fsGroup, whose folders become writable for a group."""
    service = used_site(tmp_path / "spool")
    opened = (*service.spool.private, service.state_dir)
    for folder in opened:
        folder.chmod(0o2775)
    service.prepare()
    assert {mode_of(folder) & 0o777 for folder in opened} == {0o700}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders to other users")
@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_private_folder_that_another_user_made_before_the_first_start_is_refused(
    tmp_path: Path, kind: str
) -> None:
    """Who can write into the spool's root could make it; originals would be in reach."""
    for name in ("taken", "archive", "quarantine", "state"):
        root = tmp_path / name / "spool"
        root.mkdir(parents=True)
        made = root / name
        if kind == "link":
            (tmp_path / name / "elsewhere").mkdir(mode=0o700)
            made.symlink_to(tmp_path / name / "elsewhere")
        else:
            made.mkdir(mode=0o777)
        os.chown(made, 4001, -1, follow_symlinks=False)
        with pytest.raises(ConfigurationError, match=f"spool/{name} .* user 4001"):
            find_service(None, root).prepare()


def test_a_link_that_the_administrator_made_may_lead_to_a_private_folder(tmp_path: Path) -> None:
    """Such as to another disk for the work folder."""
    root = tmp_path / "spool"
    root.mkdir()
    (tmp_path / "fast").mkdir(mode=0o750)
    (root / "work").symlink_to(tmp_path / "fast")
    find_service(None, root).prepare()
    assert mode_of(tmp_path / "fast") == 0o700
