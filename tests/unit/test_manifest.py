"""The fingerprint of a case, and the identity of its job."""

import os
from pathlib import Path

import pytest

from ctdeface_shared.jobs.manifest import Manifest, digest_of_stats, job_id
from ctdeface_shared.jobs.options import DefaceOptions


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A case of two files, one with a name that is not UTF-8."""
    (tmp_path / "sub").mkdir()
    for name in ("1.dcm", os.fsdecode(b"sub/\xff.dcm")):
        (tmp_path / name).write_bytes(b"content")
        os.utime(tmp_path / name, ns=(0, 10**18))
    return tmp_path


def test_the_same_files_have_the_same_fingerprint_in_any_folder(case: Path) -> None:
    """Reading files changes nothing, and neither does moving the folder."""
    first = Manifest.scan(case)
    (case / "1.dcm").read_bytes()
    moved = case.rename(case.with_name("moved"))
    assert Manifest.scan(moved) == first
    assert (first.files, first.bytes) == (2, 14)


def test_a_changed_file_changes_the_fingerprint(case: Path) -> None:
    """By name, size or content, with the size and times as before."""
    seen = {Manifest.scan(case).digest}
    size = (case / "1.dcm").stat().st_size
    for content in (b"o" * size, b"longer content"):
        (case / "1.dcm").write_bytes(content)
        os.utime(case / "1.dcm", ns=(0, 10**18))
        seen.add(Manifest.scan(case).digest)
    (case / "1.dcm").rename(case / "2.dcm")
    seen.add(Manifest.scan(case).digest)
    assert len(seen) == 4


def test_a_changed_time_does_not_change_the_fingerprint(case: Path) -> None:
    """Two copies of the same files are the same case."""
    first = Manifest.scan(case)
    os.utime(case / "1.dcm", ns=(0, 10**18 + 1))
    assert Manifest.scan(case) == first


def test_a_file_written_anew_with_its_old_time_changes_the_digest_of_stats(case: Path) -> None:
    """Users can set the modification time, but not the time of the last change."""
    status, first = (case / "1.dcm").stat(), digest_of_stats(case)
    assert digest_of_stats(case) == first
    (case / "1.dcm").write_bytes(b"o" * status.st_size)
    os.utime(case / "1.dcm", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest_of_stats(case) != first


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    """It is not a case without files."""
    with pytest.raises(FileNotFoundError):
        Manifest.scan(tmp_path / "gone")


def test_case_files_options_and_generation_name_the_job(case: Path) -> None:
    """The same four always give the same name, and each of them makes another."""
    manifest, options = Manifest.scan(case), DefaceOptions()
    name = job_id("a", manifest, options)
    others = {
        job_id("b", manifest, options),
        job_id("a", Manifest(files=0, bytes=0, digest=""), options),
        job_id("a", manifest, DefaceOptions(ears=True)),
        job_id("a", manifest, options, generation=1),
    }
    assert name == job_id("a", Manifest.scan(case), DefaceOptions())
    assert len(others | {name}) == 5
