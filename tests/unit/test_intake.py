"""The rule for which taken case makes a job, and which job."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ctdeface_shared.jobs.history import JobRecord
from ctdeface_shared.jobs.manifest import Manifest, job_id
from ctdeface_shared.jobs.options import DefaceOptions, Profile
from ctdeface_shared.jobs.states import JobState
from ctdeface_watcher.jobs.intake import CompleteCase, latest_of_content, make_job

NOW = datetime(2026, 1, 2, tzinfo=UTC)
MANIFEST = Manifest(files=2, bytes=20, digest="a" * 64)
OTHER = Manifest(files=3, bytes=30, digest="b" * 64)
NEW = CompleteCase(case="a", manifest=MANIFEST, history=(), taken="0" * 32, owner=1000)
OPTIONS = DefaceOptions()


def past(
    state: str, manifest: Manifest = MANIFEST, code: str = "", generation: int = 0
) -> JobRecord:
    """Make a job of the case in some state."""
    created_at = "2026-01-01T00:00:00.000+00:00"
    return JobRecord(
        case="a",
        job_id="j",
        state=JobState(state),
        digest=manifest.digest,
        generation=generation,
        created_at=created_at,
        code=code,
    )


def test_a_new_case_makes_a_job() -> None:
    """Its id is the same for the same content; it names its files and their owner."""
    job = make_job(NEW, OPTIONS, NOW)
    assert (job.job_id, job.case, job.manifest, job.submitted_at) == (
        job_id("a", MANIFEST, OPTIONS),
        "a",
        MANIFEST,
        NOW,
    )
    assert (job.taken, job.owner, job.left_in_inbox, job.generation) == ("0" * 32, 1000, False, 0)


@pytest.mark.parametrize("state", ["done", "refused", "superseded", "prepared", "published"])
def test_content_whose_job_was_the_last_one_is_known_and_other_content_is_new(state: str) -> None:
    """The content decides, not the name."""
    last = past(state)
    assert latest_of_content(replace(NEW, history=(last,))) == last
    assert latest_of_content(replace(NEW, history=(past(state, OTHER),))) is None


def test_content_that_comes_back_after_other_content_makes_a_job_again() -> None:
    """The outbox holds the output of the last job, not of its own."""
    assert latest_of_content(replace(NEW, history=(past("done"), past("done", OTHER)))) is None


def test_a_job_is_submitted_after_all_earlier_ones_of_its_case_whatever_the_clocks_say() -> None:
    """A host with a clock 30 s ahead made the last one; an older job is not shown."""
    ahead = replace(
        past("done", OTHER),
        created_at=(NOW + timedelta(seconds=30)).isoformat(timespec="milliseconds"),
    )
    job = make_job(replace(NEW, history=(past("done", OTHER), ahead)), OPTIONS, NOW)
    assert job.submitted_at.isoformat(timespec="milliseconds") > ahead.created_at


def test_a_publication_that_nobody_will_finish_makes_the_same_job_again() -> None:
    """As after a restore from a backup."""
    abandoned = replace(NEW, history=(past("abandoned"),))
    job = make_job(abandoned, OPTIONS, NOW)
    assert latest_of_content(abandoned) is None
    assert (job.generation, job.job_id) == (0, job_id("a", MANIFEST, OPTIONS))
    before = replace(NEW, history=(past("done"), past("abandoned", OTHER)))
    assert latest_of_content(before) == past("done")


def test_other_options_make_another_job() -> None:
    """The id covers them."""
    bulky = DefaceOptions(profile=Profile.BULKY)
    assert make_job(NEW, bulky, NOW).job_id != make_job(NEW, OPTIONS, NOW).job_id


def test_a_replay_that_release_0_1_0_began_keeps_what_it_was_asked_for() -> None:
    """Series that an operator withheld stay withheld, whatever the settings say now."""
    asked = DefaceOptions(profile=Profile.BULKY, withhold=("1.2.3",))
    order = replace(past("ordered", generation=1), options=asked)
    ordered = replace(NEW, history=(past("done"), order))
    job = make_job(ordered, OPTIONS, NOW)
    assert latest_of_content(ordered) == order
    assert (job.options, job.generation, job.job_id) == (asked, 2, job_id("a", MANIFEST, asked, 2))


@pytest.mark.parametrize("code", ["LateFiles", "UnsafeArchive", "UnsafeDrop"])
def test_what_the_watcher_refused_itself_says_nothing_about_a_case(code: str) -> None:
    """The last job of the case is the one before."""
    assert latest_of_content(replace(NEW, history=(past("refused", code=code),))) is None
    refused = past("refused", OTHER, code)
    assert latest_of_content(replace(NEW, history=(past("done"), refused))) == past("done")
