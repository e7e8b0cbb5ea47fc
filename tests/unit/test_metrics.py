"""From the events of a service to what Prometheus sees."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry

from ctdeface_shared.broker.settlement import Ack, Reject, Requeue, Retry, Settlement
from ctdeface_shared.errors import ConfigurationError, CtDefaceError
from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_shared.lifecycle import notify
from ctdeface_shared.metrics.dependencies import error_codes
from ctdeface_shared.status.watcher_state import DISK, UNFINISHED_JOBS, WatcherState
from ctdeface_watcher.metrics import WatcherMetrics
from ctdeface_watcher.watch_events import EventKind, WatchEvent
from ctdeface_worker.imaging.domain import Fate
from ctdeface_worker.pipeline.result import CaseResult, SeriesResult
from ctdeface_worker.report.model import CaseReport, State, describe
from ctdeface_worker.segmentation.choice import segmenter_named
from ctdeface_worker.service.events import JobEvent, Outcome, Progress, outcome_of
from ctdeface_worker.service.metrics import STAGES, WorkerMetrics, model_check
from ctdeface_worker.verification.check import Check

SKIN = Check(name="facial_skin_removed", passed=True, figure=0.9925, bound=0.985)
BONE = Check(name="bone_stays", passed=False, figure=0.24, bound=0.12)


BASE = describe(
    "job",
    "case",
    Manifest(files=2, bytes=1000, digest="d" * 64),
    DefaceOptions(),
    CaseResult(released=True),
)


def case(*checks: Check, seconds: dict[str, float] | None = None, code: str = "") -> CaseReport:
    """Make the report of a case with one series."""
    series = SeriesResult(series="1.2.3", fate=Fate.RELEASED, slices=2, voxels=24, checks=checks)
    return replace(
        BASE,
        result=CaseResult(released=not code, code=code, series=(series,), seconds=seconds or {}),
    )


def settled(outcome: Outcome, report: CaseReport, seconds: float) -> JobEvent:
    """Return the event of a delivery that was settled in time."""
    return JobEvent(kind=Progress.SETTLED, outcome=outcome, report=report, seconds=seconds)


@pytest.fixture
def registry() -> CollectorRegistry:
    """An empty registry."""
    return CollectorRegistry()


def test_a_hook_that_fails_keeps_no_other_from_the_event() -> None:
    """Its error is logged, and the work goes on."""
    seen: list[int] = []

    def fail(number: int) -> None:
        raise KeyError(number)

    notify((fail, seen.append), 3)
    assert seen == [3]


@pytest.mark.parametrize(
    ("settlement", "state", "repeated", "outcome"),
    [
        (Ack(), State.DONE, False, Outcome.RELEASED),
        (Ack(), State.REFUSED, False, Outcome.REFUSED),
        (Ack(), State.SUPERSEDED, False, Outcome.SUPERSEDED),
        (Ack(), State.DONE, True, Outcome.REPEATED),
        (Retry(1.0), None, False, Outcome.RETRIED),
        (Requeue(), None, False, Outcome.HANDED_BACK),
        (Reject("InvalidMessage"), None, False, Outcome.BURIED),
    ],
)
def test_every_end_of_a_delivery_has_its_outcome(
    settlement: Settlement, state: State | None, repeated: bool, outcome: Outcome
) -> None:
    """From settlement and report."""
    report = None if state is None else replace(case(), state=state)
    assert outcome_of(settlement, report, repeated=repeated) is outcome


def test_what_a_case_took_and_how_close_it_came_is_observed_once(
    registry: CollectorRegistry,
) -> None:
    """Stages, bytes, voxels, the removed share of the face and each check's margin."""
    report = case(SKIN, BONE, seconds={"segment": 2.0, "verify": 0.05})
    WorkerMetrics(registry)(settled(Outcome.RELEASED, report, 3.0))
    seen = registry.get_sample_value
    assert seen("ctdeface_worker_job_seconds_sum") == 3
    assert seen("ctdeface_worker_stage_seconds_sum", {"stage": "segment"}) == 2
    assert seen("ctdeface_worker_stage_seconds_bucket", {"stage": "verify", "le": "0.1"}) == 1
    assert (seen("ctdeface_worker_input_bytes_total"), seen("ctdeface_worker_voxels_total")) == (
        1000,
        24,
    )
    assert seen("ctdeface_worker_face_removed_ratio_sum") == pytest.approx(0.9925)
    assert seen(
        "ctdeface_worker_gate_margin_ratio_sum", {"check": "facial_skin_removed"}
    ) == pytest.approx(0.5)
    assert (
        seen("ctdeface_worker_gate_margin_ratio_bucket", {"check": "bone_stays", "le": "0.0"}) == 1
    )


@pytest.mark.parametrize("outcome", [Outcome.REPEATED, Outcome.RETRIED, Outcome.SUPERSEDED])
def test_what_was_not_worked_to_its_end_adds_nothing_to_the_work_done(
    registry: CollectorRegistry, outcome: Outcome
) -> None:
    """It is counted as what it is, and nowhere else."""
    WorkerMetrics(registry)(settled(outcome, case(SKIN, seconds={"read": 1.0}), 3.0))
    assert registry.get_sample_value("ctdeface_worker_jobs_total", {"outcome": outcome}) == 1
    assert registry.get_sample_value("ctdeface_worker_job_seconds_count") == 0
    assert registry.get_sample_value("ctdeface_worker_input_bytes_total") == 0


