"""Events become spans that name no patient; without a collector nothing is loaded."""

import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from typing import cast

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_shared.tracing.export import export_spans
from ctdeface_shared.tracing.spans import NO_TRACER, Tracer, traceparent_in
from ctdeface_shared.tracing.start import open_tracer
from ctdeface_worker.case.child_process import WorkerCrashed
from ctdeface_worker.pipeline.result import CaseResult
from ctdeface_worker.pipeline.stages import StageRun, Stages
from ctdeface_worker.report.model import CaseReport, describe, failed
from ctdeface_worker.service.events import Hook, JobEvent, Outcome, Progress
from ctdeface_worker.service.tracing import JobTrace

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MANIFEST = Manifest(files=3, bytes=2_000_000, digest="0" * 64)


@pytest.fixture
def state() -> InMemorySpanExporter:
    """Where spans arrive."""
    return InMemorySpanExporter()


@pytest.fixture
def tracer(state: InMemorySpanExporter) -> Iterator[Tracer]:
    """A tracer that exports spans immediately."""
    with export_spans("ctdeface-test", SimpleSpanProcessor(state)) as made:
        yield made


def report_of(result: CaseResult) -> CaseReport:
    """The report of a case whose name says who it is."""
    return describe("5c0d4a5e", "DOE^JANE", MANIFEST, DefaceOptions(), result)


def hook_of(tracer: Tracer) -> Hook:
    """A slot whose clock goes on by a second with each look."""
    ticks = count(100)
    return JobTrace(tracer, "slot-0", lambda: float(next(ticks)))


def seconds(span: ReadableSpan) -> tuple[float, float]:
    """When a span began and ended."""
    return cast("int", span.start_time) / 1e9, cast("int", span.end_time) / 1e9


def test_a_job_goes_on_with_the_trace_of_its_message_and_its_stages_have_the_times_of_the_child(
    state: InMemorySpanExporter, tracer: Tracer
) -> None:
    """Stages that the child did not measure last from one word to the next."""
    hook = hook_of(tracer)
    timeline = (
        StageRun(stage="read", begun_at=50.25, seconds=0.5),
        StageRun(stage="verify", begun_at=51.0, seconds=2.0),
    )
    hook(JobEvent(kind=Progress.RECEIVED, traceparent=PARENT))
    hook(JobEvent(kind=Progress.ATTEMPT_BEGUN, job_id="5c0d4a5e", attempt=2))
    for stage in ("read", "verify", "publish", "settle"):
        hook(JobEvent(kind=Progress.STAGE_BEGUN, stage=stage))
    report = report_of(CaseResult(released=True, timeline=timeline, segmenter="geometric"))
    hook(JobEvent(kind=Progress.SETTLED, outcome=Outcome.RELEASED, report=report))
    spans = {span.name: span for span in state.get_finished_spans()}
    assert {name: seconds(span) for name, span in spans.items()} == {
        "read": (50.25, 50.75),
        "verify": (51.0, 53.0),
        "publish": (103.0, 104.0),
        "settle": (104.0, 105.0),
        "job": (100.0, 105.0),
    }
    job = spans.pop("job")
    assert job.parent is not None
    assert f"00-{job.context.trace_id:032x}-{job.parent.span_id:016x}-01" == PARENT
    assert all(
        span.parent is not None and span.parent.span_id == job.context.span_id
        for span in spans.values()
    )
    said = dict(job.attributes or {})
    assert said.pop("ctdeface.megabytes") == pytest.approx(2.0)
    assert said == {
        "ctdeface.attempt": 2,
        "ctdeface.code": "",
        "ctdeface.files": 3,
        "ctdeface.generation": 0,
        "ctdeface.job_id": "5c0d4a5e",
        "ctdeface.outcome": "released",
        "ctdeface.segmenter": "geometric",
        "ctdeface.series": 0,
        "ctdeface.slot": "slot-0",
        "ctdeface.voxels": 0,
    }


