"""The rule for complete cases, over any history of scans."""

from hypothesis import given
from hypothesis import strategies as st

from ctdeface_watcher.inbox.stability import (
    SeenCase,
    SettleTimes,
    Snapshot,
    Verdict,
    add_scan,
    judge,
)

PATIENCE = SettleTimes(quiet=5.0, longest=50.0)
SNAPSHOTS = st.builds(
    Snapshot,
    files=st.integers(min_value=0, max_value=2),
    bytes=st.integers(min_value=0, max_value=2),
    newest_ns=st.integers(min_value=0, max_value=1),
    copying=st.booleans(),
    marked=st.sampled_from([False]),
)
SCANS = st.lists(
    st.tuples(st.floats(min_value=0.0, max_value=20.0), SNAPSHOTS), min_size=1, max_size=12
)


def play(scans: list[tuple[float, Snapshot]]) -> tuple[SeenCase, list[tuple[float, Snapshot]]]:
    """Add scans with pauses between them; return the case and their times."""
    now, watched, seen = 0.0, None, []
    for pause, snapshot in scans:
        now += pause
        watched = add_scan(watched, snapshot, now)
        seen.append((now, snapshot))
    assert watched is not None
    return watched, seen


@given(scans=SCANS)
def test_a_case_settles_exactly_when_its_last_scans_agree_for_the_quiet_period(
    scans: list[tuple[float, Snapshot]],
) -> None:
    """Two or more scans, no copy in progress, at least one file."""
    watched, seen = play(scans)
    now, last = seen[-1]
    agreeing = next(
        (count for count, (_, snapshot) in enumerate(reversed(seen)) if snapshot != last), len(seen)
    )
    quiet = agreeing >= 2 and now - seen[-agreeing][0] >= PATIENCE.quiet
    settled = judge(watched, PATIENCE, now) is Verdict.COMPLETE
    assert settled is (quiet and last.files > 0 and not last.copying)


@given(scans=SCANS)
def test_whatever_does_not_settle_is_given_up_after_the_longest_wait_and_never_before(
    scans: list[tuple[float, Snapshot]],
) -> None:
    """Nothing waits forever, and nothing is left alone early."""
    watched, seen = play(scans)
    now = seen[-1][0]
    verdict = judge(watched, PATIENCE, now)
    assert (verdict is Verdict.NEVER_SETTLED) is (
        verdict is not Verdict.COMPLETE and now - seen[0][0] >= PATIENCE.longest
    )


@given(scans=SCANS, marked=st.booleans())
def test_where_only_the_marker_counts_nothing_else_settles_a_case(
    scans: list[tuple[float, Snapshot]], marked: bool
) -> None:
    """And the marker does so in the scan that sees it first."""
    patience = SettleTimes(quiet=5.0, longest=1e9, marker_only=True)
    last = Snapshot(files=1, bytes=1, newest_ns=9, marked=marked)
    watched, seen = play([*scans, (0.0, last)])
    assert (judge(watched, patience, seen[-1][0]) is Verdict.COMPLETE) is marked
