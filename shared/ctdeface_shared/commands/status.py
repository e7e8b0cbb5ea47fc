"""Show which cases are waiting, in flight, released and refused, and why.

The state of queue, watcher and disks follows. Nothing is changed. A queue that cannot be reached is
reported, and the command goes on. Cases are shown by name, as in the spool.
"""

import argparse

from ctdeface_shared.commands.arguments import add_place, positive
from ctdeface_shared.exit_codes import COMMON_EXIT_CODES, EXIT_OK

EXAMPLES = """\
examples:
  ctdeface status --spool /srv/ctdeface             the present state
  ctdeface status --spool /srv/ctdeface --json      the same for a program
  watch -n 10 ctdeface status --limit 20            repeated every ten seconds
"""
EXIT_CODES = {**COMMON_EXIT_CODES, EXIT_OK: "the status was shown"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--limit",
        type=positive,
        default=10,
        metavar="N",
        help="show at most N refused cases, newest first (default: 10)",
    )


def run(namespace: argparse.Namespace) -> int:
    """Print the status of the service.

    Raises:
        ConfigurationError: the spool does not exist or cannot be read.
    """
    from time import time

    from ctdeface_shared.console import print_json, print_line
    from ctdeface_shared.errors import ConfigurationError
    from ctdeface_shared.settings.service import find_service
    from ctdeface_shared.status.service_status import service_status, status_lines

    service = find_service(namespace.config, namespace.spool, namespace.broker)
    service.require_spool()
    try:
        status = service_status(service, time())
    except OSError as error:
        raise ConfigurationError(
            f"{error.filename or service.spool.reports.parent} cannot be read: {error.strerror}"
        ) from error
    if namespace.json:
        print_json(status.as_plain())
    else:
        for line in status_lines(status, namespace.limit):
            print_line(line, indent=4 if line.startswith(" ") else 16)
    return EXIT_OK
