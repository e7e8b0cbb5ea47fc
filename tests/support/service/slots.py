"""A worker slot over a real spool, with a queue in memory and the stand-in for the pipeline."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from ctdeface_shared.broker.memory import MemoryBroker
from ctdeface_shared.broker.settlement import RetryRule
from ctdeface_shared.jobs.options import Originals
from ctdeface_shared.settings.loading import Settings
from ctdeface_shared.settings.sections import SpoolSection, WorkSection
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_worker.case.child_process import WarmChild
from ctdeface_worker.publishing.outbox import OutputRules
from ctdeface_worker.report.model import CaseReport
from ctdeface_worker.service.case_ends import CaseEnds, case_resources
from ctdeface_worker.service.consumer import WorkerSlot
from tests.support.service.stand_in_pipeline import prepare

RULE = RetryRule(max_attempts=2, delays_seconds=(0.05,))
STALE_SECONDS = 4000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotOptions:
    """The settings of a slot that tests change.

    Attributes:
        grace: grace period in seconds.
        timeout: job timeout in seconds.
        originals: what happens to dropped files.
        attest: called with the report at the end of each case.
    """

    grace: float = 60.0
    timeout: float = 5.0
    originals: Originals = Originals.ARCHIVE
    attest: Callable[[CaseReport], None] = lambda _: None


def make_slot(
    spool: ServiceSpool, broker: MemoryBroker, options: SlotOptions | None = None
) -> WorkerSlot:
    """Return a slot with everything real but queue and pipeline."""
    options = options or SlotOptions()
    settings = Settings(
        work=WorkSection(grace_period=options.grace, job_timeout=options.timeout),
        spool=SpoolSection(originals=options.originals),
    )
    ends = CaseEnds(
        spool=spool,
        originals=options.originals,
        stale_seconds=STALE_SECONDS,
        attest=options.attest,
    )
    rules = OutputRules(stale_seconds=STALE_SECONDS, before_done=ends.before_done)
    return WorkerSlot(
        name="slot-0",
        broker=broker,
        resources=case_resources(ends, settings, WarmChild(prepare), rules),
        spool=spool,
        rule=RULE,
        stop=threading.Event(),
    )


def with_before_done(slot: WorkerSlot, before_done: Callable[[CaseReport], None]) -> WorkerSlot:
    """Return a slot with another step between visible output and end of the job."""
    rules = replace(slot.resources.rules, before_done=before_done)
    return replace(slot, resources=replace(slot.resources, rules=rules))
