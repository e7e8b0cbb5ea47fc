"""A spool that version 0.1.0 left at any state of a job is taken over and finished.

Every file is written here in the format of that version, not by today's code.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pytest

from ctdeface_shared.status.spool_status import SpoolScanner
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_worker.report.model import State
from tests.integration.test_brokers import put_raw
from tests.support.service.local_service import ROOT, LocalService, configured_service
from tests.support.service.spools import Ends, ends, reports

QUIET_SECONDS = 0.3
SUBMITTED_AT = "2026-11-20T09:30:00.125+00:00"
OPTIONS = {
    "profile": "soft-tissue",
    "ears": False,
    "fill": "air",
    "headers": "preserve",
    "on_series_failure": "quarantine",
    "segmenter": "network",
}
OWNER = {
    "host": "a-machine-that-is-gone",
    "boot": "75faf502-2b6c-4afe-9a47-a60f8c23c9a2",
    "pids": "pid:[4026531836]",
    "pid": 32462,
    "started": "629339",
    "token": "d9c6c0e6c6a4b68a",
}


def sha256(content: bytes) -> str:
    """Return a digest in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class OldCase:
    """A dropped case and what version 0.1.0 writes about it.

    Attributes:
        spool: where everything is.
        name: of the case.
        plan: what the stand-in for the pipeline does with it.
    """

    spool: ServiceSpool
    name: str
    plan: str = "release"
    manifest: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        """Drop the files and take their fingerprint."""
        folder = self.spool.inbox / self.name
        folder.mkdir()
        for name, content in self.inputs.items():
            (folder / name).write_bytes(content)
        rows = "".join(
            f"{path.name}\0{path.stat().st_size}\0{path.stat().st_mtime_ns}\n"
            for path in sorted(folder.iterdir())
        )
        size = sum(len(content) for content in self.inputs.values())
        manifest = {"files": len(self.inputs), "bytes": size, "digest": sha256(rows.encode())}
        object.__setattr__(self, "manifest", manifest)

    @property
    def inputs(self) -> dict[str, bytes]:
        """The dropped files."""
        return {
            "0.dcm": f"{self.name} 0".encode() * 100,
            "plan.txt": f"{self.plan}\n{self.name}\n".encode(),
        }

    @property
    def outputs(self) -> dict[str, bytes]:
        """The files that the stand-in releases."""
        return {name: content[::-1] for name, content in self.inputs.items()}

    @property
    def job_id(self) -> str:
        """The job's identity; the worker takes it from the message."""
        return str(uuid5(NAMESPACE_URL, self.name))

    @property
    def staging(self) -> Path:
        """The staging folder of the attempt that was interrupted."""
        return self.spool.staging / sha256(self.name.encode())[:16]

    @property
    def folder(self) -> Path:
        """The report folder."""
        return self.spool.reports / self.name / self.job_id

    def message(self) -> bytes:
        """Return the message about the case."""
        content = {
            "schema_version": 1,
            "job_id": self.job_id,
            "case": self.name,
            "manifest": self.manifest,
            "generation": 0,
            "submitted_at": SUBMITTED_AT,
            "options": OPTIONS,
        }
        return json.dumps(content).encode()

    def report(self, state: str) -> dict[str, Any]:
        """Return the content of report.json."""
        refused = state == "refused"
        files: list[dict[str, Any]] = [
            {
                "file": name,
                "size": len(content),
                "sha256": sha256(content),
                "fate": "withheld" if refused else "released",
                "code": "",
                "reason": "",
                "series": "",
                "output_sha256": "" if refused else sha256(content[::-1]),
                "differences": [],
                "broken_signatures": [],
            }
            for name, content in self.inputs.items()
        ]
        return {
            "job_id": self.job_id,
            "case": self.name,
            "generation": 0,
            "state": state,
            "created_at": SUBMITTED_AT,
            "manifest": self.manifest,
            "options": OPTIONS,
            "result": {
                "released": not refused,
                "code": "FaceNotFound" if refused else "",
                "reason": "no face" if refused else "",
                "series": [],
                "files": files,
                "seconds": {},
                "timeline": [],
                "segmenter": "",
                "model_digest": "",
                "model_origin": "",
            },
            "staged": self.staging.name if state in {"prepared", "published"} else "",
            "versions": {"python": "3.11.7", "ctdeface": "0.1.0"},
            "inputs_digest": "",
            "outputs_digest": "",
            "originals_left": False,
            "schema_version": 1,
        }

    def begin(self, *ends_of_lines: str) -> None:
        """Record attempts."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [f"2026-11-20T09:31:00+00:00 gone 32462 {end}\n" for end in ends_of_lines]
        (self.folder / "attempts.log").write_text("".join(lines), encoding="utf-8")

    def record(self, state: str) -> None:
        """Write report.json."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.report(state), indent=1)
        (self.folder / "report.json").write_text(text, encoding="utf-8")

    def stage(self, *, files: bool = True) -> None:
        """Write the staging folder, with or without the defaced files."""
        self.staging.mkdir()
        if files:
            write(self.staging / "dicom", self.outputs)
        owner = self.staging / ".owner.json"
        owner.write_text(json.dumps(OWNER), encoding="utf-8")

    def mark(self) -> None:
        """Mark the staging folder as unfinished."""
        mark = {"outbox": self.spool.outbox.stat().st_ino, "report": self.report("prepared")}
        (self.staging / "unfinished.json").write_text(json.dumps(mark), encoding="utf-8")

    def show(self) -> None:
        """Put the output into the outbox."""
        write(self.spool.outbox / self.name, self.outputs)

    def archive(self) -> None:
        """Move the originals to the archive."""
        place = self.spool.archive / "originals" / self.name / self.job_id
        place.parent.mkdir(parents=True)
        (self.spool.inbox / self.name).rename(place)

    def die(self) -> None:
        """Let the staging folder look as a dead machine left it long ago."""
        for path in (self.staging, self.staging / ".owner.json"):
            if path.exists():
                os.utime(path, (0, 0))


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Write files to a new folder."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def begun(case: OldCase) -> None:
    """Record an attempt whose worker died."""
    case.begin("begun")


