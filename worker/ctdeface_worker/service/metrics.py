"""Metrics of the worker and its children."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from ctdeface_shared.audit.entry import Outcome as End
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.metrics.dependencies import Dependencies, error_codes, new_registry
from ctdeface_shared.metrics.endpoint import Address, serve_metrics
from ctdeface_shared.metrics.probe import Check, Probe
from ctdeface_shared.settings.service import ServiceConfig
from ctdeface_worker.report.model import CaseReport
from ctdeface_worker.segmentation.base import Segmenter
from ctdeface_worker.service.events import JobEvent, Outcome, Progress
from ctdeface_worker.verification.margins import margin_of

MODEL_SECONDS = 60.0
"""Interval between two checks of the model, whose files can be large."""
SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
REMOVED = (0.5, 0.9, 0.95, 0.97, 0.98, 0.985, 0.99, 0.995, 0.999, 1.0)
MARGINS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
STAGES = ("read", "select", "load", "segment", "write", "verify", "preview")
OTHER = "other"
"""Label of every unknown value, so that the number of series cannot grow."""
FACE_REMOVED = "facial_skin_removed"


class Child(Protocol):
    """The figures of a warm child."""

    @property
    def restarts(self) -> int:
        """Number of times that its process was started again."""

    @property
    def peak_bytes(self) -> int:
        """Largest memory that one of its processes held."""


@dataclass(frozen=True, slots=True, eq=False)  # a registry tells collectors apart by identity
class Children(Collector):
    """The warm children by slot, read on every scrape."""

    of_slot: dict[str, Child] = field(default_factory=dict)

    def collect(self) -> Iterable[Metric]:
        """Read each child."""
        children = dict(self.of_slot)
        restarts = CounterMetricFamily(
            "ctdeface_worker_child_restarts",
            "Processes that had to be started again, because a case crashed, hung or held too much "
            "memory.",
            value=sum(child.restarts for child in children.values()),
        )
        peak = GaugeMetricFamily(
            "ctdeface_worker_child_peak_memory_bytes",
            "Most memory that the process of a slot has held since the worker was started.",
            labels=["slot"],
        )
        for slot, child in children.items():
            peak.add_metric([slot], child.peak_bytes)
        return [restarts, peak]


class _Family:
    """Creates metrics of one registry with labels at 0."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, text: str) -> Counter:
        return Counter(f"ctdeface_worker_{name}", text, registry=self._registry)

    def counter_by(self, label: str, values: Iterable[str], name: str, text: str) -> Counter:
        made = Counter(f"ctdeface_worker_{name}", text, [label], registry=self._registry)
        for value in values:
            made.labels(value)
        return made

    def histogram(
        self, name: str, text: str, buckets: tuple[float, ...], label: str = ""
    ) -> Histogram:
        labels = [label] if label else []
        return Histogram(
            f"ctdeface_worker_{name}", text, labels, buckets=buckets, registry=self._registry
        )

    def gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"ctdeface_worker_{name}", text, registry=self._registry)

    def info(self, name: str, text: str) -> Info:
        return Info(f"ctdeface_worker_{name}", text, registry=self._registry)


class _JobCounters:
    """Counters of deliveries, attempts and audit entries."""

    def __init__(self, make: _Family, codes: Iterable[str]) -> None:
        codes = sorted({*codes, OTHER})
        self.jobs = make.counter_by(
            "outcome", Outcome, "jobs", "Deliveries that came to their end, by what became of them."
        )
        self.refusals = make.counter_by(
            "code", codes, "refusals", "Refused cases, by the code of the reason."
        )
        self.attempts = make.counter("attempts", "Attempts that began.")
        self.failures = make.counter_by(
            "code",
            codes,
            "attempt_failures",
            "Attempts that failed, by the code of the error.",
        )
        self.late = make.counter(
            "late_settlements",
            "Deliveries that the queue had given to somebody else before they were settled.",
        )
        self.audit_entries = make.counter_by(
            "end",
            End,
            "audit_entries",
            "Entries about ended cases that were written to the audit log, by how the case ended.",
        )
        self.in_progress = make.gauge("jobs_in_progress", "Deliveries that are being worked on.")
        self.released_at = make.gauge(
            "last_release_timestamp_seconds",
            "When a case was released last, by this process; 0 when none was.",
        )


