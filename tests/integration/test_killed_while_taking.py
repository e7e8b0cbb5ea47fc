"""A watcher killed at any change of the file system loses nothing and does nothing twice."""

import zipfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest

from ctdeface_shared.broker.memory import MemoryBroker
from ctdeface_shared.jobs.messages import DefaceJob, decode_job
from ctdeface_shared.jobs.options import DefaceOptions, Originals
from ctdeface_shared.jobs.taken import taken_case, taken_cases
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_watcher.inbox.examine import ExamineRules
from ctdeface_watcher.inbox.scan import InboxRules, scan_inbox
from ctdeface_watcher.inbox.take import take
from ctdeface_watcher.inbox.unzip import ZipLimits
from ctdeface_watcher.jobs.ledger import Ledger
from ctdeface_watcher.jobs.publish import Publisher
from ctdeface_watcher.jobs.taken_cases import Advanced, Examiner, TakenState, advance_all
from ctdeface_watcher.retention import remove_remains
from ctdeface_worker.pipeline.result import CaseResult
from ctdeface_worker.report.model import State, describe
from tests.support.ct_files import ROOT, CtFile
from tests.support.service.killed import killed_after
from tests.support.service.watcher import TREE_LIMITS

FIRST = {f"{number}.dcm": CtFile(number=number).content for number in (1, 2)}
LATE = {"3.dcm": CtFile(number=3).content}
OTHER = {"1.dcm": CtFile(elements={"StudyInstanceUID": f"{ROOT}9"}).content}
LOOKS = 4
"""More than any drop needs."""


@dataclass(slots=True, kw_only=True)
class Site:
    """A spool, its queue, and the watcher's rules.

    Attributes:
        root: holds everything.
        originals: what happens to dropped files.
        broker: the queue; it survives the watcher.
        published: jobs that have ended meanwhile.
    """

    root: Path
    originals: Originals = Originals.ARCHIVE
    broker: MemoryBroker = field(default_factory=MemoryBroker)
    spool: ServiceSpool = field(init=False)

    def __post_init__(self) -> None:
        """Create the folders."""
        self.spool = ServiceSpool.under(self.root / "spool")
        self.spool.prepare(outbox_mode=0o750)
        self.spool.prepare_inbox(moves_originals=True)
        (self.root / "state").mkdir(mode=0o700)

    def watch(self) -> None:
        """Do what the looks of one watcher do to the drops."""
        zips = ZipLimits(files=100, bytes=10**6)
        rules = ExamineRules(inbox=self.spool.inbox, limits=TREE_LIMITS, zips=zips, min_free_gb=0.0)
        examiner, state = Examiner(rules), TakenState()
        with Ledger(self.root / "state") as ledger, closing(examiner):
            publisher = Publisher(
                spool=self.spool,
                broker=self.broker,
                ledger=ledger,
                rules=InboxRules(),
                limits=TREE_LIMITS,
                options=DefaceOptions(),
                originals=self.originals,
            )
            for _ in range(LOOKS):
                self._look(publisher, examiner, state)

    def _look(self, publisher: Publisher, examiner: Examiner, state: TakenState) -> None:
        results: list[Advanced] = []
        for name in (found := scan_inbox(self.spool.inbox, InboxRules())).names:
            if self.originals is not Originals.KEEP or not self._is_copied(name):
                inode = {**found.cases, **found.zips}[name].stat().st_ino
                take(self.spool, name, 0.0, inode, moves=self.originals is not Originals.KEEP)
        advance_all(publisher, examiner, state, results.append)
        assert [one.error for one in results if one.error is not None] == []

    def _is_copied(self, name: str) -> bool:
        records = [one.record() for one in taken_cases(self.spool)]
        return name in {record.entry for record in records if record is not None}

    @property
    def jobs(self) -> dict[str, DefaceJob]:
        """The jobs in the queue by id."""
        jobs = [decode_job(delivery.body) for delivery in self.broker.queue.ready]
        return {job.job_id: job for job in jobs}

    def release(self) -> None:
        """Release what is in the queue as a worker does, and archive the originals."""
        for job in self.jobs.values():
            taken = taken_case(self.spool, job.taken)
            place = self.spool.archive / "originals" / job.case
            place.mkdir(parents=True, exist_ok=True)
            taken.files.rename(place / job.job_id)
            report = describe(
                job.job_id, job.case, job.manifest, job.options, CaseResult(released=True)
            )
            report = replace(report, state=State.DONE, owner=job.owner)
            folder = self.spool.reports / job.case / job.job_id
            folder.mkdir(parents=True)
            (folder / "report.json").write_bytes(report.to_json())
            taken.remove()
        self.broker.queue.ready.clear()

    def summary(self) -> Mapping[str, object]:
        """Return all that must be the same with and without a kill."""
        jobs = sorted(self.jobs.values(), key=lambda job: job.case)
        return {
            "jobs": [(job.case, job.manifest, job.left_in_inbox) for job in jobs],
            "job files": [_content(taken_case(self.spool, job.taken).files) for job in jobs],
            "taken": len(list(self.spool.taken.iterdir())),
            "inbox": _content(self.spool.inbox),
            "archive": sorted(_content(self.spool.archive).values()),
            "quarantine": sorted(
                (path.name, path.read_bytes())
                for path in self.spool.quarantine.glob("*/*/originals/**/*")
                if path.is_file()
            ),
        }