def recorded(state: str) -> Callable[[OldCase], None]:
    """Return the step that writes report.json with a state."""
    return lambda case: case.record(state)


def without_files(case: OldCase) -> None:
    """Write the staging folder of a case that was renamed into the outbox."""
    case.stage(files=False)


STATES: Mapping[str, tuple[Callable[[OldCase], None], ...]] = {
    "submitted": (),
    "handed back": (lambda case: case.begin("begun", "handed back"),),
    "begun": (begun,),
    "staged": (begun, OldCase.stage),
    "marked": (begun, OldCase.stage, OldCase.mark),
    "prepared": (OldCase.stage, OldCase.mark, recorded("prepared")),
    "renamed": (without_files, OldCase.mark, recorded("prepared"), OldCase.show),
    "published": (without_files, OldCase.mark, recorded("published"), OldCase.show),
    "published and archived": (
        without_files,
        OldCase.mark,
        recorded("published"),
        OldCase.show,
        OldCase.archive,
    ),
    "done": (recorded("done"), OldCase.show, OldCase.archive),
    "refused": (begun, recorded("refused")),
}
"""The steps that version 0.1.0 had taken when it was killed, by a name for the state."""


@pytest.fixture
def local_service(tmp_path: Path) -> Iterator[LocalService]:
    """Workers and watcher that are yet to be started, on the embedded queue."""
    watch = {"quiet_period": QUIET_SECONDS, "rescan_interval": QUIET_SECONDS}
    service = configured_service(
        tmp_path, None, watch=watch, metrics={"watch_port": 0, "work_port": 0}
    )
    made = LocalService(folder=tmp_path, service=service)
    made.service.prepare()
    yield made
    made.stop()


