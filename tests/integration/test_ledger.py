"""The watcher's ledger remembers what was published, across restarts."""

from pathlib import Path

import pytest

from ctdeface_shared.errors import StorageUnavailable
from ctdeface_watcher.ledger import Entry, Ledger


def entry(number: int, case: str = "a") -> Entry:
    """Make an entry published at second `number`."""
    return Entry(job_id=f"job-{number}", case=case, digest=f"digest-{number}", generation=0, published_at=float(number))


def test_open_jobs_are_remembered_across_restarts_oldest_first(tmp_path: Path) -> None:
    """What was noted is there when the file is opened again."""
    with Ledger(tmp_path) as ledger:
        assert ledger.is_empty()
        ledger.note(entry(2))
        ledger.note(entry(1))
    with Ledger(tmp_path) as ledger:
        assert ledger.open_jobs() == (entry(1), entry(2))
        assert not ledger.is_empty()


def test_a_job_is_noted_and_closed_once(tmp_path: Path) -> None:
    """A second note does not reopen it, a second end does not change it."""
    with Ledger(tmp_path) as ledger:
        ledger.note(entry(1))
        ledger.close_job("job-1", "done")
        ledger.close_job("job-1", "refused")
        ledger.note(entry(1))
        assert ledger.open_jobs() == ()
        assert [one.closed for one in ledger.of_case("a")] == ["done"]
        assert ledger.of_case("b") == ()


def test_a_damaged_ledger_is_told(tmp_path: Path) -> None:
    """The error names the file to remove."""
    (tmp_path / "ledger.sqlite3").write_bytes(b"no database at all" * 100)
    with pytest.raises(StorageUnavailable, match=r"ledger\.sqlite3"):
        Ledger(tmp_path)
