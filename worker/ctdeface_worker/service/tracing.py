"""The spans of a slot: one for each delivery, in the trace that its message names, with one part for each stage.

What the warm child did is told by its own figures, which come with its result. Of an attempt that
    broke off there are none: then what
counts is when each stage was heard to begin, and the last one gets the error.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import time

from ctdeface_shared.broker.protocols import Delivery
from ctdeface_shared.lifecycle import never_raises
from ctdeface_shared.tracing.spans import NO_SPAN, Span, Tracer, Value
from ctdeface_worker.pipeline.stages import StageRun
from ctdeface_worker.report.model import CaseReport
from ctdeface_worker.service.observer import Observer, Outcome


@dataclass(slots=True)
class JobTrace:
    """Tells the spans of one slot, which holds one delivery at a time.

    Attributes:
        tracer: is told.
        slot: whose spans they are.
        clock: seconds since the epoch.
    """

    tracer: Tracer
    slot: str
    clock: Callable[[], float] = time
    _span: Span = NO_SPAN
    _about: dict[str, Value] = field(default_factory=dict)
    _heard: list[tuple[str, float]] = field(default_factory=list)
    _broken: tuple[int, str] | None = None

    def observer(self) -> Observer:
        """Return the callbacks for the slot; none of them raises."""
        return Observer(
            taken=never_raises(self._taken),
            attempted=never_raises(self._attempted),
            staged=never_raises(self._staged),
            failed=never_raises(self._failed),
            ended=never_raises(self._ended),
        )

    def _taken(self, delivery: Delivery) -> None:
        self._span = self.tracer.begin("job", self.clock(), delivery.traceparent)
        self._about, self._broken = {"slot": self.slot}, None
        self._heard.clear()

    def _attempted(self, job_id: str, number: int) -> None:
        self._about |= {"job_id": job_id, "attempt": number}

    def _staged(self, stage: str) -> None:
        self._heard.append((stage, self.clock()))

    def _failed(self, code: str) -> None:
        self._broken = (len(self._heard) - 1, code)

    def _ended(self, outcome: Outcome, report: CaseReport | None, _seconds: float) -> None:
        now = self.clock()
        told = report.result.timeline if report is not None and "attempt" in self._about else ()
        for run in told:
            self._span.part(run.stage, run.begun_at, run.begun_at + run.seconds)
        self._tell_heard(now, told)
        error = self._broken[1] if self._broken else ""
        self._span.end(now, {**self._about, "outcome": outcome.value, **_facts(report)}, error)
        self._span = NO_SPAN

    def _tell_heard(self, now: float, told: tuple[StageRun, ...]) -> None:
        ends = [begun_at for _, begun_at in self._heard[1:]] + [now]
        for number, ((stage, begun_at), ended_at) in enumerate(
            zip(self._heard, ends, strict=False)
        ):
            if stage not in {run.stage for run in told}:
                error = self._broken[1] if self._broken and self._broken[0] == number else ""
                self._span.part(stage, begun_at, ended_at, error)


def _facts(report: CaseReport | None) -> dict[str, Value]:
    """What a report says about a case without naming it."""
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
