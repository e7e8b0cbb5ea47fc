"""The result of one scan of the inbox."""

from pathlib import Path

from ctdeface_watcher.inbox.scan import InboxRules, scan_inbox, snapshot_of_case


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
    seen = snapshot_of_case(case, rules)
    assert (seen.files, seen.bytes, seen.copying, seen.marked) == (2, 8, False, False)
    write(case / "COMPLETE")
    write(case / "sub" / ".3.dcm.Xy1")
    seen = snapshot_of_case(case, rules)
    assert (seen.files, seen.copying, seen.marked) == (3, True, True)
