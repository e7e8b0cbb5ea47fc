"""A service that runs as a user of its own, beside people who may drop and attack it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from ctdeface_shared.broker import open_broker
from ctdeface_shared.settings.service import ServiceConfig
from ctdeface_shared.status.watcher_state import (
    WATCHER_STATE,
    WatcherState,
    read_watcher_state,
)
from ctdeface_shared.storage.spool import ServiceSpool
from tests.support import users
from tests.support.service import chaos
from tests.support.service.local_service import configured_service
from tests.support.service.patients import ADAMS, ORIGINAL, Files
from tests.support.users import SERVICE, User

QUIET = 0.5
_PATIENCE_SECONDS = 180.0
_SETTINGS: Mapping[str, Mapping[str, object]] = {
    "watch": {"quiet_period": QUIET, "rescan_interval": 1},
    "output": {"min_free_gb": 0.01},
    "work": {"job_timeout": 60, "max_attempts": 5, "grace_period": 1},
    "metrics": {"watch_port": 0, "work_port": 0},
    "broker": {"retry_delays": [0.5], "lease": 5.0, "heartbeat": 5},
}


@dataclass(slots=True, kw_only=True)
class AttackedService:
    """Watcher and workers of one spool.

    Attributes:
        folder: holds the spool and what is beside it.
        service: its settings.
        home: a folder outside the spool that the service's user may write.
        user: runs it; None for the user of this process.
        processes: watcher and workers by name.
    """

    folder: Path
    service: ServiceConfig
    home: Path
    user: User | None = None
    processes: dict[str, chaos.ServiceProcess] = field(default_factory=dict)
    _others: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    @property
    def spool(self) -> ServiceSpool:
        """The folders of the service."""
        return self.service.spool

    @property
    def inbox(self) -> Path:
        """Where everybody may drop."""
        return self.service.spool.inbox

    @property
    def private(self) -> tuple[Path, ...]:
        """Every folder of the spool that must never hold an original, not even for a moment."""
        spool = self.spool
        return (spool.outbox, spool.staging, spool.reports, spool.work, spool.audit)

    def start(self) -> None:
        """Start what is not running."""
        for process in self.processes.values():
            process.start()

    def stop(self) -> None:
        """Kill everything."""
        self.end_attacks()
        for process in self.processes.values():
            if process.process is not None:
                process.process.kill()
                process.process.wait()

    def spy(self, user: User | None, needle: bytes, *places: Path) -> Path:
        """Let a user, or root, read places continually.

        Returns:
            The file that lists the paths in which the bytes were found.
        """
        command = ("spy", needle.decode(), *(str(place) for place in places))
        return self._beside(user, *command)

    def attack(self, user: User, attack: str, *arguments: str) -> Path:
        """Let a user attack the inbox until the service is stopped.

        Returns:
            The file with what the attack prints.
        """
        output = self._beside(user, "attackers", attack, str(self.inbox), *arguments)
        self.until(lambda: bool(output.read_bytes()))
        return output

    def _beside(self, user: User | None, module: str, *arguments: str) -> Path:
        output = self.folder / f"{module}-{len(self._others)}.txt"
        command = (sys.executable, "-m", f"tests.support.service.{module}", *arguments)
        with output.open("wb") as stream:
            self._others.append(
                subprocess.Popen(
                    user.command(*command) if user else command, cwd=chaos.ROOT, stdout=stream
                )
            )
        return output

    def end_attacks(self) -> None:
        """Kill spies and attackers."""
        while self._others:
            other = self._others.pop()
            other.kill()
            other.wait()

    def ended(self, case: str) -> bool:
        """Return whether a case was released or quarantined."""
        places = (self.spool.outbox, self.spool.quarantine)
        return any(os.path.lexists(place / case) for place in places)

    def until(self, holds: Callable[[], bool], seconds: float = _PATIENCE_SECONDS) -> None:
        """Wait for a condition.

        Raises:
            AssertionError: it did not come true in time; with what the processes logged.
        """
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, self.logged()
            time.sleep(0.05)

    def pass_case(self, user: User | None, case: str, seconds: float = _PATIENCE_SECONDS) -> None:
        """Drop a case and wait for its release: the watcher has looked, and others go on."""
        drop(user, self.inbox / case, ADAMS.images(2))
        self.until((self.spool.outbox / case).exists, seconds)

    def command(self, command: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of ctdeface as the service's user."""
        config = {"CTDEFACE_CONFIG": str(self.folder / "ctdeface.toml")}
        line = (str(chaos.COMMAND), command, *arguments)
        return subprocess.run(
            self.user.command(*line) if self.user else line,
            cwd=chaos.ROOT,
            env=users.environment(self.home, config),
            capture_output=True,
            text=True,
            check=False,
        )

    def logged(self) -> str:
        """Return the last that each process logged."""
        return "\n".join(
            f"--- {name}\n{process.log.read_text(errors='replace')[-3000:]}"
            for name, process in self.processes.items()
            if process.log.exists()
        )

    def published(self) -> int:
        """Return how many jobs are open by the watcher's last look."""
        return self.watcher_state().open_jobs

    def watcher_state(self) -> WatcherState:
        """Return the result of the watcher's last look."""
        state = read_watcher_state(self.service.state_dir / WATCHER_STATE)
        return state or WatcherState(looked_at="")

    def is_idle(self) -> bool:
        """Return whether no job is open, and the queue is empty."""
        broker = open_broker(self.service.queue)
        depth = broker.depth()
        broker.close()
        return not (depth.ready or depth.held or depth.delayed or self.published())

    def originals_in_private(self) -> list[Path]:
        """Return the files with undefaced pixels where none may be."""
        return [
            path
            for place in self.private
            for path in place.rglob("*")
            if path.is_file() and not path.is_symlink() and ORIGINAL in path.read_bytes()
        ]


