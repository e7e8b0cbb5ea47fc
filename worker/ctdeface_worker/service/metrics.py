"""The worker's metrics: what its slots tell while they work, and what is asked of their children when Prometheus looks."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import monotonic, time
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from ctdeface_shared.audit.entry import Outcome as End
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.lifecycle import never_raises
from ctdeface_shared.metrics.dependencies import Dependencies, error_codes, new_registry
from ctdeface_shared.metrics.endpoint import Address, exported
from ctdeface_shared.metrics.probe import Check, Probe
from ctdeface_shared.settings.service import ServiceConfig
from ctdeface_worker.report.model import CaseReport
from ctdeface_worker.segmentation.base import Segmenter
from ctdeface_worker.service.consumer import WorkerSlot
from ctdeface_worker.service.observer import Observer, Outcome, both
from ctdeface_worker.verification.margins import margin_of

MODEL_SECONDS = 60.0
"""Between two looks at the model, whose files can be large."""
SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
REMOVED = (0.5, 0.9, 0.95, 0.97, 0.98, 0.985, 0.99, 0.995, 0.999, 1.0)
MARGINS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
STAGES = ("read", "select", "load", "segment", "write", "verify", "preview")
OTHER = "other"
"""Label of whatever is none of the known ones, so that no label can grow."""
FACE_REMOVED = "facial_skin_removed"


class Child(Protocol):
    """What is asked of a warm child."""

    @property
    def restarts(self) -> int:
        """How often its process had to be started again."""

    @property
    def peak_bytes(self) -> int:
        """Most memory that one of its processes held."""


@dataclass(frozen=True, slots=True, eq=False)  # a registry tells collectors apart by identity
class Children(Collector):
    """The warm children of all slots, by slot; looked at when Prometheus asks."""

    of_slot: dict[str, Child] = field(default_factory=dict)

    def collect(self) -> Iterable[Metric]:
        """Ask each child."""
        there = dict(self.of_slot)
        text = "Processes that had to be started again, because a case crashed, hung or held too much memory."
        restarts = CounterMetricFamily(
            "ctdeface_worker_child_restarts",
            text,
            value=sum(child.restarts for child in there.values()),
        )
        text = "Most memory that the process of a slot has held since the worker was started."
        peak = GaugeMetricFamily("ctdeface_worker_child_peak_memory_bytes", text, labels=["slot"])
        for slot, child in there.items():
            peak.add_metric([slot], child.peak_bytes)
        return [restarts, peak]


class WorkerMetrics:
    """Counts what a worker does."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register every metric, each with all its labels at 0."""
        self._codes = error_codes()
        codes = sorted({*self._codes, OTHER})
        self.children = Children()
        registry.register(self.children)

        def counter(name: str, text: str, label: str = "", values: Iterable[str] = ()) -> Counter:
            made = Counter(
                f"ctdeface_worker_{name}", text, [label] if label else [], registry=registry
            )
            for value in values:
                made.labels(value)
            return made

        def histogram(
            name: str, text: str, buckets: tuple[float, ...], label: str = ""
        ) -> Histogram:
            return Histogram(
                f"ctdeface_worker_{name}",
                text,
                [label] if label else [],
                buckets=buckets,
                registry=registry,
            )

        self._jobs = counter(
            "jobs", "Deliveries that came to their end, by what became of them.", "outcome", Outcome
        )
        self._refusals = counter(
            "refusals", "Refused cases, by the code of the reason.", "code", codes
        )
        self._attempts = counter("attempts", "Attempts that began.")
        self._failures = counter(
            "attempt_failures", "Attempts that failed, by the code of the error.", "code", codes
        )
        self._late = counter(
            "late_settlements",
            "Deliveries that the queue had given to somebody else before they were settled.",
        )
        text = (
            "Entries about ended cases that were written to the audit log, by how the case ended."
        )
        self._entries = counter("audit_entries", text, "end", End)
        self._bytes = counter("input_bytes", "Bytes of the cases that were released or refused.")
        self._voxels = counter("voxels", "Voxels of their volumes.")
        self._job_seconds = histogram(
            "job_seconds",
            "Time from taking a job to its end, of cases that were released or refused.",
            SECONDS,
        )
        self._stage_seconds = histogram(
            "stage_seconds", "Time of a case in each stage.", SECONDS, "stage"
        )
        self._removed = histogram(
            "face_removed_ratio",
            "Share of the facial skin in view that is gone, per series.",
            REMOVED,
        )
        text = "How far on the good side of its bound each check of the gate was, per series, 0 to 1; 0: at the bound or refused."
        self._margins = histogram("gate_margin_ratio", text, MARGINS, "check")
        self._busy = Gauge(
            "ctdeface_worker_jobs_in_progress",
            "Deliveries that are being worked on.",
            registry=registry,
        )
        text = "When a case was released last, by this process; 0 when none was."
        self._released_at = Gauge(
            "ctdeface_worker_last_release_timestamp_seconds", text, registry=registry
        )
        self._model = Info(
            "ctdeface_worker_model",
            "Segmenter and digest of its model, or of its rules; always 1.",
            registry=registry,
        )
        for stage in STAGES:
            self._stage_seconds.labels(stage)

    def show_model(self, segmenter: Segmenter) -> None:
        """Show what makes the masks."""
        self._model.info({"segmenter": segmenter.name, "digest": segmenter.digest})

    def observer(self) -> Observer:
        """Return the callbacks for the slots; none of them raises."""
        return Observer(
            taken=never_raises(lambda _: self._busy.inc()),
            attempted=never_raises(lambda _job_id, _number: self._attempts.inc()),
            failed=never_raises(self._failed),
            ended=never_raises(self._ended),
            late=never_raises(self._late.inc),
        )

    @property
    def attested(self) -> Callable[[End], None]:
        """The callback for entries in the audit log; it never raises."""
        return never_raises(lambda end: self._entries.labels(end).inc())

    def attended(self, make_station: Callable[[], WorkerSlot]) -> WorkerSlot:
        """Make a slot whose doings are counted here."""
        worker_slot_ = make_station()
        self.children.of_slot[worker_slot_.name] = worker_slot_.resources.child
        return replace(worker_slot_, observer=both(self.observer(), worker_slot_.observer))

    def _known(self, code: str) -> str:
        return code if code in self._codes else OTHER

    def _failed(self, code: str) -> None:
        self._failures.labels(self._known(code)).inc()

    def _ended(self, outcome: Outcome, report: CaseReport | None, seconds: float) -> None:
        self._busy.dec()
        self._jobs.labels(outcome).inc()
        if report is None or outcome not in {Outcome.RELEASED, Outcome.REFUSED}:
            return
        if outcome is Outcome.RELEASED:
            self._released_at.set(time())
        else:
            self._refusals.labels(self._known(report.result.code)).inc()
        self._job_seconds.observe(seconds)
        self._bytes.inc(report.manifest.bytes)
        self._voxels.inc(sum(series.voxels for series in report.result.series))
        for stage, spent in report.result.seconds.items():
            self._stage_seconds.labels(stage if stage in STAGES else OTHER).observe(spent)
        for check in (check for series in report.result.series for check in series.checks):
            margin = margin_of(check)
            if margin is not None:
                self._margins.labels(check.name).observe(
                    max(margin, 0.0)
                )  # a sum that falls would be read as a restart
            if check.name == FACE_REMOVED and check.figure is not None:
                self._removed.observe(check.figure)


