"""The rule for which complete case makes a job."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ctdeface_shared.jobs.history import JobRecord
from ctdeface_shared.jobs.manifest import Manifest, job_id
from ctdeface_shared.jobs.messages import DefaceJob
from ctdeface_shared.jobs.options import DefaceOptions, Profile
from ctdeface_shared.jobs.repeats import MOST_REPEATS
from ctdeface_shared.jobs.states import JobState
from ctdeface_watcher.jobs.intake import CompleteCase, IntakeResult, make_job

NOW = datetime(2026, 1, 2, tzinfo=UTC)
MANIFEST = Manifest(files=2, bytes=20, digest="a" * 64)
OTHER = Manifest(files=3, bytes=30, digest="b" * 64)
NEW = CompleteCase(case="a", manifest=MANIFEST, history=(), open_jobs=frozenset())
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
    """Its id is the same for the same drop."""
    job = make_job(NEW, OPTIONS, NOW)
    assert isinstance(job, DefaceJob)
    assert (job.job_id, job.case, job.manifest, job.submitted_at) == (
        job_id("a", MANIFEST, OPTIONS),
        "a",
        MANIFEST,
        NOW,
    )


@pytest.mark.parametrize("state", ["done", "refused", "superseded"])
def test_a_drop_whose_job_has_ended_is_known_and_a_changed_one_is_new(state: str) -> None:
    """The files decide, not the name."""
    assert make_job(replace(NEW, history=(past(state),)), OPTIONS, NOW) is IntakeResult.KNOWN
    assert isinstance(
        make_job(replace(NEW, history=(past(state, OTHER),)), OPTIONS, NOW), DefaceJob
    )


def test_files_that_come_back_after_others_make_a_job_again() -> None:
    """The outbox holds the output of the last job, not of theirs."""
    assert isinstance(
        make_job(replace(NEW, history=(past("done"), past("done", OTHER))), OPTIONS, NOW), DefaceJob
    )


def test_a_job_is_submitted_after_all_earlier_ones_of_its_case_whatever_the_clocks_say() -> None:
    """A host with a clock 30 s ahead made the last one; an older job is not shown."""
    ahead = replace(
        past("done", OTHER),
        created_at=(NOW + timedelta(seconds=30)).isoformat(timespec="milliseconds"),
    )
    job = make_job(replace(NEW, history=(past("done", OTHER), ahead)), OPTIONS, NOW)
    assert isinstance(job, DefaceJob)
    assert job.submitted_at.isoformat(timespec="milliseconds") > ahead.created_at


@pytest.mark.parametrize("state", ["prepared", "published"])
def test_a_case_that_is_just_being_published_is_held(state: str) -> None:
    """Its folder may be half way to the archive."""
    assert make_job(replace(NEW, history=(past(state, OTHER),)), OPTIONS, NOW) is IntakeResult.BUSY


def test_a_publication_that_nobody_will_finish_makes_the_same_job_again() -> None:
    """As after a restore from a backup."""
    job = make_job(replace(NEW, history=(past("abandoned"),)), OPTIONS, NOW)
    assert isinstance(job, DefaceJob)
    assert (job.generation, job.job_id) == (0, job_id("a", MANIFEST, OPTIONS))
    assert (
        make_job(replace(NEW, history=(past("done"), past("abandoned", OTHER))), OPTIONS, NOW)
        is IntakeResult.KNOWN
    )


def test_a_job_on_its_way_is_not_made_twice_and_other_options_make_another() -> None:
    """Publishing again would be harmless, but useless."""
    waiting = replace(NEW, open_jobs=frozenset({job_id("a", MANIFEST, OPTIONS)}))
    assert make_job(waiting, OPTIONS, NOW) is IntakeResult.KNOWN
    assert isinstance(make_job(waiting, DefaceOptions(profile=Profile.BULKY), NOW), DefaceJob)


def test_a_case_that_was_changed_while_it_was_worked_on_is_published_again_a_few_times() -> None:
    """Each time as the next generation; then an operator must replay it."""
    for generation in range(MOST_REPEATS):
        job = make_job(
            replace(NEW, history=(past("refused", code="InputChanged", generation=generation),)),
            OPTIONS,
            NOW,
        )
        assert isinstance(job, DefaceJob)
        assert (job.generation, job.job_id) == (
            generation + 1,
            job_id("a", MANIFEST, OPTIONS, generation + 1),
        )
    again = make_job(
        replace(NEW, history=(past("refused", code="InputChanged", generation=MOST_REPEATS),)),
        OPTIONS,
        NOW,
    )
    assert again is IntakeResult.KNOWN


def test_a_repeated_replay_keeps_what_it_was_asked_for() -> None:
    """Series that an operator withheld stay withheld when files come and go."""
    asked = DefaceOptions(profile=Profile.BULKY, withhold=("1.2.3",))
    early = replace(past("refused", code="InputChanged", generation=1), options=asked)
    job = make_job(replace(NEW, history=(past("done"), early)), OPTIONS, NOW)
    assert isinstance(job, DefaceJob)
    assert (job.options, job.generation, job.job_id) == (asked, 2, job_id("a", MANIFEST, asked, 2))


@pytest.mark.parametrize("code", ["LateFiles", "UnsafeArchive"])
def test_what_the_watcher_refused_itself_says_nothing_about_a_case(code: str) -> None:
    """The last job of the case is the one before."""
    assert isinstance(
        make_job(replace(NEW, history=(past("refused", code=code),)), OPTIONS, NOW), DefaceJob
    )
    assert (
        make_job(replace(NEW, history=(past("done"), past("refused", OTHER, code))), OPTIONS, NOW)
        is IntakeResult.KNOWN
    )
