"""A pipeline without imaging, for tests of queue and publishing.

Files, crashes and memory are real. The first line of `plan.txt` in a case decides its outcome:

- a key of `FAULTS`;
- `refuse`, or `needs bulky` (refused with any other profile);
- `busy N`: N rounds of arithmetic, then a release;
- `while disk`: a full disk as long as `.full` is in the folder of work files, then a release;
- `raise CODE`: that error of ctdeface or Python, with the whole plan in its message; `raise once
  CODE` fails the first attempt only;
- anything else, or no such file: a release.

A released file is the input with its bytes in reverse order; of a DICOM file, its pixel data only.
"""

import builtins
import hashlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ctdeface_shared import errors
from ctdeface_shared.errors import FaceNotFound, StorageUnavailable
from ctdeface_shared.jobs.options import Profile
from ctdeface_worker.case.child_process import OnStage, Run
from ctdeface_worker.imaging.domain import Fate
from ctdeface_worker.pipeline.result import CaseResult, FileResult
from ctdeface_worker.pipeline.task import CaseTask

_PIXEL_DATA = b"\xe0\x7f\x10\x00OW"
"""Tag and value representation, little endian."""
_TO_VALUE = 6
"""Bytes of the length and what is before it."""


def _bug(_: CaseTask) -> None:
    raise KeyError


def _full_disk(_: CaseTask) -> None:
    raise StorageUnavailable("storage failed: No space left on device")


def _disk_that_gets_space(task: CaseTask) -> None:
    if (task.work.parent / ".full").exists():
        _full_disk(task)


def _is_first(task: CaseTask) -> bool:
    """Return True on the first attempt at this job."""
    mark = task.work.parent / f".seen-{task.job_id}"
    seen = mark.exists()
    mark.touch()
    return not seen


def _crash_once(task: CaseTask) -> None:
    if _is_first(task):
        os._exit(3)


def _raise(task: CaseTask, plan: str) -> None:
    """Raise the error of a plan, with text that no log may contain."""
    code = plan.removeprefix("once ")
    if code != plan and not _is_first(task):
        return
    kind: type[Exception] = getattr(errors, code, None) or getattr(builtins, code)
    raise kind(f"{task.source}: {(task.source / 'plan.txt').read_text(encoding='utf-8')}")


def _kill_parent(_: CaseTask) -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)


FAULTS: Mapping[str, Callable[[CaseTask], None]] = {
    "bug": _bug,
    "crash": lambda _: os._exit(3),
    "once crash": _crash_once,
    "memory": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda _: os.kill(os.getpid(), signal.SIGSEGV),
    "disk": _full_disk,
    "while disk": _disk_that_gets_space,
    "hang": lambda _: time.sleep(600),
    "short": lambda _: time.sleep(0.3),
    "slow": lambda _: time.sleep(3),
    "very slow": lambda _: time.sleep(7),
    "kill parent": _kill_parent,
}


def prepare() -> Run[CaseTask, CaseResult]:
    """Return the stand-in pipeline."""
    return follow


def follow(task: CaseTask, on_stage: OnStage) -> CaseResult:
    """Follow the plan of a case."""
    on_stage("segment")
    plan = _plan_of(task)
    fault = FAULTS.get(plan)
    if fault is not None:
        fault(task)
    if plan.startswith("raise "):
        _raise(task, plan.removeprefix("raise "))
    if plan.startswith("busy "):
        hashlib.pbkdf2_hmac("sha256", b"", b"salt", int(plan.split()[1]))
    if plan == "refuse" or (plan == "needs bulky" and task.options.profile is not Profile.BULKY):
        return CaseResult(
            released=False,
            code=FaceNotFound("").code,
            reason="no face",
            files=_files(task, Fate.WITHHELD),
        )
    for file in _files(task, Fate.RELEASED):
        place = task.staged / file.file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(reversed_bytes((task.source / file.file).read_bytes()))
    return CaseResult(released=True, files=_files(task, Fate.RELEASED))


def _plan_of(task: CaseTask) -> str:
    file = task.source / "plan.txt"
    return file.read_text(encoding="utf-8").splitlines()[0] if file.exists() else "release"


def reversed_bytes(content: bytes) -> bytes:
    """Return the content that a file is released with.

    The header of a DICOM file stays, because late files are compared with it.
    """
    if content[128:132] != b"DICM":
        return content[::-1]
    header, tag, pixels = content.partition(_PIXEL_DATA)
    return header + tag + pixels[:_TO_VALUE] + pixels[_TO_VALUE:][::-1]


def _files(task: CaseTask, fate: Fate) -> tuple[FileResult, ...]:
    return tuple(
        _file(path, task.source, fate) for path in sorted(task.source.rglob("*")) if path.is_file()
    )


def _file(path: Path, root: Path, fate: Fate) -> FileResult:
    content = path.read_bytes()
    return FileResult(
        file=path.relative_to(root).as_posix(),
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        fate=fate,
        output_sha256=hashlib.sha256(reversed_bytes(content)).hexdigest()
        if fate is Fate.RELEASED
        else "",
    )
