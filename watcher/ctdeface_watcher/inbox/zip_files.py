"""A settled zip file in the inbox: unpacked under a hidden name, shown as a case by a rename, and put away.

hidden folder complete → noted → shown → zip file archived, deleted or kept
"""

import shutil
from glob import escape
from pathlib import Path

from ctdeface_shared import logs
from ctdeface_shared.errors import StorageUnavailable, UnsafeArchive
from ctdeface_shared.jobs.manifest import Manifest, job_id
from ctdeface_shared.jobs.options import DefaceOptions, Originals
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.case_folders import is_unfinished
from ctdeface_shared.storage.spool import PRIVATE, case_path
from ctdeface_watcher.context import WatcherContext
from ctdeface_watcher.inbox.unzip import holds, unpack, unpacked_sizes
from ctdeface_watcher.jobs.refuse import Refusal, refuse

_log = logs.logger(__name__)


def take_zip(context: WatcherContext, name: str, archive: Path) -> bool:
    """Make a case of a settled zip file, or refuse it; return whether nothing more is to be done about it as it is.

    While a case of its name lies in the inbox it waits, and also while the disk has no room for its
    content.

    Raises:
        OSError: storage failed, or the file is changed meanwhile.
    """
    manifest, case = Manifest.of_file(archive), archive.with_suffix("")
    identity = job_id(name, manifest, DefaceOptions())
    try:
        if not context.ledger.knows_zip(identity):
            if case.exists() and not holds(archive, case):
                return False
            if not case.exists():
                _unpack(context, archive, case)
            context.ledger.note_zip(identity)
    except StorageUnavailable as error:
        _log.warning("zip_waits", code=error.code)
        return False
    except UnsafeArchive as error:
        kept = context.originals is Originals.KEEP
        named = name.removesuffix(archive.suffix)
        refusal = Refusal(case=named, manifest=manifest, options=context.options, error=error)
        _log.warning(
            "zip_refused",
            job_id=refuse(context.spool, refusal, None if kept else archive),
            code=error.code,
        )
        if kept:
            context.ledger.note_zip(identity)
        return True
    if _hidden(case).exists():
        if case.exists():
            return False
        _hidden(case).rename(case)
        atomic.sync_folder(case.parent)
        _log.info("zip_unpacked", job_id=identity)
    _put_away(context, name, archive, identity)
    return True


def sweep_unpacked(context: WatcherContext) -> None:
    """Remove what was being unpacked when the watcher was killed, where the zip file has gone since."""
    for hidden in context.spool.inbox.glob("*/" * (context.rules.case_depth - 1) + ".*.unpacking"):
        name = hidden.name[1:].removesuffix(".unpacking")
        if hidden.is_dir() and not any(
            path.suffix.lower() == ".zip" for path in hidden.parent.glob(f"{escape(name)}.*")
        ):
            shutil.rmtree(hidden, ignore_errors=True)


def _unpack(context: WatcherContext, archive: Path, case: Path) -> None:
    """Unpack beside the case.

    Raises:
        UnsafeArchive: the zip file is refused.
        StorageUnavailable: there is no room.
    """
    if is_unfinished(case.name):
        raise UnsafeArchive(
            f"a case cannot be named {case.name}, which means an unfinished copy: rename the zip file"
        )
    with atomic.storage_errors():
        size, free = sum(unpacked_sizes(archive).values()), shutil.disk_usage(case.parent).free
        if size <= context.limits.bytes and free - size < context.min_free_gb * 1e9:
            raise StorageUnavailable("the disk has no room for the content of the zip file")
        shutil.rmtree(_hidden(case), ignore_errors=True)  # what a crash left behind
        unpack(archive, _hidden(case), context.limits)


def _put_away(context: WatcherContext, name: str, archive: Path, identity: str) -> None:
    if context.originals is Originals.KEEP:
        return
    if context.originals is Originals.ARCHIVE:
        place = case_path(context.spool.archive / "zips", name) / identity
        atomic.make_folder(place, mode=PRIVATE)
        archive.rename(place / archive.name)
        atomic.sync_folder(place)
    else:
        archive.unlink()
    atomic.sync_folder(archive.parent)
    context.ledger.forget_zip(identity)  # dropped again it is a new drop


def _hidden(case: Path) -> Path:
    return case.with_name(f".{case.name}.unpacking")