def names(registry: CollectorRegistry) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    """Yield name and labels of every series."""
    for family in registry.collect():
        for sample in family.samples:
            yield sample.name, tuple(sorted(sample.labels.items()))


def test_no_code_and_no_stage_that_comes_from_elsewhere_makes_a_series_of_its_own(
    registry: CollectorRegistry,
) -> None:
    """A thousand unheard-of ones become one label."""
    metrics = WorkerMetrics(registry)
    for number in range(1000):
        metrics(JobEvent(kind=Progress.ATTEMPT_FAILED, code=f"Error{number}"))
        report = case(seconds={f"stage-{number}": 1.0}, code=f"Code{number}")
        metrics(settled(Outcome.REFUSED, report, 1.0))
    labels = {
        value for _, found in names(registry) for name, value in found if name in {"code", "stage"}
    }
    assert labels == {*error_codes(), *STAGES, "other"}
    assert registry.get_sample_value("ctdeface_worker_refusals_total", {"code": "other"}) == 1000


def test_the_series_after_a_thousand_cases_are_those_after_ten(registry: CollectorRegistry) -> None:
    """Nothing grows with the number of cases."""
    metrics = WorkerMetrics(registry)
    counted: list[int] = []
    for number in range(1000):
        metrics(JobEvent(kind=Progress.RECEIVED))
        metrics(JobEvent(kind=Progress.ATTEMPT_BEGUN, attempt=1))
        code = CtDefaceError.__subclasses__()[number % 2].code if number % 3 == 0 else ""
        outcome = Outcome.REFUSED if code else Outcome.RELEASED
        report = replace(case(SKIN, BONE, code=code), job_id=str(number), case=f"case {number}")
        metrics(settled(outcome, report, number))
        if number in {9, 999}:
            counted.append(len(list(names(registry))))
    assert counted[0] == counted[1] > 100


def test_the_watcher_shows_its_last_look_and_the_age_grows_by_itself(
    registry: CollectorRegistry,
) -> None:
    """Also while it looks no more."""
    now = [1000.0]
    metrics = WatcherMetrics(registry, clock=lambda: now[0])
    assert metrics.watching() is not None
    looked_at = datetime.now(UTC).isoformat()
    state = WatcherState(
        looked_at=looked_at, waiting=("a", "b"), paused=DISK, open_jobs=3, oldest_open_at=900.0
    )
    metrics.count(WatchEvent(kind=EventKind.LOOKED, state=state))
    now[0] = 1060.0
    seen = registry.get_sample_value
    assert metrics.watching() is None
    assert (seen("ctdeface_watcher_pending_cases"), seen("ctdeface_watcher_open_jobs")) == (2, 3)
    assert seen("ctdeface_watcher_oldest_open_job_age_seconds") == 160
    assert seen("ctdeface_watcher_last_look_timestamp_seconds") == 1000
    assert (
        seen("ctdeface_watcher_paused", {"reason": "disk"}),
        seen("ctdeface_watcher_paused", {"reason": "unfinished_jobs"}),
    ) == (1, 0)
    state = WatcherState(looked_at=looked_at, paused=UNFINISHED_JOBS)
    metrics.count(WatchEvent(kind=EventKind.LOOKED, state=state))
    assert (
        seen("ctdeface_watcher_paused", {"reason": "disk"}),
        seen("ctdeface_watcher_paused", {"reason": "unfinished_jobs"}),
    ) == (0, 1)
    assert seen("ctdeface_watcher_oldest_open_job_age_seconds") == 0


def test_a_look_that_failed_is_counted_and_the_watcher_is_not_ready(
    registry: CollectorRegistry,
) -> None:
    """Until the next one that succeeds; without a state the figures stay."""
    metrics = WatcherMetrics(registry)
    state = WatcherState(looked_at="", open_jobs=3)
    metrics.count(WatchEvent(kind=EventKind.LOOKED, state=state))
    metrics.count(WatchEvent(kind=EventKind.LOOKED, failed="StorageUnavailable"))
    metrics.count(WatchEvent(kind=EventKind.LOOKED, failed="SomethingElse"))
    assert metrics.watching() == "the last look at the inbox failed"
    assert (
        registry.get_sample_value(
            "ctdeface_watcher_look_failures_total", {"code": "StorageUnavailable"}
        )
        == 1
    )
    assert registry.get_sample_value("ctdeface_watcher_look_failures_total", {"code": "other"}) == 1
    assert registry.get_sample_value("ctdeface_watcher_open_jobs") == 3
    metrics.count(WatchEvent(kind=EventKind.UNUSABLE))
    assert registry.get_sample_value("ctdeface_watcher_cases_total", {"result": "unusable"}) == 1


def test_a_model_that_is_replaced_or_gone_makes_the_worker_not_ready() -> None:
    """The children still hold the one that the worker began with."""

    class Other:
        name, digest = "geometric", "f" * 64

    installed = [segmenter_named("geometric")]

    def find() -> object:
        if not installed:
            raise ConfigurationError
        return installed[0]

    check = model_check(find, period_seconds=0.0)  # type: ignore[arg-type]  # a partial segmenter
    assert check() is None
    installed[0] = Other()  # type: ignore[call-overload]  # as above
    assert check() == "the model was replaced since the worker began: restart the worker"
    installed.clear()
    assert check() == "the model is gone: install it again"
