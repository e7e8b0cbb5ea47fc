"""Dead letters: one that cannot be read or handled does not stop the others."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ctdeface_shared.broker.memory import MemoryBroker
from ctdeface_shared.broker.settlement import Reject
from ctdeface_shared.jobs.messages import encode_job
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_shared.replay.case import Replay
from ctdeface_shared.replay.dead_letters import requeue_dead_letters
from ctdeface_shared.replay.request import ReplayOptions
from ctdeface_shared.settings.sections import LimitsSection
from ctdeface_shared.storage.spool import ServiceSpool
from tests.support.service.spools import drop, job_for

ABSURD_TIMES = ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "2099-06-01T00:00:00Z")


@pytest.fixture
def spool(tmp_path: Path) -> ServiceSpool:
    """An empty spool."""
    made = ServiceSpool.under(tmp_path / "spool")
    made.prepare(outbox_mode=0o750)
    made.prepare_inbox(moves_originals=True)
    return made


def bury(broker: MemoryBroker, body: bytes) -> None:
    """Let the queue give up a message."""
    broker.queue.put(body)
    delivery = broker.receive(1.0)
    assert delivery is not None
    broker.settle(delivery, Reject("UnexpectedError"))


def replay_into(broker: MemoryBroker, spool: ServiceSpool) -> Replay:
    """Return the dependencies of a replay."""
    return Replay(
        spool=spool,
        publish=broker.publish,
        changes=ReplayOptions(),
        defaults=DefaceOptions(),
        limits=LimitsSection().tree(),
        dry_run=True,
    )


def test_letters_with_absurd_times_stay_and_the_others_are_replayed(spool: ServiceSpool) -> None:
    """Such a letter once ended the command with a traceback, for every letter."""
    broker = MemoryBroker()
    drop(spool, "a")
    good = encode_job(job_for(spool, "a"))
    for moment in ABSURD_TIMES:
        bury(broker, json.dumps({**json.loads(good), "submitted_at": moment}).encode())
    bury(broker, good)

    results = list(requeue_dead_letters(replay_into(broker, spool), broker))

    assert [one.reason.partition(":")[0] for one in results] == ["InvalidMessage"] * 3 + [""]
    assert results[-1].request is not None


def test_a_letter_that_meets_a_bug_is_listed_and_skipped(spool: ServiceSpool) -> None:
    """Its reason is the class of the error; the log has the traceback."""
    broker = MemoryBroker()
    drop(spool, "a")
    bury(broker, encode_job(job_for(spool, "a")))
    bury(broker, b"no job")
    without_zone = replace(
        replay_into(broker, spool), now=lambda: datetime.now(UTC).replace(tzinfo=None)
    )

    first, second = requeue_dead_letters(without_zone, broker)

    assert (first.request, first.reason) == (None, "TypeError: it stays as it is; see the log")
    assert second.reason.startswith("InvalidMessage")
    assert broker.depth().dead == 2
