"""The rule for when a dropped case is complete."""

from dataclasses import replace

import pytest

from ctdeface_watcher.inbox.stability import (
    SeenCase,
    SettleTimes,
    Snapshot,
    Verdict,
    add_scan,
    judge,
)

PATIENCE = SettleTimes(quiet=5.0, longest=60.0)
SEEN = Snapshot(files=3, bytes=300, newest_ns=1)


def after(*scans: tuple[float, Snapshot]) -> SeenCase:
    """Return the case after some scans, each with its time."""
    watched: SeenCase | None = None
    for now, snapshot in scans:
        watched = add_scan(watched, snapshot, now)
    assert watched is not None
    return watched


def test_a_case_settles_when_nothing_changed_for_the_quiet_period() -> None:
    """Not before it is over, and then immediately."""
    watched = after((0.0, SEEN), (4.9, SEEN))
    assert judge(watched, PATIENCE, 4.9) is Verdict.WAITING
    assert judge(after((0.0, SEEN), (5.0, SEEN)), PATIENCE, 5.0) is Verdict.COMPLETE


def test_one_scan_is_never_enough() -> None:
    """A watcher that was held up cannot know that nothing changed."""
    assert judge(after((0.0, SEEN)), PATIENCE, 30.0) is Verdict.WAITING


@pytest.mark.parametrize("change", [{"files": 4}, {"bytes": 301}, {"newest_ns": 2}])
def test_every_change_begins_the_quiet_period_anew(change: dict[str, int]) -> None:
    """More files, more bytes, or a newer time."""
    changed = replace(SEEN, **change)  # type: ignore[arg-type]  # each key is an int field
    watched = after((0.0, SEEN), (4.0, changed), (8.0, changed))
    assert judge(watched, PATIENCE, 8.0) is Verdict.WAITING
    assert judge(add_scan(watched, changed, 9.0), PATIENCE, 9.0) is Verdict.COMPLETE


def test_a_file_in_progress_keeps_a_case_waiting_until_it_is_given_up() -> None:
    """A name such as x.part counts more than a quiet period."""
    copying = replace(SEEN, copying=True)
    watched = after((0.0, copying), (30.0, copying))
    assert judge(watched, PATIENCE, 30.0) is Verdict.WAITING
    assert judge(watched, PATIENCE, 60.0) is Verdict.NEVER_SETTLED


def test_the_marker_settles_at_once_but_not_over_a_file_in_progress() -> None:
    """The first scan that sees it is enough."""
    marked = replace(SEEN, marked=True)
    assert judge(after((0.0, marked)), PATIENCE, 0.0) is Verdict.COMPLETE
    assert judge(after((0.0, replace(marked, copying=True))), PATIENCE, 0.0) is Verdict.WAITING


def test_where_only_the_marker_counts_silence_does_not() -> None:
    """Such a case waits for its marker."""
    only = replace(PATIENCE, marker_only=True)
    assert judge(after((0.0, SEEN), (50.0, SEEN)), only, 50.0) is Verdict.WAITING


def test_an_empty_folder_is_no_case() -> None:
    """It waits for files."""
    empty = Snapshot(files=0, bytes=0, newest_ns=0)
    assert judge(after((0.0, empty), (30.0, empty)), PATIENCE, 30.0) is Verdict.WAITING
