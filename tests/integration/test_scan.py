"""The result of one scan of the inbox."""

import os
from pathlib import Path

import pytest

from ctdeface_shared.errors import UnsafeDrop
from ctdeface_watcher.inbox.scan import InboxRules, scan_inbox, snapshot_of


def write(path: Path, content: bytes = b"x") -> Path:
    """Write one small file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_folders_are_cases_and_everything_else_is_not(tmp_path: Path) -> None:
    """Zip files, strays and links at the root; hidden and unfinished names do not count."""
    write(tmp_path / "a" / "1.dcm")
    write(tmp_path / ".rsync" / "1.dcm")
    write(tmp_path / "b.part" / "1.dcm")
    archive = write(tmp_path / "c.zip")
    write(tmp_path / "loose.dcm")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    seen = scan_inbox(tmp_path, InboxRules())
    assert seen.cases == {"a": tmp_path / "a"}
    assert seen.zips == {"c.zip": archive}
    assert seen.strays == {"link", "loose.dcm"}


def test_deeper_cases_are_named_by_their_whole_path(tmp_path: Path) -> None:
    """With a depth of two a file beside the cases' parents is a stray."""
    write(tmp_path / "site" / "a" / "1.dcm")
    write(tmp_path / "loose.dcm")
    seen = scan_inbox(tmp_path, InboxRules(case_depth=2))
    assert seen.cases == {"site/a": tmp_path / "site" / "a"}
    assert seen.strays == {"loose.dcm"}


def test_a_snapshot_counts_what_belongs_to_the_case(tmp_path: Path) -> None:
    """Ignored files and the marker are not counted, files in progress are noticed."""
    case = tmp_path / "a"
    write(case / "1.dcm", b"12345")
    write(case / "sub" / "2.dcm", b"123")
    write(case / "Thumbs.db")
    rules = InboxRules(marker="COMPLETE", ignore=("Thumbs.db",))
    seen = snapshot_of(tmp_path, "a", rules)
    assert (seen.files, seen.bytes, seen.copying, seen.marked) == (2, 8, False, False)
    write(case / "COMPLETE")
    write(case / "sub" / ".3.dcm.Xy1")
    seen = snapshot_of(tmp_path, "a", rules)
    assert (seen.files, seen.copying, seen.marked) == (3, True, True)


def test_a_file_changed_in_place_with_its_old_size_and_time_is_another_snapshot(
    tmp_path: Path,
) -> None:
    """Copying tools keep times; another patient's file must not count as the same."""
    file = write(tmp_path / "a" / "1.dcm", b"one")
    os.utime(file, ns=(0, 10**18))
    before = snapshot_of(tmp_path, "a", InboxRules())
    file.write_bytes(b"two")
    os.utime(file, ns=(0, 10**18))
    after = snapshot_of(tmp_path, "a", InboxRules())
    assert (after.files, after.bytes, after.newest_ns) == (1, 3, before.newest_ns)
    assert after != before


def test_links_are_never_followed(tmp_path: Path) -> None:
    """Neither in place of a case, nor above it, nor in it."""
    outside = tmp_path / "outside"
    write(outside / "case" / "secret.dcm", b"12345")
    inbox = tmp_path / "inbox"
    (inbox / "site").mkdir(parents=True)
    (inbox / "linked").symlink_to(outside)
    (inbox / "site" / "case").symlink_to(outside / "case")
    assert scan_inbox(inbox, InboxRules(case_depth=2)).cases == {}
    with pytest.raises(UnsafeDrop, match="replaced"):
        snapshot_of(inbox, "linked/case", InboxRules())
    seen = snapshot_of(inbox, "site", InboxRules())
    assert (seen.files, seen.bytes) == (1, len(os.fspath(outside / "case")))


def test_folders_nested_too_deeply_are_not_entered(tmp_path: Path) -> None:
    """One level more than the limit."""
    write(tmp_path / "a" / "1/2/3" / "1.dcm")
    assert snapshot_of(tmp_path, "a", InboxRules(depth=3)).files == 1
    with pytest.raises(RecursionError):
        snapshot_of(tmp_path, "a", InboxRules(depth=2))
