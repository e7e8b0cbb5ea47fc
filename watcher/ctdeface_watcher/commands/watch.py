"""Watch the inbox and publish a job for each complete case.

Run one watcher per inbox. It unpacks zip files and combines late files with their case. Workers
archive or delete the originals when a case has ended.
"""

import argparse

from ctdeface_shared.commands.arguments import add_lifetime, add_metrics_port, add_place
from ctdeface_shared.exit_codes import EXIT_OK, EXIT_REFUSED, USAGE_EXIT_CODES

EXAMPLES = """\
examples:
  ctdeface watch --spool /srv/ctdeface                  drop folders into /srv/ctdeface/inbox
  ctdeface watch --broker amqp://queue.example          workers on other machines take the jobs
"""
EXIT_CODES = {
    **USAGE_EXIT_CODES,
    EXIT_OK: "stopped by Ctrl-C or SIGTERM",
    EXIT_REFUSED: "queue or storage failed at the start",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; the other settings are in the table [watch]."""
    add_place(parser)
    add_lifetime(parser)
    add_metrics_port(parser, "metrics.watch_port")


def run(namespace: argparse.Namespace) -> int:
    """Watch until stopped."""
    from ctdeface_shared.lifecycle import stop_with_parent
    from ctdeface_shared.settings.service import find_service
    from ctdeface_watcher.process import run_watcher

    if namespace.with_parent:
        stop_with_parent()
    return run_watcher(
        find_service(namespace.config, namespace.spool, namespace.broker), namespace.metrics_port
    )
