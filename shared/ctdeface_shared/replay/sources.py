"""Originals of a case for its replay, brought into a taken folder.

Originals in the quarantine are moved, archived ones are copied. With `originals: keep` they are in
the inbox, where users may change them at any moment, so they are read by descriptors and copied.
The same holds for what its owner may still have open in the quarantine: a refused drop, or a case
of release 0.1.0. Every step can be repeated.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ctdeface_shared.errors import ChangedMeanwhile, CtDefaceError, StorageUnavailable, UnsafeDrop
from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.taken import TakenCase
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.private_tree import (
    copy_tree,
    is_own,
    opened,
    read_tree,
    remove_tree,
)
from ctdeface_shared.storage.spool import ServiceSpool, case_path
from ctdeface_shared.storage.tree_limits import TreeLimits


class NotReplayed(CtDefaceError):
    """A case cannot be replayed in its present state; nothing was changed."""


class Place(Enum):
    """Where the originals of a case are."""

    TAKEN = "taken"
    """In a taken folder, where an interrupted replay or a lost job has left them."""
    QUARANTINE = "quarantine"
    ARCHIVE = "archive"
    """They must stay there."""
    INBOX = "inbox"
    """They must stay there, and users may change them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The originals of a case.

    Attributes:
        place: where they are.
        folder: folder that holds them.
        manifest: their fingerprint.
    """

    place: Place
    folder: Path
    manifest: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRules:
    """Where to look for originals.

    Attributes:
        spool: folders of the service.
        limits: maximum content of a case.
        kept: whether dropped files stay in the inbox.
    """

    spool: ServiceSpool
    limits: TreeLimits
    kept: bool = False


def find_source(rules: SourceRules, case: str, replayed: str, digest: str) -> Source:
    """Find the originals of a job in quarantine, archive or inbox.

    Args:
        rules: where to look.
        case: name of the case.
        replayed: id of the job whose originals are wanted.
        digest: digest of their content.

    Raises:
        NotReplayed: they are gone, or the inbox holds other files under their name.
        UnsafeDrop: the inbox holds something else than files of one user, or too many.
        OSError: they cannot be read.
    """
    quarantine = case_path(rules.spool.quarantine, case)
    archive = case_path(rules.spool.archive / "originals", case)
    for place, folder in (
        (Place.QUARANTINE, quarantine / replayed / "originals"),
        (Place.ARCHIVE, archive / replayed),
    ):
        if folder.is_dir():
            return Source(place=place, folder=folder, manifest=_manifest(rules, place, folder))
    # The same content that was dropped again is beside it, under a number or another job.
    for place, folder in (
        *((Place.QUARANTINE, one) for one in sorted(quarantine.glob("*/originals*"))),
        *((Place.ARCHIVE, one) for one in sorted(archive.glob("*"))),
    ):
        with suppress(UnsafeDrop, ChangedMeanwhile, PermissionError):  # a refused drop
            manifest = _manifest(rules, place, folder)
            if manifest.digest == digest:
                return Source(place=place, folder=folder, manifest=manifest)
    if rules.kept:
        return _kept_source(rules, case, digest)
    raise NotReplayed("its originals are neither in quarantine nor archive: drop the case again")


def bring(rules: SourceRules, source: Source, taken: TakenCase) -> None:
    """Bring originals into a taken folder.

    Raises:
        UnsafeDrop: the inbox holds something else than files of one user, or too many.
        StorageUnavailable: storage failed, or the originals were changed meanwhile.
        OSError: storage failed; nothing is lost, and the call can be repeated.
    """
    if taken.files.is_dir():
        return
    is_moved = source.place is Place.QUARANTINE
    if is_moved and _is_private(rules, source):
        source.folder.rename(taken.files)
        atomic.sync_folder(source.folder.parent)
        atomic.sync_folder(taken.folder)
        return
    part = taken.folder / "files.part"
    remove_tree(part)  # left by a crash
    with _opened_below(_root(rules, source.place), source.folder) as tree:
        copied = Manifest.of(copy_tree(tree, part, rules.limits))
    if copied != source.manifest:
        remove_tree(part)
        raise StorageUnavailable("the originals were changed while they were copied: try again")
    atomic.sync_tree(part)
    part.rename(taken.files)
    atomic.sync_folder(taken.folder)
    if is_moved:
        remove_tree(source.folder)


def _root(rules: SourceRules, place: Place) -> Path:
    spool = rules.spool
    roots = {Place.INBOX: spool.inbox, Place.QUARANTINE: spool.quarantine}
    return roots.get(place, spool.archive)


def _is_private(rules: SourceRules, source: Source) -> bool:
    with _opened_below(_root(rules, source.place), source.folder) as tree:
        return is_own(tree, rules.limits.depth)


def _manifest(rules: SourceRules, place: Place, folder: Path) -> Manifest:
    """Read originals in quarantine or archive.

    Raises:
        UnsafeDrop: they are not private, and hold something else than files of one user.
        OSError: they cannot be read.
    """
    with _opened_below(_root(rules, place), folder) as tree:
        if not is_own(tree, rules.limits.depth):
            return Manifest.of(read_tree(tree, rules.limits))
    return Manifest.scan(folder)


def _kept_source(rules: SourceRules, case: str, digest: str) -> Source:
    folder = case_path(rules.spool.inbox, case)
    if not os.path.lexists(folder):
        raise NotReplayed(
            "its originals are neither in inbox, quarantine nor archive: drop the case again"
        )
    with _opened_below(rules.spool.inbox, folder) as tree:
        manifest = Manifest.of(read_tree(tree, rules.limits))
    if manifest.digest != digest:
        raise NotReplayed(
            "the inbox holds other files under its name: wait until their job has ended, "
            "or move them away"
        )
    return Source(place=Place.INBOX, folder=folder, manifest=manifest)


@contextmanager
def _opened_below(root: Path, folder: Path) -> Iterator[int]:
    """Open a folder below a root without following links.

    Raises:
        UnsafeDrop: there is a link on the way.
        OSError: it cannot be opened.
    """
    with ExitStack() as stack:
        # The operator may have made the root itself a link.
        descriptor = stack.enter_context(opened(root.resolve()))
        for part in folder.relative_to(root).parts:
            descriptor = stack.enter_context(opened(part, folder=descriptor))
        yield descriptor
