"""Run the whole service on this machine: one watcher and a few workers, each a process that is started again when it dies.

Drop folders of DICOM files into the spool's inbox; defaced cases appear in its outbox, refused ones
in its quarantine. The queue is a file in the state folder unless another one is named, so there is
nothing to install. Ctrl-C or SIGTERM ends everything: cases at hand are finished within the grace
period or go back into the queue.
"""

import argparse

from ctdeface_shared.commands.arguments import add_place, positive
from ctdeface_shared.exit_codes import EXIT_OK, EXIT_REFUSED, USAGE_EXIT_CODES

EXAMPLES = """\
examples:
  ctdeface up --spool /srv/ctdeface --workers 4         drop folders into /srv/ctdeface/inbox
  ctdeface up --spool /srv/ctdeface --once              deface what lies in the inbox, then end (exit 1 when a case was refused)
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
        help="worker processes, one case each at a time (default: work.jobs)",
    )
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="M",
        help="threads per case (default: the cores shared among the workers)",
    )
    parser.add_argument(
        "--once", action="store_true", help="end when nothing is left to do in the inbox"
    )


def run(namespace: argparse.Namespace) -> int:
    """Run until stopped, or until the inbox is done."""
    from ctdeface_shared.local_service.run import LocalService, run_local_service
    from ctdeface_shared.settings.service import find_service

    service = find_service(namespace.config, namespace.spool, namespace.broker)
    local_service = LocalService(
        service=service,
        config=namespace.config,
        workers=namespace.workers,
        threads=namespace.threads,
        once=namespace.once,
    )
    return run_local_service(local_service)
