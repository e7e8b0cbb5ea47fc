"""Folders of other users become private copies, or are refused by name."""

import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctdeface_shared.errors import ChangedMeanwhile, UnsafeDrop
from ctdeface_shared.jobs.manifest import Manifest, digest_of_stats, digest_of_times
from ctdeface_shared.jobs.taken import TakenCase, new_record
from ctdeface_shared.settings.sections import LimitsSection
from ctdeface_shared.storage import private_tree
from ctdeface_shared.storage.private_tree import (
    copy_tree,
    is_own,
    opened,
    remove_tree,
    require_readable,
    seal,
    shown,
    stats_of,
)
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_shared.storage.tree_limits import TreeLimits
from ctdeface_watcher.inbox.late_files import add_earlier_files, names_in
from tests.support.service.unprivileged import UNPRIVILEGED

LIMITS = LimitsSection().tree()
OWNER, STRANGER = 4001, 4002
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users")
needs_users = pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop its privileges")
NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda name: name not in {b".", b".."} and not set(name) & {0, ord("/")}
)


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    """A drop of three files."""
    return write(tmp_path / "drop", {"1.dcm": b"one", "2.dcm": b"two", "sub/3.dcm": b"three"})


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Check that a block does not wait for anybody."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds


def give(folder: Path, owner: int) -> None:
    """Give a tree to a user."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner, -1, follow_symlinks=False)


def copied(drop: Path, target: Path, limits: TreeLimits = LIMITS) -> Manifest:
    """Copy a tree and return its fingerprint."""
    with opened(drop) as tree:
        return Manifest.of(copy_tree(tree, target, limits))


@settings(max_examples=30)
@given(
    files=st.dictionaries(
        st.lists(NAMES, min_size=1, max_size=3).map(tuple), st.binary(max_size=64), max_size=6
    )
)
def test_a_copy_has_the_same_files_whatever_their_names(
    files: dict[tuple[bytes, ...], bytes],
) -> None:
    """Newlines, bytes that are not UTF-8, leading dashes; private modes, times as before."""
    names = {parts for parts in files if not any(parts[:-k] in files for k in range(1, len(parts)))}
    with TemporaryDirectory() as place:
        folder, target = Path(place) / "drop", Path(place) / "copy"
        folder.mkdir()
        write(folder, {os.fsdecode(b"/".join(parts)): files[parts] for parts in names})
        manifest = copied(folder, target)
        assert manifest == Manifest.scan(folder) == Manifest.scan(target)
        assert digest_of_times(folder) == digest_of_times(target)
        assert {stat.S_IMODE(path.stat().st_mode) for path in target.rglob("*")} <= {0o700, 0o600}
        with opened(folder) as tree:
            assert stats_of(tree, LIMITS).digest == digest_of_stats(folder)


def _link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def _socket(path: Path) -> None:
    # The whole path may be longer than the address of a socket.
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def _device(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (_link, "a link"),
        (os.mkfifo, "a named pipe"),
        (_socket, "a socket"),
        pytest.param(_device, "a device", marks=as_root),
    ],
)
@pytest.mark.parametrize("name", ["sub/x", "line\nbreak.dcm"])
def test_what_is_neither_file_nor_folder_is_refused_by_name(
    drop: Path, make: Callable[[Path], None], kind: str, name: str
) -> None:
    """Nothing of it is opened, and its name cannot break a line of the log."""
    make(drop / name)
    for work in (stats_of, seal, lambda tree, limits: copy_tree(tree, drop.parent / "c", limits)):
        with within(5.0), opened(drop) as tree, pytest.raises(UnsafeDrop) as refusal:
            work(tree, LIMITS)
        assert f"holds {kind}, {name}".replace("\n", "\\n") in str(refusal.value)
        shutil.rmtree(drop.parent / "c", ignore_errors=True)


@as_root
def test_files_of_another_user_are_refused(drop: Path) -> None:
    """Everything must belong to the owner of the drop, the service or the administrator."""
    give(drop, OWNER)
    os.chown(drop / "2.dcm", 0, -1)
    assert copied(drop, drop.parent / "copy").files == 3
    os.chown(drop / "sub", STRANGER, -1)
    with pytest.raises(UnsafeDrop, match=f"sub belongs to user {STRANGER}"):
        copied(drop, drop.parent / "other")


@as_root
def test_a_hard_link_to_a_file_of_the_service_is_refused_and_one_to_an_own_file_is_copied(
    drop: Path,
) -> None:
    """A user may link what belongs to the service where the system allows it."""
    give(drop, OWNER)
    os.link(drop / "1.dcm", drop / "again.dcm")
    assert copied(drop, drop.parent / "copy").files == 4
    secret = drop.parent / "secret"
    secret.write_bytes(b"secret")
    os.link(secret, drop / "linked.dcm")
    with pytest.raises(UnsafeDrop, match=r"linked\.dcm is a hard link to a file of user 0"):
        copied(drop, drop.parent / "other")


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (replace(LIMITS, files=2), "limits.files"),
        (replace(LIMITS, bytes=10), "limits.case_gb"),
        (replace(LIMITS, file_bytes=4), "limits.file_gb"),
        (replace(LIMITS, depth=0), "limits.depth"),
        (replace(LIMITS, path_bytes=8), "limits.path_bytes"),
    ],
)
def test_each_limit_refuses_what_is_one_over_it(drop: Path, limits: TreeLimits, named: str) -> None:
    """And the message names its setting."""
    with pytest.raises(UnsafeDrop, match=named):
        copied(drop, drop.parent / "copy", limits)


def test_what_is_exactly_at_the_limits_passes(drop: Path) -> None:
    """Three files, eleven bytes, five in one, one folder, names of nine bytes."""
    limits = TreeLimits(files=3, bytes=11, file_bytes=5, depth=1, path_bytes=9)
    assert copied(drop, drop.parent / "copy", limits).bytes == 11


def test_a_huge_sparse_file_is_refused_before_anything_is_read(drop: Path) -> None:
    """It costs its owner nothing, so it must cost the service nothing."""
    with (drop / "0.dcm").open("wb") as file:
        file.truncate(50 * 10**9)
    with within(5.0), pytest.raises(UnsafeDrop, match=r"0\.dcm has 50 GB"):
        copied(drop, drop.parent / "copy")


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (_grow, ChangedMeanwhile),
        (lambda path: path.write_bytes(b""), ChangedMeanwhile),
        (_replace_by_pipe, UnsafeDrop),
        (_replace_by_link, UnsafeDrop),
        (_replace_by_folder, UnsafeDrop),
        (Path.unlink, FileNotFoundError),
    ],
    ids=["grown", "emptied", "pipe", "link", "folder", "gone"],
)
def test_a_file_that_changes_between_its_check_and_its_copy_ends_the_copy(
    drop: Path, change: Callable[[Path], None], error: type[Exception]
) -> None:
    """Without waiting for a pipe, and without reading what a link leads to."""

    def meddle() -> None:
        if not (drop.parent / "done").exists():
            (drop.parent / "done").touch()
            change(drop / "1.dcm")

    target = drop.parent / "copy"
    with within(5.0), opened(drop) as tree, pytest.raises(error):
        copy_tree(tree, target, LIMITS, meddle)
    assert b"root" not in b"".join(path.read_bytes() for path in target.rglob("*.dcm"))


def test_an_open_file_of_the_dropper_does_not_reach_the_copy(drop: Path) -> None:
    """Neither through its descriptor nor through a hard link."""
    os.link(drop / "1.dcm", drop.parent / "link")
    with (drop / "1.dcm").open("r+b") as held:
        manifest = copied(drop, drop.parent / "copy")
        held.write(b"OTHER")
    (drop.parent / "link").write_bytes(b"ANOTHER")
    assert Manifest.scan(drop.parent / "copy") == manifest


@pytest.mark.parametrize(
    "change",
    [
        lambda drop: (drop / "1.dcm").chmod(0o664),
        lambda drop: (drop / "sub").chmod(0o770),
        lambda drop: drop.chmod(0o777),
        lambda drop: os.link(drop / "1.dcm", drop.parent / "link"),
        pytest.param(lambda drop: os.chown(drop / "sub", OWNER, -1), marks=as_root),
    ],
    ids=["file for group", "folder for group", "all for all", "hard link", "other owner"],
)
def test_a_tree_is_its_own_only_if_no_other_user_can_change_anything_in_it(
    drop: Path, change: Callable[[Path], object]
) -> None:
    """All else is copied."""
    with opened(drop) as tree:
        assert is_own(tree, LIMITS.depth)
        change(drop)
        assert not is_own(tree, LIMITS.depth)


def test_a_tree_that_is_too_deep_is_not_its_own(drop: Path) -> None:
    """So it is copied, which refuses it."""
    with opened(drop) as tree:
        assert not is_own(tree, 0)


def test_a_sealed_tree_is_private_and_has_the_same_files(drop: Path) -> None:
    """All rights of others are gone."""
    drop.chmod(0o755)
    before = Manifest.scan(drop)
    with opened(drop) as tree:
        assert Manifest.of(seal(tree, LIMITS)) == before
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (drop, *drop.rglob("*"))}
    assert modes == {0o700, 0o600}


def test_a_folder_is_never_opened_through_a_link(drop: Path) -> None:
    """The link may lead to a folder of the service."""
    (drop.parent / "link").symlink_to(drop)
    with pytest.raises(UnsafeDrop, match="link was replaced"), opened(drop.parent / "link"):
        pass


def test_a_tree_of_any_depth_is_removed_with_few_open_files(tmp_path: Path) -> None:
    """Deeper than the call stack and than the number of files that a process may open."""
    place = os.open(tmp_path, os.O_RDONLY)
    for name in ["deep", *["d"] * 3000]:
        os.mkdir(name, dir_fd=place)
        below = os.open(name, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.mkfifo("pipe", dir_fd=place)
    os.close(place)
    with within(20.0):
        assert remove_tree(tmp_path / "deep")
    assert list(tmp_path.iterdir()) == []
    assert remove_tree(tmp_path / "gone")


def test_a_removal_follows_no_link(drop: Path) -> None:
    """Neither at the top nor below."""
    kept = write(drop.parent / "kept", {"a": b"a"})
    (drop / "link").symlink_to(kept)
    (drop.parent / "top").symlink_to(kept)
    assert remove_tree(drop)
    assert remove_tree(drop.parent / "top")
    assert [path.name for path in kept.iterdir()] == ["a"]


@needs_users
def test_what_its_owner_protects_stays_and_the_rest_is_removed(drop: Path) -> None:
    """The removal ends, and tells that something is left."""
    drop.chmod(0o777)
    (drop / "sub").chmod(0o755)
    give(drop / "sub", OWNER)
    code = (
        "from pathlib import Path; import sys;"
        "from ctdeface_shared.storage.private_tree import remove_tree;"
        "sys.exit(remove_tree(Path(sys.argv[1])))"
    )
    done = subprocess.run([*UNPRIVILEGED, sys.executable, "-c", code, drop], check=False)
    assert done.returncode == 0
    assert {path.name for path in drop.rglob("*")} == {"sub", "3.dcm"}


@needs_users
def test_a_file_that_the_service_may_not_read_is_noticed_before_the_drop_is_taken(
    drop: Path,
) -> None:
    """Its owner can still change that then."""
    code = (
        "from pathlib import Path; import sys;"
        "from ctdeface_shared.storage.private_tree import opened, require_readable\n"
        "with opened(Path(sys.argv[1])) as folder: require_readable(folder, 'drop', 8)"
    )
    command = [*UNPRIVILEGED, sys.executable, "-c", code, str(drop.parent)]
    subprocess.run(command, check=True)
    give(drop / "sub", OWNER)
    (drop / "sub/3.dcm").chmod(0o600)
    failed = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "PermissionError: [Errno 13]" in failed.stderr
    with opened(drop.parent) as folder:
        require_readable(folder, "drop", LIMITS.depth)  # root may


@pytest.mark.parametrize(
    ("name", "expected"),
    [("plain ä.dcm", "plain ä.dcm"), ("a\nb\x1b[2J", "a\\nb\\x1b[2J"), ("\udcff", "\\udcff")],
)
def test_a_name_in_a_message_has_no_control_characters(name: str, expected: str) -> None:
    """Messages go to terminals and logs."""
    assert shown(name) == expected


@as_root
@pytest.mark.parametrize("swapped", ["stranger", "own"])
def test_a_file_that_was_replaced_after_it_was_listed_is_not_copied(
    drop: Path, tmp_path: Path, swapped: str
) -> None:
    """The owner of the present file was not checked."""
    give(drop, OWNER)
    other = tmp_path / "other"
    other.write_bytes(b"ONE")
    os.chown(other, STRANGER if swapped == "stranger" else OWNER, -1)

    def swap() -> None:
        if other.exists():
            other.rename(drop / "1.dcm")

    with opened(drop) as tree, pytest.raises(ChangedMeanwhile):
        copy_tree(tree, tmp_path / "copy", LIMITS, swap)


def test_folders_count_like_files(tmp_path: Path) -> None:
    """Millions of empty folders would keep the service busy as well."""
    for number in range(6):
        (tmp_path / "drop" / str(number)).mkdir(parents=True)
    with opened(tmp_path / "drop") as tree, pytest.raises(UnsafeDrop, match="5 folders"):
        copy_tree(tree, tmp_path / "copy", replace(LIMITS, files=5))


def test_a_removal_ends_in_time(drop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders nested without end delay no other case; a later sweep goes on."""
    monkeypatch.setattr(private_tree, "_REMOVAL_SECONDS", 0.0)
    assert not remove_tree(drop)
    monkeypatch.undo()
    assert remove_tree(drop)


def test_late_files_and_earlier_ones_together_keep_the_limits(drop: Path, tmp_path: Path) -> None:
    """Otherwise a case could grow without end, drop by drop."""
    late = write(tmp_path / "late", {"9.dcm": b"late", ".1.dcm.part": b"left by a crash"})
    with pytest.raises(UnsafeDrop, match="together"):
        add_earlier_files(late, drop, replace(LIMITS, files=3))
    add_earlier_files(late, drop, replace(LIMITS, files=4))
    assert sorted(names_in(late)) == ["1.dcm", "2.dcm", "9.dcm", "sub/3.dcm"]


def test_a_record_stays_until_the_files_of_its_case_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files without their record would look damaged, and a large case takes longer to remove."""
    spool = ServiceSpool.under(tmp_path)
    spool.taken.mkdir()
    taken = TakenCase.create(spool, new_record("a", "a"))
    write(taken.files, {"1.dcm": b"one"})
    monkeypatch.setattr(private_tree, "_REMOVAL_SECONDS", 0.0)
    taken.remove()
    assert taken.record() is not None
    monkeypatch.undo()
    taken.remove()
    assert not taken.folder.exists()