def _content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def drop(site: Site, files: Mapping[str, bytes], *, shared: bool = False) -> None:
    """Drop a case; a shared one is open for the group, so it is copied."""
    folder = site.spool.inbox / "a"
    (folder / "sub").mkdir(parents=True)
    for name, content in files.items():
        (folder / "sub" / name).write_bytes(content)
    folder.chmod(0o770 if shared else 0o700)


def drop_zip(site: Site, name: str = "1.dcm") -> None:
    """Drop a zip file; the name decides whether it is safe."""
    with zipfile.ZipFile(site.spool.inbox / "a.zip", "w") as packed:
        packed.writestr(zipfile.ZipInfo("sub/2.dcm"), FIRST["2.dcm"])
        packed.writestr(zipfile.ZipInfo(name), FIRST["1.dcm"])


def drop_link(site: Site) -> None:
    """Drop a case that is refused."""
    drop(site, FIRST)
    (site.spool.inbox / "a" / "link").symlink_to("/etc/passwd")


def after_a_release(site: Site, files: Mapping[str, bytes]) -> None:
    """Drop files under the name of a case that was released."""
    drop(site, FIRST)
    site.watch()
    site.release()
    drop(site, files)


SCENES: Mapping[str, tuple[Callable[[Site], None], Originals, int]] = {
    "own folder": (partial(drop, files=FIRST), Originals.ARCHIVE, 1),
    "shared folder": (partial(drop, files=FIRST, shared=True), Originals.ARCHIVE, 1),
    "zip file": (drop_zip, Originals.ARCHIVE, 1),
    "zip file, deleted": (drop_zip, Originals.DELETE, 1),
    "unsafe zip file": (partial(drop_zip, name="../1.dcm"), Originals.ARCHIVE, 0),
    "refused folder": (drop_link, Originals.ARCHIVE, 0),
    "kept": (partial(drop, files=FIRST), Originals.KEEP, 1),
    "late files": (partial(after_a_release, files=LATE), Originals.ARCHIVE, 1),
    "known content": (partial(after_a_release, files=FIRST), Originals.ARCHIVE, 0),
    "other study": (partial(after_a_release, files=OTHER), Originals.ARCHIVE, 1),
}


@pytest.mark.parametrize("scene", SCENES)
def test_a_watcher_killed_at_any_change_of_the_disk_is_continued_by_the_next(
    tmp_path: Path, scene: str
) -> None:
    """The next one ends where an undisturbed one ends, however far the first one came."""
    prepare, originals, jobs = SCENES[scene]
    calm = Site(root=tmp_path / "calm", originals=originals)
    prepare(calm)
    calm.watch()
    expected = calm.summary()
    assert len(calm.jobs) == jobs
    for changes in range(1000):
        site = Site(root=tmp_path / str(changes), originals=originals)
        prepare(site)
        with killed_after(changes) as kill:
            site.watch()
        site.watch()
        # A folder that was not named yet is removed when it is old.
        remove_remains(site.spool, 1e12)
        assert site.summary() == expected, changes
        if kill.left >= 0:
            break
    assert changes > 10
