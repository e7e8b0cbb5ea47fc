"""Look at the inbox, wait until dropped cases are complete, and put a job for each into the queue, until stopped.

Run one per inbox. Zip files are unpacked, and late files put together with their case; workers put
originals away when a case has ended.
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
    """Declare the options; everything else is a setting of the table [watch]."""
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
