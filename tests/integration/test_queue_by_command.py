"""The commands with a real RabbitMQ: a refused login, and replayed dead letters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctdeface_shared.broker import open_broker
from ctdeface_shared.broker.settlement import Ack, Reject
from ctdeface_shared.broker.target import BrokerTarget
from ctdeface_shared.jobs.messages import decode_job
from ctdeface_shared.jobs.options import Profile
from ctdeface_shared.storage.spool import ServiceSpool
from tests.integration.rabbitmq_node import RabbitNode
from tests.integration.test_brokers import put_raw, received, wait_for
from tests.support.service.spools import drop, ends, job_for

CTDEFACE = Path(sys.executable).with_name("ctdeface")
DELAYS = (0.4,)
QUICK = {
    "CTDEFACE_METRICS__WATCH_PORT": "0",
    "CTDEFACE_METRICS__WORK_PORT": "0",
    "CTDEFACE_OUTPUT__MIN_FREE_GB": "0",
    "CTDEFACE_BROKER__RETRY_DELAYS": str(list(DELAYS)),
    "CTDEFACE_WATCH__QUIET_PERIOD": "0.2",
}


@pytest.fixture
def spool(tmp_path: Path) -> ServiceSpool:
    """An empty spool."""
    made = ServiceSpool.under(tmp_path / "spool")
    made.prepare(outbox_mode=0o750)
    made.prepare_inbox(moves_originals=True)
    return made


def ctdeface(*arguments: str, spool: ServiceSpool, url: str) -> "subprocess.CompletedProcess[str]":
    """Run a command over a spool and a queue until it ends."""
    command = [str(CTDEFACE), *arguments, "--spool", str(spool.inbox.parent), "--broker", url]
    return subprocess.run(
        command, env=os.environ | QUICK, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("command", ["watch", "work"])
def test_a_process_that_the_queue_refuses_ends_with_78(
    spool: ServiceSpool, rabbitmq: RabbitNode, command: str
) -> None:
    """One line without the password gives the reason, and dropped cases wait."""
    drop(spool, "case")
    ended = ctdeface(
        command, spool=spool, url=f"amqp://guest:not-the-password@127.0.0.1:{rabbitmq.port}"
    )
    assert ended.returncode == 78, ended.stderr
    assert "refuses the login" in ended.stderr.splitlines()[-1]
    assert "not-the-password" not in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ends(spool).not_ended == ["case"]


def test_dead_letters_of_rabbitmq_are_replayed(
    spool: ServiceSpool, clean_rabbitmq: RabbitNode
) -> None:
    """With the options asked for and a higher generation; what is not a job stays a dead letter."""
    drop(spool, "a")
    target = BrokerTarget(url=clean_rabbitmq.url, retry_delays=DELAYS)
    put_raw(target, b"no job")
    broker = open_broker(target)
    assert broker.settle(received(broker), Reject("InvalidMessage"))
    broker.publish(job_for(spool, "a"))
    assert broker.settle(received(broker), Reject("UnexpectedError"))
    wait_for(lambda: broker.depth().dead == 2)

    looked = ctdeface(
        "replay", "--dead", "--profile", "bulky", "--dry-run", spool=spool, url=target.url
    )
    assert "a: would be replayed as job " in looked.stdout
    assert (looked.returncode, broker.depth().dead) == (1, 2)

    done = ctdeface("replay", "--dead", "--profile", "bulky", spool=spool, url=target.url)
    assert "a: replayed as job " in done.stdout
    assert "(InvalidMessage): not replayed: InvalidMessage" in done.stdout
    assert done.returncode == 1
    wait_for(lambda: broker.depth().dead == 1)
    delivery = received(broker)
    job = decode_job(delivery.body)
    assert (job.case, job.generation, job.options.profile) == ("a", 1, Profile.BULKY)
    assert broker.settle(delivery, Ack())
    broker.close()
