"""Cases that were taken out of the inbox, in the spool's folder `taken`.

Each has a private folder with a random name from the moment it is taken until its job has ended:

    drop.json   what was taken, written before the case is moved
    drop        the case as it was dropped, until it was examined
    drop.zip    the zip file, until its content has a job
    files       its files, all of them owned by the service
    job.json    its job, written before it is published

Only the service user can reach anything in it.
"""

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import time
from typing import Final, Self

from pydantic import TypeAdapter

from ctdeface_shared.errors import PermanentError
from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.messages import DefaceJob, decode_job, encode_job
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.bounded import LARGEST_STATE_BYTES, parse_json, read_bounded
from ctdeface_shared.storage.private_tree import remove_tree
from ctdeface_shared.storage.spool import PRIVATE, ServiceSpool

RECORD: Final = "drop.json"
JOB: Final = "job.json"
_CREATION_SECONDS = 60.0
"""A folder is created within milliseconds; after this time its creator was killed."""
_ID = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DropRecord:
    """What was taken.

    Attributes:
        entry: name of the folder or zip file in the inbox; empty for a replay.
        case: name of the case.
        taken_at: seconds since the epoch.
        is_zip: whether a zip file was taken.
        left_in_inbox: whether it was copied, because the service does not or may not move it.
        owner: user id of its owner; None for a replay.
        seen_at: when it was first seen, seconds since the epoch.
        inode: of what was judged to be complete; 0 if unknown.
        stats: `digest_of_stats` of what was left in the inbox.
        manifest: fingerprint of `files`; None before the examination.
    """

    entry: str
    case: str
    taken_at: float
    is_zip: bool = False
    left_in_inbox: bool = False
    owner: int | None = None
    seen_at: float = 0.0
    inode: int = 0
    stats: str = ""
    manifest: Manifest | None = None


_READER = TypeAdapter(DropRecord)


@dataclass(frozen=True, slots=True)
class TakenCase:
    """One folder in `taken`."""

    folder: Path

    @property
    def taken_id(self) -> str:
        """Return its random name."""
        return self.folder.name

    @property
    def drop(self) -> Path:
        """Return the place of the case as it was dropped."""
        return self.folder / "drop"

    @property
    def archive(self) -> Path:
        """Return the place of a zip file that only the service can change."""
        return self.folder / "drop.zip"

    @property
    def files(self) -> Path:
        """Return the place of the case's files."""
        return self.folder / "files"

    @classmethod
    def create(cls, spool: ServiceSpool, record: DropRecord, taken_id: str = "") -> Self:
        """Create a folder that holds nothing but its record.

        Args:
            spool: the folders of the service.
            record: what was taken.
            taken_id: name of the folder; a new one by default.

        Raises:
            OSError: storage failed.
        """
        hidden = spool.taken / f".{taken_id or new_taken_id()}"
        remove_tree(hidden)  # left by a crash
        hidden.mkdir(mode=PRIVATE)
        atomic.write_file(hidden / RECORD, _as_json(record))
        taken = cls(hidden.with_name(hidden.name[1:]))
        hidden.rename(taken.folder)
        atomic.sync_folder(spool.taken)
        return taken

    def record(self) -> DropRecord | None:
        """Return the record, or None without a valid one.

        Raises:
            OSError: the file exists and cannot be read.
        """
        try:
            return _READER.validate_python(
                parse_json(read_bounded(self.folder / RECORD, LARGEST_STATE_BYTES))
            )
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None

    def write_record(self, record: DropRecord) -> None:
        """Replace the record durably.

        Raises:
            OSError: storage failed.
        """
        atomic.write_file(self.folder / RECORD, _as_json(record))

    def job(self) -> DefaceJob | None:
        """Return the job, or None without a valid one.

        Raises:
            OSError: the file exists and cannot be read.
        """
        try:
            return decode_job(read_bounded(self.folder / JOB, LARGEST_STATE_BYTES))
        except (FileNotFoundError, NotADirectoryError, ValueError, PermanentError):
            return None

    def write_job(self, job: DefaceJob) -> None:
        """Write the job durably.

        Raises:
            OSError: storage failed.
            InvalidMessage: the job cannot be encoded.
        """
        atomic.write_file(self.folder / JOB, encode_job(replace(job, taken=self.taken_id)))

    def remove(self) -> None:
        """Remove the folder with all that is left in it.

        What cannot be removed now, such as a folder of another user, is removed by a later sweep.
        """
        if remove_tree(self.files):  # the record stays until they are gone
            remove_tree(self.folder)


def taken_case(spool: ServiceSpool, taken_id: str) -> TakenCase:
    """Return the folder with an id; it need not exist."""
    return TakenCase(spool.taken / taken_id)


def taken_cases(spool: ServiceSpool) -> Iterator[TakenCase]:
    """Yield every folder in `taken`, in the order of their names.

    Raises:
        OSError: `taken` cannot be read.
    """
    for folder in sorted(spool.taken.iterdir()) if spool.taken.is_dir() else ():
        if _ID.fullmatch(folder.name):
            yield TakenCase(folder)


def new_taken_id() -> str:
    """Return a random name for a taken folder."""
    return secrets.token_hex(16)


def remove_unfinished(spool: ServiceSpool) -> None:
    """Remove the folders whose creation was killed; they hold a record at most.

    Raises:
        OSError: `taken` cannot be read.
    """
    for folder in spool.taken.iterdir() if spool.taken.is_dir() else ():
        if folder.name.startswith(".") and _ID.fullmatch(folder.name[1:]):
            with suppress(FileNotFoundError):  # it was finished meanwhile
                if time() - folder.stat().st_ctime > _CREATION_SECONDS:
                    remove_tree(folder)


def new_record(entry: str, case: str) -> DropRecord:
    """Return the record of a case that is taken now."""
    return DropRecord(entry=entry, case=case, taken_at=time())


def _as_json(record: DropRecord) -> bytes:
    return json.dumps(asdict(record), indent=1).encode()
