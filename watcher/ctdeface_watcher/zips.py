"""A settled zip file in the inbox: unpacked under a hidden name, shown as a case by a rename, and put away.

hidden folder complete → noted → shown → zip file archived, deleted or kept
"""

import hashlib
import shutil
from glob import escape
from pathlib import Path

from ctdeface_shared import durable, logs
from ctdeface_shared.errors import StorageUnavailable, UnsafeArchive
from ctdeface_shared.manifest import Manifest, job_id
from ctdeface_shared.options import DefaceOptions, Originals
from ctdeface_shared.spool import PRIVATE, case_path
from ctdeface_watcher.desk import Post
from ctdeface_watcher.refusal import Refusal, refuse
from ctdeface_watcher.stability import is_unfinished
from ctdeface_watcher.unzip import holds, unpack, unpacked_sizes

_log = logs.logger(__name__)


def take_zip(post: Post, name: str, archive: Path) -> bool:
    """Make a case of a settled zip file, or refuse it; return whether nothing more is to be done about it as it is.

    While a case of its name lies in the inbox it waits, and also while the disk has no room for its content.

    Raises:
        OSError: storage failed, or the file is changed meanwhile.
    """
    manifest, case = _manifest(archive), archive.with_suffix("")
    identity = job_id(name, manifest, DefaceOptions())
    try:
        if not post.ledger.knows_zip(identity):
            if case.exists() and not holds(archive, case):
                return False
            if not case.exists():
                _unpack(post, archive, case)
            post.ledger.note_zip(identity)
    except StorageUnavailable as error:
        _log.warning("zip_waits", code=error.code)
        return False
    except UnsafeArchive as error:
        kept = post.originals is Originals.KEEP
        named = name.removesuffix(archive.suffix)
        refusal = Refusal(case=named, manifest=manifest, options=post.options, error=error)
        _log.warning("zip_refused", job_id=refuse(post.spool, refusal, None if kept else archive), code=error.code)
        if kept:
            post.ledger.note_zip(identity)
        return True
    if _hidden(case).exists():
        if case.exists():
            return False
        _hidden(case).rename(case)
        durable.sync_folder(case.parent)
        _log.info("zip_unpacked", job_id=identity)
    _put_away(post, name, archive, identity)
    return True


def sweep_unpacked(post: Post) -> None:
    """Remove what was being unpacked when the watcher was killed, where the zip file has gone since."""
    for hidden in post.spool.inbox.glob("*/" * (post.rules.case_depth - 1) + ".*.unpacking"):
        name = hidden.name[1:].removesuffix(".unpacking")
        if hidden.is_dir() and not any(path.suffix.lower() == ".zip" for path in hidden.parent.glob(f"{escape(name)}.*")):
            shutil.rmtree(hidden, ignore_errors=True)


def _unpack(post: Post, archive: Path, case: Path) -> None:
    """Unpack beside the case.

    Raises:
        UnsafeArchive: the zip file is refused.
        StorageUnavailable: there is no room.
    """
    if is_unfinished(case.name):
        message = f"a case cannot be named {case.name}, which means an unfinished copy: rename the zip file"
        raise UnsafeArchive(message)
    with durable.storage_errors():
        size, free = sum(unpacked_sizes(archive).values()), shutil.disk_usage(case.parent).free
        if size <= post.limits.bytes and free - size < post.min_free_gb * 1e9:
            message = "the disk has no room for the content of the zip file"
            raise StorageUnavailable(message)
        shutil.rmtree(_hidden(case), ignore_errors=True)  # what a crash left behind
        unpack(archive, _hidden(case), post.limits)


def _put_away(post: Post, name: str, archive: Path, identity: str) -> None:
    if post.originals is Originals.KEEP:
        return
    if post.originals is Originals.ARCHIVE:
        place = case_path(post.spool.archive / "zips", name) / identity
        durable.make_folder(place, mode=PRIVATE)
        archive.rename(place / archive.name)
        durable.sync_folder(place)
    else:
        archive.unlink()
    durable.sync_folder(archive.parent)
    post.ledger.forget_zip(identity)  # dropped again it is a new drop


def _hidden(case: Path) -> Path:
    return case.with_name(f".{case.name}.unpacking")


def _manifest(archive: Path) -> Manifest:
    """Fingerprint of the zip file itself."""
    status = archive.stat(follow_symlinks=False)
    row = f"{archive.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "surrogateescape")
    return Manifest(files=1, bytes=status.st_size, digest=hashlib.sha256(row).hexdigest())