def test_an_attempt_that_breaks_off_shows_in_which_stage(
    state: InMemorySpanExporter, tracer: Tracer
) -> None:
    """That one and the job have the code; the next job of the slot knows nothing of it."""
    hook = hook_of(tracer)
    for broken in (True, False):
        hook(JobEvent(kind=Progress.RECEIVED))
        hook(JobEvent(kind=Progress.ATTEMPT_BEGUN, job_id="5c0d4a5e", attempt=1))
        for stage in ("read", "segment"):
            hook(JobEvent(kind=Progress.STAGE_BEGUN, stage=stage))
        if broken:
            hook(JobEvent(kind=Progress.ATTEMPT_FAILED, code=WorkerCrashed.__name__))
        hook(JobEvent(kind=Progress.STAGE_BEGUN, stage="settle"))
        hook(JobEvent(kind=Progress.SETTLED, outcome=Outcome.RETRIED))
    spans = state.get_finished_spans()
    assert [
        (span.name, (span.attributes or {}).get("ctdeface.code"), span.status.is_ok)
        for span in spans
    ] == [
        ("read", None, True),
        ("segment", "WorkerCrashed", False),
        ("settle", None, True),
        ("job", "WorkerCrashed", False),
        ("read", None, True),
        ("segment", None, True),
        ("settle", None, True),
        ("job", None, True),
    ]
    assert len({span.context.trace_id for span in spans}) == 2


def test_a_job_that_was_over_before_tells_nothing_of_the_time_it_had_taken_then(
    state: InMemorySpanExporter, tracer: Tracer
) -> None:
    """Its report holds the stages of an earlier delivery."""
    hook = hook_of(tracer)
    hook(JobEvent(kind=Progress.RECEIVED))
    hook(JobEvent(kind=Progress.STAGE_BEGUN, stage="settle"))
    timeline = (StageRun(stage="read", begun_at=50.0, seconds=0.5),)
    report = report_of(CaseResult(released=True, timeline=timeline))
    hook(JobEvent(kind=Progress.SETTLED, outcome=Outcome.REPEATED, report=report))
    assert [span.name for span in state.get_finished_spans()] == ["settle", "job"]


def test_nothing_but_allowed_keys_and_harmless_values_is_told(
    state: InMemorySpanExporter, tracer: Tracer
) -> None:
    """Other keys, and texts that could be names or paths, are left out."""
    span = tracer.begin("watch", 1.0)
    span.part("settle", 1.0, 2.0, error="/srv/DOE^JANE: no such file")
    span.end(2.0, {"case": "DOE", "job_id": "DOE^JANE", "code": "/srv/inbox", "files": 3})
    told_of = state.get_finished_spans()
    assert [dict(one.attributes or {}) for one in told_of] == [{}, {"ctdeface.files": 3}]
    assert all("DOE" not in one.to_json() for one in told_of)


def test_a_reports_reason_is_never_told(state: InMemorySpanExporter, tracer: Tracer) -> None:
    """It may quote a name; the code is enough."""
    hook = hook_of(tracer)
    hook(JobEvent(kind=Progress.RECEIVED))
    report = report_of(failed(WorkerCrashed("DOE^JANE/1.dcm")))
    hook(JobEvent(kind=Progress.SETTLED, outcome=Outcome.REFUSED, report=report))
    (job,) = state.get_finished_spans()
    assert "DOE" not in job.to_json()
    assert (job.attributes or {})["ctdeface.code"] == "WorkerCrashed"


NONE_OF_THEM = (
    None,
    7,
    "",
    "DOE^JANE",
    f"{PARENT}x",
    PARENT.upper(),
    f"00-{'0' * 32}-b7ad6b7169203331-01",
    f"ff{PARENT[2:]}",
)


@pytest.mark.parametrize("found", NONE_OF_THEM)
def test_what_is_no_traceparent_is_not_taken_for_one(found: object) -> None:
    """Any client that may publish can write anything beside a message."""
    assert traceparent_in(found) is None
    assert traceparent_in(PARENT) == PARENT


def test_the_traceparent_of_a_span_is_one(tracer: Tracer) -> None:
    """Its own trace, sampled."""
    given = tracer.begin("watch", 1.0).traceparent
    assert given is not None
    assert traceparent_in(given) == given
    assert int(given[-2:], 16) & 1


def test_without_an_endpoint_nobody_is_told() -> None:
    """Messages then carry no trace."""
    with open_tracer(None, "ctdeface-test") as tracer:
        assert tracer is NO_TRACER
        assert tracer.begin("watch", 1.0).traceparent is None


def test_while_traces_are_off_opentelemetry_is_not_loaded() -> None:
    """Neither watcher nor worker pays for it."""
    script = (
        "import sys, ctdeface_watcher.process, ctdeface_worker.service.process; "
        "foreign = ('opentelemetry', 'google.protobuf'); "
        "print([name for name in sys.modules if name.startswith(foreign)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_stages_remember_each_run() -> None:
    """Two series of a case pass the same stage one after the other."""
    stages = Stages(lambda _: None)
    for _ in range(2):
        with stages.stage("load"):
            pass
    first, second = stages.runs
    assert first.begun_at <= second.begun_at
    assert first.seconds + second.seconds == pytest.approx(stages.seconds["load"])
