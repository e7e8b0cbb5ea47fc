"""Fixtures of the integration tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ctdeface_shared.broker.memory import MemoryBroker
from ctdeface_shared.broker.target import BrokerTarget
from ctdeface_shared.storage.spool import ServiceSpool
from tests.integration.rabbitmq_node import RabbitNode, forget_everything, running_node
from tests.support.service.watcher import RunningWatcher


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    """One RabbitMQ server for all tests that need an ordinary one."""
    with running_node(tmp_path_factory.mktemp("rabbitmq")) as node:
        yield node


@pytest.fixture
def clean_rabbitmq(rabbitmq: RabbitNode) -> RabbitNode:
    """The server without a queue."""
    forget_everything(BrokerTarget(url=rabbitmq.url, retry_delays=(0.4,)))
    return rabbitmq


@pytest.fixture
def watcher(tmp_path: Path) -> Iterator[RunningWatcher]:
    """A watcher over an empty inbox, not started yet."""
    spool = ServiceSpool.under(tmp_path / "spool")
    spool.prepare(outbox_mode=0o750)
    spool.prepare_inbox(moves_originals=True)
    state = tmp_path / "state"
    state.mkdir()
    running = RunningWatcher(spool=spool, state=state, broker=MemoryBroker())
    yield running
    running.end()
