"""Check folders, file systems, queue, clock, disk space, ports, installation and cores.

Nothing is changed. Each line says ok, warning or problem, and what to do.
"""

import argparse

from ctdeface_shared.commands.arguments import add_place
from ctdeface_shared.exit_codes import COMMON_EXIT_CODES, EXIT_CONFIGURATION, EXIT_OK

EXAMPLES = """\
examples:
  ctdeface doctor --spool /srv/ctdeface                     before the first start, or when in doubt
  ctdeface doctor --broker amqps://queue.example --json     the same for a program
"""
EXIT_CODES = {
    **COMMON_EXIT_CODES,
    EXIT_OK: "no problem was found; there may be warnings",
    EXIT_CONFIGURATION: "a problem was found, or a setting is not valid",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(namespace: argparse.Namespace) -> int:
    """Print every finding and return the exit code.

    Raises:
        ConfigurationError: the settings are not valid.
    """
    from ctdeface_shared.console import print_json, print_line
    from ctdeface_shared.doctor.finding import Grade
    from ctdeface_shared.doctor.machine import machine_findings
    from ctdeface_shared.doctor.queue import queue_findings
    from ctdeface_shared.doctor.storage import storage_findings
    from ctdeface_shared.settings.service import find_service

    service = find_service(namespace.config, namespace.spool, namespace.broker)
    found = [*storage_findings(service), *queue_findings(service), *machine_findings(service)]
    healthy = all(one.grade is not Grade.PROBLEM for one in found)
    if namespace.json:
        print_json({"healthy": healthy, "findings": [one.as_plain() for one in found]})
    else:
        for one in found:
            print_line(f"{one.grade:<8} {one.about:<8} {one.text}", indent=18)
    return EXIT_OK if healthy else EXIT_CONFIGURATION
