"""Show where the cases are: waiting, in flight, released and refused with their reasons; also queue, watcher and free disk.

Nothing is changed. A queue that cannot be reached is a line of the answer, not a failure. Cases are shown by name, as in the spool.
"""

import argparse

from ctdeface_shared.place import add_place, positive

EXAMPLES = """\
examples:
  ctdeface status --spool /srv/ctdeface             where everything stands
  ctdeface status --spool /srv/ctdeface --json      the same for a program
  watch -n 10 ctdeface status --limit 20            again and again
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--limit", type=positive, default=10, metavar="N", help="show so many refused cases, newest first (default: 10)")


def run(namespace: argparse.Namespace) -> int:
    """Print how the service stands.

    Raises:
        ConfigurationError: there is no such spool, or it cannot be read.
    """
    import json  # noqa: PLC0415  `ctdeface status --help` needs none of this
    from time import time  # noqa: PLC0415  as above

    from rich.console import Console  # noqa: PLC0415  as above

    from ctdeface_shared.errors import ConfigurationError  # noqa: PLC0415  as above
    from ctdeface_shared.overview import describe, take_overview  # noqa: PLC0415  as above
    from ctdeface_shared.site import find_site  # noqa: PLC0415  as above
    from ctdeface_shared.terminal import spelled  # noqa: PLC0415  as above

    site = find_site(namespace.config, namespace.spool, namespace.broker)
    if not site.spool.reports.is_dir():
        message = f"there is no service at {site.spool.reports.parent}: give its folder with --spool"
        raise ConfigurationError(message)
    try:
        seen = take_overview(site, time())
    except OSError as error:
        message = f"{error.filename or site.spool.reports.parent} cannot be read: {error.strerror}"
        raise ConfigurationError(message) from error
    console = Console(soft_wrap=True, markup=False, highlight=False)
    if namespace.json:
        console.print(json.dumps(seen.as_plain()))
    else:
        for line in describe(seen, namespace.limit):
            console.print(spelled(line))
    return 0
