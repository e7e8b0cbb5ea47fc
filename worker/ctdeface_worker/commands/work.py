"""Take jobs from the queue and deface their cases until stopped.

Released cases go to the outbox. Every case runs in a warm child process, so that a crash, a hang or
a lack of memory costs one attempt and nothing else. On SIGTERM or Ctrl-C the worker finishes its
case within the grace period or hands it back; a second signal ends it immediately, and nothing is
lost.
"""

import argparse

from ctdeface_shared.commands.arguments import add_lifetime, add_metrics_port, add_place, positive
from ctdeface_shared.exit_codes import EXIT_OK, EXIT_REFUSED, USAGE_EXIT_CODES

EXAMPLES = """\
examples:
  ctdeface work --spool /srv/ctdeface                        queue embedded in the state folder
  ctdeface work --broker amqp://queue.example --processes 4  RabbitMQ; the same on every machine
"""
EXIT_CODES = {
    **USAGE_EXIT_CODES,
    EXIT_OK: "stopped by Ctrl-C or SIGTERM",
    EXIT_REFUSED: "queue or storage failed at the start",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options; their defaults come from the settings."""
    add_place(parser)
    parser.add_argument(
        "--processes",
        type=positive,
        metavar="N",
        help="number of cases at the same time (default: work.jobs)",
    )
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="M",
        help="threads per case (default: the cores shared among the processes)",
    )
    add_lifetime(parser)
    add_metrics_port(parser, "metrics.work_port")


def run(namespace: argparse.Namespace) -> int:
    """Work until stopped."""
    from ctdeface_shared.lifecycle import stop_with_parent
    from ctdeface_shared.settings.service import find_service
    from ctdeface_worker.service.process import run_workers

    if namespace.with_parent:
        stop_with_parent()
    service = find_service(namespace.config, namespace.spool, namespace.broker)
    return run_workers(
        service, namespace.processes, namespace.threads, metrics_port=namespace.metrics_port
    )
