"""Measure jobs per second through each queue, with one process each way.

    python -m tests.benchmarks.brokers [--jobs 500] [--rabbitmq URL]

Without a URL a RabbitMQ server of our own is started, if one is installed. Everything lies in a
temporary folder.
"""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

from ctdeface_shared.broker import open_broker
from ctdeface_shared.broker.protocols import Broker
from ctdeface_shared.broker.settlement import Ack
from ctdeface_shared.broker.target import BrokerTarget, url_of
from ctdeface_shared.jobs.manifest import Manifest, job_id
from ctdeface_shared.jobs.messages import DefaceJob
from ctdeface_shared.jobs.options import DefaceOptions
from tests.integration.rabbitmq_node import running_node, server_binary


def jobs(count: int) -> list[DefaceJob]:
    """Jobs about cases that do not exist."""
    manifest, options = Manifest(files=200, bytes=10**8, digest="0" * 64), DefaceOptions()
    names = [f"case-{number:05}" for number in range(count)]
    return [
        DefaceJob(
            job_id=job_id(name, manifest, options),
            case=name,
            manifest=manifest,
            submitted_at=datetime.now(UTC),
            options=options,
        )
        for name in names
    ]


def rates(broker: Broker, count: int) -> tuple[float, float]:
    """Jobs per second published, and received and acknowledged."""
    wanted = jobs(count)
    start = perf_counter()
    for each in wanted:
        broker.publish(each)
    published = perf_counter()
    for _ in wanted:
        delivery = broker.receive(10)
        if delivery is None or not broker.settle(delivery, Ack()):
            raise RuntimeError("the queue did not deliver what it confirmed")
    return count / (published - start), count / (perf_counter() - published)


def main() -> int:
    """Print one line per queue."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--rabbitmq", metavar="URL")
    chosen = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = {"sqlite": url_of(folder / "queue.sqlite3")}
        if chosen.rabbitmq or server_binary():
            urls["rabbitmq"] = (
                chosen.rabbitmq or stack.enter_context(running_node(folder / "node")).url
            )
        for name, url in urls.items():
            broker = open_broker(BrokerTarget(url=url))
            published, settled = rates(broker, chosen.jobs)
            broker.close()
            print(
                f"{name:9} {published:8.0f} jobs/s published  "
                f" {settled:8.0f} jobs/s received and acknowledged"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