class _CaseFigures:
    """Sizes, times and margins of released and refused cases."""

    def __init__(self, make: _Family) -> None:
        self.bytes = make.counter(
            "input_bytes", "Bytes of the cases that were released or refused."
        )
        self.voxels = make.counter("voxels", "Voxels of their volumes.")
        self.job_seconds = make.histogram(
            "job_seconds",
            "Time from taking a job to its end, of cases that were released or refused.",
            SECONDS,
        )
        self.stage_seconds = make.histogram(
            "stage_seconds", "Time of a case in each stage.", SECONDS, "stage"
        )
        self.removed = make.histogram(
            "face_removed_ratio",
            "Share of the facial skin in view that is gone, per series.",
            REMOVED,
        )
        self.margins = make.histogram(
            "gate_margin_ratio",
            "How far on the good side of its bound each check of the gate was, per series, 0 to 1; "
            "0: at the bound or refused.",
            MARGINS,
            "check",
        )
        for stage in STAGES:
            self.stage_seconds.labels(stage)

    def observe(self, report: CaseReport, seconds: float) -> None:
        """Observe one case.

        Args:
            report: of the case.
            seconds: from taking the job to its end.
        """
        series = report.result.series
        self.job_seconds.observe(seconds)
        self.bytes.inc(report.manifest.bytes)
        self.voxels.inc(sum(one.voxels for one in series))
        for stage, stage_seconds in report.result.seconds.items():
            self.stage_seconds.labels(stage if stage in STAGES else OTHER).observe(stage_seconds)
        for check in (check for one in series for check in one.checks):
            margin = margin_of(check)
            if margin is not None:
                # A sum that falls would be read as a restart, so negative margins count as 0.
                self.margins.labels(check.name).observe(max(margin, 0.0))
            if check.name == FACE_REMOVED and check.figure is not None:
                self.removed.observe(check.figure)


class WorkerMetrics:
    """Counts the jobs of a worker; a hook of its slots."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register every metric, each with all its labels at 0."""
        make = _Family(registry)
        self._codes = error_codes()
        self._counters = _JobCounters(make, self._codes)
        self._figures = _CaseFigures(make)
        self._model = make.info(
            "model", "Segmenter and digest of its model, or of its rules; always 1."
        )
        self.children = Children()
        registry.register(self.children)

    def show_model(self, segmenter: Segmenter) -> None:
        """Show the segmenter and the digest of its model."""
        self._model.info({"segmenter": segmenter.name, "digest": segmenter.digest})

    def __call__(self, event: JobEvent) -> None:
        """Count one event of a job."""
        match event.kind:
            case Progress.RECEIVED:
                self._counters.in_progress.inc()
            case Progress.ATTEMPT_BEGUN:
                self._counters.attempts.inc()
            case Progress.ATTEMPT_FAILED:
                self._counters.failures.labels(self._known(event.code)).inc()
            case Progress.SETTLED:
                self._count_settled(event)
            case Progress.STAGE_BEGUN:
                pass

    def count_audit_entry(self, end: End) -> None:
        """Count an entry in the audit log."""
        self._counters.audit_entries.labels(end).inc()

    def _known(self, code: str) -> str:
        return code if code in self._codes else OTHER

    def _count_settled(self, event: JobEvent) -> None:
        counters, report = self._counters, event.report
        counters.in_progress.dec()
        counters.jobs.labels(event.outcome).inc()
        if event.late:
            counters.late.inc()
        if event.outcome is Outcome.RELEASED:
            counters.released_at.set(time())
        if event.outcome is Outcome.REFUSED and report is not None:
            counters.refusals.labels(self._known(report.result.code)).inc()
        if event.outcome in {Outcome.RELEASED, Outcome.REFUSED} and report is not None:
            self._figures.observe(report, event.seconds)


@contextmanager
def exported_metrics(
    service: ServiceConfig, port: int | None, find: Callable[[], Segmenter]
) -> Iterator[WorkerMetrics]:
    """Serve the metrics of a worker.

    Args:
        service: the service.
        port: where to serve; None for the setting, 0 for not at all.
        find: returns the default segmenter as it is installed now.

    Raises:
        ConfigurationError: the segmenter is not installed, the port is in use, or the address does
            not belong to this machine.
    """
    settings = service.settings.metrics
    registry = new_registry()
    metrics = WorkerMetrics(registry)
    metrics.show_model(find())
    dependencies = Dependencies(service, registry, counts_messages=False)
    checks = {**dependencies.checks(), "model": model_check(find)}
    address = Address.of(settings, settings.work_port if port is None else port)
    with serve_metrics(address, registry, Probe(checks, close=dependencies.close)):
        yield metrics


def model_check(find: Callable[[], Segmenter], *, period_seconds: float = MODEL_SECONDS) -> Check:
    """Return a check that the loaded model is still installed."""
    digest = find().digest
    checked_at, problem = monotonic(), ""

    def check() -> str | None:
        nonlocal checked_at, problem
        if monotonic() - checked_at >= period_seconds:
            checked_at = monotonic()
            problem = _problem_of_model(find, digest)
        return problem or None

    return check


def _problem_of_model(find: Callable[[], Segmenter], digest: str) -> str:
    try:
        if find().digest == digest:
            return ""
    except (ConfigurationError, OSError):
        return "the model is gone: install it again"
    return "the model was replaced since the worker began: restart the worker"
