"""Fixtures of the integration tests."""

from collections.abc import Iterator

import pytest

from ctdeface_shared.broker.target import BrokerTarget
from tests.integration.rabbitmq_node import RabbitNode, forget_everything, running_node


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