@contextmanager
def watching(local_service: LocalService) -> Iterator[None]:
    """Run a watcher."""
    config = local_service.folder / "ctdeface.toml"
    command = [sys.executable, "-m", "ctdeface_shared", "watch", "--config", str(config)]
    with (local_service.folder / "watcher.log").open("wb") as log:
        watcher = subprocess.Popen(command, cwd=ROOT, stderr=log)
        try:
            yield
        finally:
            watcher.kill()
            watcher.wait()


@pytest.mark.parametrize("published", [False, True])
def test_a_replay_that_release_0_1_0_began_keeps_its_options(
    local_service: LocalService, published: bool
) -> None:
    """Its originals were back in the inbox; what it withholds stays withheld."""
    spool = local_service.spool
    case = OldCase(spool=spool, name="a", plan="needs bulky")
    case.record("refused")
    order = json.loads(case.message()) | {
        "job_id": str(uuid5(NAMESPACE_URL, "replay")),
        "generation": 1,
        "submitted_at": "2026-11-20T10:00:00.000+00:00",
        "options": OPTIONS | {"profile": "bulky", "withhold": ["1.2.3"]},
    }
    folder = spool.reports / "a" / order["job_id"]
    folder.mkdir()
    text = json.dumps(order | {"replays": case.job_id, "published": published})
    (folder / "order.json").write_text(text, encoding="utf-8")
    if published:
        put_raw(local_service.service.queue, json.dumps(order).encode())

    local_service.start()
    with watching(local_service):
        local_service.until(lambda: local_service.is_idle() and ends(spool).outbox == ["a"])

    assert ends(spool) == Ends(inbox=[], outbox=["a"], quarantine=[])
    (done,) = [report for report in reports(spool, "a") if report.state is State.DONE]
    assert (done.options["profile"], done.options["withhold"]) == ("bulky", ["1.2.3"])
    seen = SpoolScanner(spool).look(time.time())
    assert (seen.is_idle, seen.refused) == (True, ())


def settled(local_service: LocalService) -> list[str]:
    """Return the log lines of messages that a worker has settled."""
    return [line for line in local_service.log.splitlines() if '"job_settled"' in line]


def test_every_state_of_a_job_is_resumed_to_its_one_end(local_service: LocalService) -> None:
    """Once: by its job if it had a report, else by a new one; nothing temporary is left."""
    spool = local_service.spool
    cases = [
        OldCase(spool=spool, name=name, plan="refuse" if name == "refused" else "release")
        for name in STATES
    ]
    for case in cases:
        for step in STATES[case.name]:
            step(case)
        case.die()
    put_raw(local_service.service.queue, *(case.message() for case in cases))
    released = sorted(case.name for case in cases if case.plan == "release")
    shown = (spool.outbox / "done").stat().st_ino

    local_service.start()  # first, as the documentation says
    local_service.until(lambda: len(settled(local_service)) == len(cases))
    with watching(local_service):
        local_service.until(local_service.is_idle)

    assert ends(spool) == Ends(inbox=[], outbox=released, quarantine=["refused"])
    for case in cases:
        (report,) = reports(spool, case.name)
        state = State.DONE if case.plan == "release" else State.REFUSED
        assert (case.name, report.state) == (case.name, state)
        if case.plan == "release":
            output = spool.outbox / case.name
            assert {path.name: path.read_bytes() for path in output.iterdir()} == case.outputs
            place = spool.archive / "originals" / case.name / report.job_id
        else:
            place = spool.quarantine / case.name / case.job_id / "originals"
            assert (place.parent / "report.html").is_file()
        assert {path.name: path.read_bytes() for path in place.iterdir()} == case.inputs
        is_new = case.name in {"submitted", "handed back", "begun", "staged"}
        assert (case.name, report.job_id != case.job_id) == (case.name, is_new)
        assert local_service.logged("attempt_begun", report.job_id) == ([1] if is_new else [])
    assert SpoolScanner(spool).look(time.time()).is_idle
    assert ((spool.outbox / "done").stat().st_ino, (spool.archive / "outputs").exists()) == (
        shown,
        False,
    )
    assert list(spool.staging.iterdir()) == list(spool.work.glob("[0-9a-f]*")) == []
