"""What the service costs beside the pipeline, on this machine and with stand-ins for it.

    python -m tests.benchmarks.service [--drops 10] [--jobs 500] [--cases 24] [--rounds 2000000]
    [--rabbitmq URL]

Prints how long after the quiet period a dropped case is in the queue, how many jobs per second each
queue takes and gives, and how much faster two workers are than one at cases that cost nothing but
arithmetic. Everything lies in a temporary folder; without a URL a RabbitMQ server of our own is
started, if one is installed.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from ctdeface_shared.broker import open_broker
from ctdeface_shared.broker.target import BrokerTarget, url_of
from tests.benchmarks.brokers import rates
from tests.integration.rabbitmq_node import running_node, server_binary
from tests.support.service.local_service import LocalService, configured_service
from tests.support.service.spools import drop, ends, job_for

QUIET_SECONDS = 1.0
CTDEFACE = Path(sys.executable).with_name("ctdeface")


@contextmanager
def watching(folder: Path, mode: str) -> Iterator[LocalService]:
    """A real watcher over a fresh spool with the embedded queue; no worker is started."""
    settings = {"mode": mode, "quiet_period": QUIET_SECONDS, "rescan_interval": QUIET_SECONDS}
    local_service = LocalService(
        folder=folder, service=configured_service(folder, None, watch=settings)
    )
    local_service.service.prepare()
    command = [str(CTDEFACE), "watch", "--config", str(folder / "ctdeface.toml")]
    with (
        (folder / "watcher.log").open("wb") as log,
        subprocess.Popen(command, stderr=log) as watcher,
    ):
        try:
            yield local_service
        finally:
            watcher.terminate()


def latencies(folder: Path, mode: str, drops: int) -> list[float]:
    """Measure the seconds from the quiet period of a case to its job in the queue."""
    found = []
    with (
        watching(folder, mode) as local_service,
        closing(open_broker(local_service.service.queue)) as broker,
    ):
        for number in range(drops + 1):
            made = drop(local_service.spool, "beside/case").rename(
                local_service.spool.work / "case"
            )
            made.rename(local_service.spool.inbox / f"case {number}")
            (local_service.spool.inbox / "beside").rmdir()
            settled = time.monotonic() + QUIET_SECONDS
            while broker.depth().ready <= number:
                time.sleep(0.002)
            found.append(time.monotonic() - settled)
    return found[1:]


def seconds_for(folder: Path, workers: int, cases: int, rounds: int) -> float:
    """Seconds that so many workers take for the cases, each worker having worked before."""
    local_service = LocalService(folder=folder, service=configured_service(folder, None))
    local_service.service.prepare()
    try:
        local_service.start("--processes", str(workers))
        work_off(local_service, [f"first {number}" for number in range(3 * workers)], rounds)
        return work_off(local_service, [f"then {number}" for number in range(cases)], rounds)
    finally:
        local_service.stop()


def work_off(local_service: LocalService, cases: list[str], rounds: int) -> float:
    """Drop cases, publish their jobs, and return the seconds until all are released."""
    for case in cases:
        drop(local_service.spool, case, f"busy {rounds}")
    jobs = [job_for(local_service.spool, case) for case in cases]
    begun = time.monotonic()
    local_service.publish(*jobs)
    local_service.until(lambda: not ends(local_service.spool).taken)
    return time.monotonic() - begun


def main() -> int:
    """Print one line per figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--drops", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=2_000_000)
    parser.add_argument("--rabbitmq", metavar="URL")
    chosen = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for mode in ("inotify", "polling"):
            found = latencies(folder / mode, mode, chosen.drops)
            print(
                f"latency {mode:9} {statistics.median(found):6.2f} s median"
                f" {max(found):6.2f} s longest, after {QUIET_SECONDS:g} s of quiet"
            )
        urls = {"sqlite": url_of(folder / "queue.sqlite3")}
        if chosen.rabbitmq or server_binary():
            urls["rabbitmq"] = (
                chosen.rabbitmq or stack.enter_context(running_node(folder / "node")).url
            )
        for name, url in urls.items():
            with closing(open_broker(BrokerTarget(url=url))) as broker:
                published, settled = rates(broker, chosen.jobs)
            print(
                f"queue {name:9} {published:8.0f} jobs/s published"
                f" {settled:8.0f} jobs/s received and acknowledged"
            )
        one, two = (
            seconds_for(folder / f"{workers} workers", workers, chosen.cases, chosen.rounds)
            for workers in (1, 2)
        )
        alone, both = chosen.cases / one, chosen.cases / two
        print(
            f"scaling {alone:6.2f} cases/s with 1 worker {both:6.2f} cases/s with 2 workers:"
            f" {both / alone:.2f} times as fast"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
