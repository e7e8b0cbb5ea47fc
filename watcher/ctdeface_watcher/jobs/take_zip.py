"""Taking of a zip file: a new case, or a refusal.

The order makes every step repeatable after a crash: hidden folder complete, zip file recorded in
the ledger, folder shown, zip file archived, deleted or kept.
"""

from dataclasses import dataclass
from pathlib import Path

from ctdeface_shared import logs
from ctdeface_shared.errors import StorageUnavailable, UnsafeArchive
from ctdeface_shared.jobs.manifest import Manifest, job_id
from ctdeface_shared.jobs.options import DefaceOptions, Originals
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.spool import PRIVATE, ServiceSpool, case_path
from ctdeface_watcher.inbox.unzip import ZipLimits, holds
from ctdeface_watcher.inbox.zip_files import hidden_folder, show, unpack_hidden
from ctdeface_watcher.jobs.intake import IntakeResult
from ctdeface_watcher.jobs.ledger import Ledger
from ctdeface_watcher.jobs.refuse import Refusal, refuse

_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipRules:
    """How zip files are taken.

    Attributes:
        limits: maximum content of a zip file.
        originals: whether a taken zip file is archived, deleted or kept.
        options: options that a refusal records.
        min_free_gb: space that must stay free on the inbox's disk, 10⁹ bytes.
    """

    limits: ZipLimits
    originals: Originals
    options: DefaceOptions
    min_free_gb: float


def take_zip(
    spool: ServiceSpool, ledger: Ledger, rules: ZipRules, name: str, archive: Path
) -> IntakeResult:
    """Unpack a complete zip file into a case, or refuse it.

    Args:
        spool: the folders of the service.
        ledger: remembers the zip files that were unpacked or refused.
        rules: how zip files are taken.
        name: name of the zip file, relative to the inbox.
        archive: the zip file.

    Returns:
        `UNPACKED`, `REFUSED`, or `BUSY` while another case has its name or the disk has no room.

    Raises:
        OSError: storage failed, or the file is changed meanwhile.
    """
    manifest, case = Manifest.of_file(archive), archive.with_suffix("")
    identity = job_id(name, manifest, DefaceOptions())
    try:
        if not ledger.has_zip(identity):
            if not _is_unpacked(archive, case, rules):
                return IntakeResult.BUSY
            ledger.add_zip(identity)
    except StorageUnavailable as error:
        _log.warning("zip_waits", code=error.code)
        return IntakeResult.BUSY
    except UnsafeArchive as error:
        refusal = Refusal(
            case=name.removesuffix(archive.suffix),
            manifest=manifest,
            options=rules.options,
            error=error,
        )
        is_kept = rules.originals is Originals.KEEP
        refused_as = refuse(spool, refusal, None if is_kept else archive)
        _log.warning("zip_refused", job_id=refused_as, code=error.code)
        if is_kept:
            ledger.add_zip(identity)
        return IntakeResult.REFUSED
    if hidden_folder(case).exists():
        if case.exists():
            return IntakeResult.BUSY
        show(case)
        _log.info("zip_unpacked", job_id=identity)
    _put_away(ledger, archive, rules.originals, case_path(spool.archive / "zips", name) / identity)
    return IntakeResult.UNPACKED


def _is_unpacked(archive: Path, case: Path, rules: ZipRules) -> bool:
    """Unpack a zip file unless its case exists.

    Returns:
        False if the existing case has other content.

    Raises:
        UnsafeArchive: the zip file is refused.
        StorageUnavailable: the disk has no room for the content.
    """
    if case.exists():
        return holds(archive, case)
    unpack_hidden(archive, case, rules.limits, rules.min_free_gb)
    return True


def _put_away(ledger: Ledger, archive: Path, originals: Originals, place: Path) -> None:
    """Archive, delete or keep a zip file that became a case.

    Args:
        ledger: forgets a zip file that is gone; the same file dropped again is a new drop.
        archive: the zip file.
        originals: what to do with it.
        place: folder in the archive, named after the zip file's identity.
    """
    if originals is Originals.KEEP:
        return
    if originals is Originals.ARCHIVE:
        atomic.make_folder(place, mode=PRIVATE)
        archive.rename(place / archive.name)
        atomic.sync_folder(place)
    else:
        archive.unlink()
    atomic.sync_folder(archive.parent)
    ledger.remove_zip(place.name)
