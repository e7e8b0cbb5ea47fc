"""Spans of a worker slot, one per delivery.

The span of a delivery continues the trace that its message names. Stages have the times that the
child measured and sent with its result. An attempt that failed has no such times: its stages last
from one stage event to the next, and the last stage carries the error.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import time

from ctdeface_shared.tracing.spans import NO_SPAN, Span, Tracer, Value
from ctdeface_worker.pipeline.stages import StageRun
from ctdeface_worker.report.model import CaseReport
from ctdeface_worker.service.events import JobEvent, Progress


@dataclass(slots=True)
class JobTrace:
    """A hook that exports the spans of one slot.

    A slot has one delivery at a time.

    Attributes:
        tracer: receives the spans.
        slot: name of the slot.
        clock: returns the seconds since the epoch.
    """

    tracer: Tracer
    slot: str
    clock: Callable[[], float] = time
    _span: Span = NO_SPAN
    _values: dict[str, Value] = field(default_factory=dict)
    _stages: list[tuple[str, float]] = field(default_factory=list)
    _failure: tuple[int, str] | None = None

    def __call__(self, event: JobEvent) -> None:
        """Follow one event of the job."""
        match event.kind:
            case Progress.RECEIVED:
                self._span = self.tracer.begin("job", self.clock(), event.traceparent)
                self._values, self._failure = {"slot": self.slot}, None
                self._stages.clear()
            case Progress.ATTEMPT_BEGUN:
                self._values |= {"job_id": event.job_id, "attempt": event.attempt}
            case Progress.STAGE_BEGUN:
                self._stages.append((event.stage, self.clock()))
            case Progress.ATTEMPT_FAILED:
                self._failure = (len(self._stages) - 1, event.code)
            case Progress.SETTLED:
                self._end(event)

    def _end(self, event: JobEvent) -> None:
        ended_at, report = self.clock(), event.report
        attempted = report is not None and "attempt" in self._values
        measured = report.result.timeline if report is not None and attempted else ()
        for run in measured:
            self._span.part(run.stage, run.begun_at, run.begun_at + run.seconds)
        self._add_other_stages(ended_at, measured)
        outcome = "" if event.outcome is None else event.outcome.value
        error = self._failure[1] if self._failure else ""
        self._span.end(ended_at, {**self._values, "outcome": outcome, **_facts(report)}, error)
        self._span = NO_SPAN

    def _add_other_stages(self, ended_at: float, measured: tuple[StageRun, ...]) -> None:
        """Add the stages that the child did not measure."""
        ends = [begun_at for _, begun_at in self._stages[1:]] + [ended_at]
        for number, ((stage, begun_at), end) in enumerate(zip(self._stages, ends, strict=False)):
            if stage not in {run.stage for run in measured}:
                error = self._failure[1] if self._failure and self._failure[0] == number else ""
                self._span.part(stage, begun_at, end, error)


def _facts(report: CaseReport | None) -> dict[str, Value]:
    """Return the figures of a report, without names."""
    if report is None:
        return {}
    return {
        "job_id": report.job_id,
        "code": report.result.code,
        "generation": report.generation,
        "files": report.manifest.files,
        "megabytes": report.manifest.bytes / 1e6,
        "segmenter": report.result.segmenter,
        "series": len(report.result.series),
        "voxels": sum(series.voxels for series in report.result.series),
    }