@contextmanager
def exported_metrics(
    service: ServiceConfig, port: int | None, find: Callable[[], Segmenter]
) -> Iterator[WorkerMetrics]:
    """Count and tell for the time of the block.

    Args:
        site: the service.
        port: where to serve; None is the setting, 0 serves nothing.
        find: gives what finds the face unless a job says otherwise, as it is installed now.

    Raises:
        ConfigurationError: there is no such segmenter, the port is taken, or the address is none of
            this machine.
    """
    settings = service.settings.metrics
    registry = new_registry()
    metrics = WorkerMetrics(registry)
    metrics.show_model(find())
    surroundings = Dependencies(service, registry, counts_messages=False)
    checks = {**surroundings.checks(), "model": model_check(find)}
    address = Address.of(settings, settings.work_port if port is None else port)
    with exported(address, registry, Probe(checks, close=surroundings.close)):
        yield metrics


def model_check(find: Callable[[], Segmenter], *, period_seconds: float = MODEL_SECONDS) -> Check:
    """Make the check that the model is there, and the same as when the worker began: its children hold that one."""
    digest = find().digest
    checked_at, said = monotonic(), ""

    def check() -> str | None:
        nonlocal checked_at, said
        if monotonic() - checked_at >= period_seconds:
            checked_at = monotonic()
            try:
                said = (
                    ""
                    if find().digest == digest
                    else "the model was replaced since the worker began: restart the worker"
                )
            except (ConfigurationError, OSError):
                said = "the model is gone: install it again"
        return said or None

    return check
