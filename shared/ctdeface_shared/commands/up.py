"""Run the whole service on this machine: one watcher and several workers.

Drop folders of DICOM files into the spool's inbox. Defaced cases appear in its outbox, refused ones
in its quarantine. The queue is a file in the state folder unless another one is set, so nothing has
to be installed. A process that dies is restarted. Ctrl-C or SIGTERM stops everything: running cases
finish within the grace period or go back to the queue.
"""

import argparse

from ctdeface_shared.commands.arguments import add_place, positive
from ctdeface_shared.exit_codes import EXIT_OK, EXIT_REFUSED, USAGE_EXIT_CODES

EXAMPLES = """\
examples:
  ctdeface up --spool /srv/ctdeface --workers 4         drop folders into /srv/ctdeface/inbox
  ctdeface up --spool /srv/ctdeface --once              deface what is in the inbox, then end
  ctdeface up --broker amqp://queue.example             share the queue with other machines
"""
EXIT_CODES = {
    **USAGE_EXIT_CODES,
    EXIT_OK: "stopped by Ctrl-C or SIGTERM; with --once: every case is released",
    EXIT_REFUSED: "with --once: at least one case was refused (its report says why)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; everything else is a setting."""
    add_place(parser)
    parser.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="worker processes with one case each (default: work.jobs)",
    )
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="M",
        help="threads per case (default: an equal share of the cores)",
    )
    parser.add_argument(
        "--once", action="store_true", help="end when nothing is left to do in the inbox"
    )


def run(namespace: argparse.Namespace) -> int:
    """Run until stopped, or until the inbox is done."""
    from ctdeface_shared.local_service.run import LocalService, run_local_service
    from ctdeface_shared.settings.service import find_service

    return run_local_service(
        LocalService(
            service=find_service(namespace.config, namespace.spool, namespace.broker),
            config=namespace.config,
            workers=namespace.workers,
            threads=namespace.threads,
            once=namespace.once,
        )
    )
