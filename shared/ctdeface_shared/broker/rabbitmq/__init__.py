"""RabbitMQ through pika, the only package that imports it."""

from ctdeface_shared.broker.rabbitmq.broker import RabbitBroker
from ctdeface_shared.broker.rabbitmq.inspection import check

__all__ = ["RabbitBroker", "check"]
