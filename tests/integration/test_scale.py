"""Very large and very many drops: bounded memory, a clear answer, and the others go on.

The suite runs them small. `make attack` runs them at full size: 5 000 and 100 000 files in a case,
a zip file of two million entries, 10 000 cases waiting.
"""

import json
import os
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.service.attacked import AttackedService, attacked_service
from tests.support.service.patients import ADAMS, BAKER
from tests.support.service.processes import PROC

FULL = os.environ.get("CTDEFACE_TEST_ATTACK") == "full"
LARGE, MOST = (5_000, 100_000) if FULL else (300, 1_000)
ENTRIES = 2_000_000 if FULL else 100_000
WAITING, UNFINISHED = (10_000, 1_000) if FULL else (120, 20)
SPARSE_BYTES = 50 * 10**9
_WATCHER_MB = 400.0
"""Upper limit of the watcher's memory; at rest it holds about 70 MB."""
_PATIENCE_SECONDS = 3000.0 if FULL else 120.0

pytestmark = pytest.mark.timeout(4000 if FULL else 600)


@contextmanager
def site_in(folder: Path, **changes: Mapping[str, object]) -> Iterator[AttackedService]:
    """Run a service of the user of this process."""
    settings = {"work": {"job_timeout": 1800}, **changes}
    with attacked_service(folder, user=None, settings=settings) as running:
        running.until(lambda: bool(running.watcher_state().looked_at))
        begun = time.monotonic()
        yield running
        print(f"{time.monotonic() - begun:.1f} s, watcher's peak {peak_mb(running):.0f} MB")
        assert peak_mb(running) < _WATCHER_MB


def peak_mb(site: AttackedService) -> float:
    """Return the most memory that the watcher has held, 10⁶ bytes."""
    process = site.processes["watcher"].process
    assert process is not None
    lines = (PROC / str(process.pid) / "status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))


def fill(folder: Path, files: int) -> Path:
    """Write that many small DICOM files into a new folder."""
    folder.mkdir()
    for number in range(files):
        below = folder / f"series{number // 1000:03d}"
        if number % 1000 == 0:
            below.mkdir()
        (below / f"{number}.dcm").write_bytes(ADAMS.image(number))
    return folder


def refusal(site: AttackedService, case: str) -> tuple[str, str]:
    """Wait for the refusal of a case; return its code and reason."""
    place = site.spool.quarantine / case
    site.until(lambda: bool(list(place.glob("*/report.json"))), _PATIENCE_SECONDS)
    result = json.loads(next(place.glob("*/report.json")).read_bytes())["result"]
    return result["code"], result["reason"]


def used_bytes(folder: Path) -> int:
    """Return what a folder occupies on the disk."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def test_a_case_of_thousands_of_files_passes_and_a_small_one_beside_it(tmp_path: Path) -> None:
    """The small one is dropped a moment later."""
    hidden = fill(tmp_path / "hidden", LARGE)
    with site_in(tmp_path / "site") as site:
        hidden.rename(site.inbox / "large")
        site.pass_case(None, "small", _PATIENCE_SECONDS)
        site.until(lambda: site.ended("large"), _PATIENCE_SECONDS)
        assert len(list((site.spool.outbox / "large").rglob("*.dcm"))) == LARGE


def test_the_most_files_pass_and_one_more_is_refused(tmp_path: Path) -> None:
    """The answer names the limit; a small case does not wait for the large ones."""
    most, more = fill(tmp_path / "most", MOST), fill(tmp_path / "more", MOST + 1)
    with site_in(tmp_path / "site", limits={"files": MOST}) as site:
        more.rename(site.inbox / "more")
        most.rename(site.inbox / "most")
        site.pass_case(None, "small", _PATIENCE_SECONDS)
        code, reason = refusal(site, "more")
        assert (code, f"more than {MOST} files" in reason) == ("UnsafeDrop", True)
        site.until(lambda: site.ended("most"), _PATIENCE_SECONDS)
        assert len(list((site.spool.outbox / "most").rglob("*.dcm"))) == MOST


@pytest.mark.parametrize("originals", ["archive", "keep"])
def test_a_sparse_file_of_50_gb_is_refused_before_a_byte_is_copied(
    tmp_path: Path, originals: str
) -> None:
    """It costs its owner nothing, and would fill the disk."""
    with site_in(tmp_path / "site", spool={"originals": originals}) as site:
        hidden = fill(site.inbox / ".sparse", 1)
        os.truncate(hidden / "series000" / "0.dcm", SPARSE_BYTES)
        hidden.rename(site.inbox / "sparse")
        site.pass_case(None, "small")
        code, reason = refusal(site, "sparse")
        assert code == "UnsafeDrop"
        assert "limits.file_gb" in reason
        assert used_bytes(site.service.spool.inbox.parent) < 50e6


def test_a_zip_file_of_very_many_entries_is_refused_before_its_directory_is_read(
    tmp_path: Path,
) -> None:
    """Each entry of the directory takes ten times its size when it is read."""
    with site_in(tmp_path / "site") as site:
        write_zip(site.inbox / ".many", ENTRIES)
        (site.inbox / ".many").rename(site.inbox / "many.zip")
        site.pass_case(None, "small")
        code, _ = refusal(site, "many")
        assert code == "UnsafeArchive"


def write_zip(place: Path, entries: int) -> None:
    """Write a zip file whose entries all have the same empty content."""
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 33, zlib.crc32(b""), 0, 0, 1, 0) + b"a"
    with place.open("wb") as packed:
        packed.write(local)
        for number in range(entries):
            name = b"%07d" % number
            fixed = (b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0, 0, 0, 0, 0, 0)
            packed.write(struct.pack("<4s6H3I5H2I", *fixed) + name)
        size, end = packed.tell() - len(local), packed.tell()
        packed.write(
            struct.pack(
                *("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0),
                *(entries, entries, size, len(local)),
            )
        )
        packed.write(struct.pack("<4sIQI", b"PK\6\7", 0, end, 1))
        packed.write(struct.pack("<4s4H2IH", b"PK\5\6", *[0xFFFF] * 4, *[0xFFFFFFFF] * 2, 0))


def test_very_many_cases_wait_in_the_inbox_and_go_on_in_turn(tmp_path: Path) -> None:
    """No more are taken than may be unfinished; `ctdeface status` answers."""
    with site_in(tmp_path / "site", watch={"max_unfinished": UNFINISHED}) as site:
        site.processes["worker"].end()
        for number in range(WAITING):
            hidden = site.inbox / f".{number:05d}"
            hidden.mkdir()
            (hidden / "1.dcm").write_bytes(BAKER.image(number))
            hidden.rename(site.inbox / f"case-{number:05d}")
        site.until(lambda: site.published() >= UNFINISHED, _PATIENCE_SECONDS)
        time.sleep(5)
        taken, waiting = len(list(site.spool.taken.iterdir())), len(list(site.inbox.iterdir()))
        print(f"{taken} taken, {waiting} in the inbox")
        assert taken == site.published() == UNFINISHED
        assert waiting == WAITING - UNFINISHED
        begun = time.monotonic()
        shown = json.loads(site.command("status", "--json").stdout)
        print(f"status took {time.monotonic() - begun:.1f} s")
        assert shown
        site.start()
        ended = UNFINISHED + 10 if not FULL else 100
        site.until(lambda: len(list(site.spool.outbox.iterdir())) >= ended, _PATIENCE_SECONDS)
