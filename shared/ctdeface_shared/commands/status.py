"""Show where the cases are: waiting, in flight, released and refused with their reasons; also queue, watcher and free disk.

Nothing is changed. A queue that cannot be reached is a line of the answer, not a failure. Cases are
shown by name, as in the spool.
"""

import argparse

from ctdeface_shared.commands.arguments import add_place, positive
from ctdeface_shared.exit_codes import COMMON_EXIT_CODES, EXIT_OK

EXAMPLES = """\
examples:
  ctdeface status --spool /srv/ctdeface             where everything stands
  ctdeface status --spool /srv/ctdeface --json      the same for a program
  watch -n 10 ctdeface status --limit 20            again and again
"""
EXIT_CODES = {
    **COMMON_EXIT_CODES,
    EXIT_OK: "the status was shown",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--limit",
        type=positive,
        default=10,
        metavar="N",
        help="show so many refused cases, newest first (default: 10)",
    )


def run(namespace: argparse.Namespace) -> int:
    """Print how the service stands.

    Raises:
        ConfigurationError: there is no such spool, or it cannot be read.
    """
    import json
    from time import time

    from rich.console import Console

    from ctdeface_shared.console import printable
    from ctdeface_shared.errors import ConfigurationError
    from ctdeface_shared.settings.service import find_service
    from ctdeface_shared.status.service_status import describe, take_overview

    service = find_service(namespace.config, namespace.spool, namespace.broker)
    if not service.spool.reports.is_dir():
        raise ConfigurationError(
            f"there is no service at {service.spool.reports.parent}: give its folder with --spool"
        )
    try:
        seen = take_overview(service, time())
    except OSError as error:
        raise ConfigurationError(
            f"{error.filename or service.spool.reports.parent} cannot be read: {error.strerror}"
        ) from error
    console = Console(soft_wrap=True, markup=False, highlight=False)
    if namespace.json:
        console.print(json.dumps(seen.as_plain()))
    else:
        for line in describe(seen, namespace.limit):
            console.print(printable(line))
    return 0