@contextmanager
def attacked_service(
    folder: Path,
    url: str | None = None,
    *,
    inbox: tuple[int, int] = (0, 0o770),
    user: User | None = SERVICE,
    settings: Mapping[str, Mapping[str, object]] | None = None,
) -> Iterator[AttackedService]:
    """Run watcher and workers as a user of their own.

    Args:
        folder: that all users may traverse.
        url: of the queue; None for the embedded one.
        inbox: uid of its owner and its mode; with a user only.
        user: runs them; None for the user of this process.
        settings: tables that differ.
    """
    tables: dict[str, Mapping[str, object]] = dict(_SETTINGS)
    for name, table in (settings or {}).items():
        tables[name] = {**tables.get(name, {}), **table}
    service = configured_service(folder, url, **tables)
    running = AttackedService(folder=folder, service=service, home=folder / "home", user=user)
    _prepare(running, user, inbox)
    variables = users.environment(folder / "home", {})
    config = ("--config", str(folder / "ctdeface.toml"))
    worker = (sys.executable, "-m", "tests.support.service.stand_in_worker")
    for name, command in (
        ("watcher", (str(chaos.COMMAND), "watch", *config)),
        ("worker", (*worker, *config)),
    ):
        running.processes[name] = chaos.ServiceProcess(
            name,
            user.command(*command) if user else command,
            folder / f"{name}.log",
            variables,
        )
    try:
        running.start()
        yield running
    finally:
        running.stop()


def _prepare(running: AttackedService, user: User | None, inbox: tuple[int, int]) -> None:
    """Create the folders that must be there first, and the canaries in the home folder."""
    root, home = running.folder / "spool", running.home
    for folder in (root, home, home / ".ssh", running.inbox):
        folder.mkdir()
    canaries = (home / ".ssh" / "authorized_keys", home / "notes.txt")
    for canary in canaries:
        canary.write_text("nothing of a case\n", encoding="utf-8")
    if user is None:
        return
    for folder in (root, home, home / ".ssh"):
        users.give(folder, user, 0o711)
    for canary in canaries:
        users.give(canary, user, 0o600)
    os.chown(running.inbox, inbox[0], users.GROUP)
    running.inbox.chmod(inbox[1])


def drop(
    user: User | None, place: Path, files: Files, *, modes: tuple[int, int] = (0o770, 0o660)
) -> Path:
    """Drop a folder as a user, with modes of folders and files; a rename shows it."""
    folder_mode, file_mode = modes
    with user.acting() if user else nullcontext():
        hidden = place.with_name(f".{place.name}.{os.urandom(4).hex()}")
        hidden.mkdir()
        for name, content in files.items():
            (hidden / name).parent.mkdir(parents=True, exist_ok=True)
            (hidden / name).write_bytes(content)
            (hidden / name).chmod(file_mode)
        for below in (*hidden.rglob("*"), hidden):
            if below.is_dir():
                below.chmod(folder_mode)
        return hidden.rename(place)


def state_of(folder: Path) -> Mapping[str, tuple[int, ...]]:
    """Return what shows that anything below a folder was changed or read.

    That is inode, mode, owner, names and change time; and the time of the last reading of a file,
    if `never_read` was called.
    """
    return {
        path.relative_to(folder).as_posix(): (
            (status := path.lstat()).st_ino,
            status.st_mode,
            status.st_uid,
            status.st_nlink,
            status.st_ctime_ns,
            status.st_atime_ns if path.is_file() else 0,
        )
        for path in sorted(folder.rglob("*"))
    }


def never_read(folder: Path) -> None:
    """Date the last reading of every file before its last change; a reading then dates it anew."""
    for path in folder.rglob("*"):
        os.utime(path, ns=(0, path.lstat().st_mtime_ns), follow_symlinks=False)
