"""Check whether a service can work here: folders, file systems, queue, clock, disk space, installation, cores.

Nothing is changed. Each line says ok, warning or problem, and what to do.
"""

import argparse

from ctdeface_shared.commands.arguments import add_place

EXAMPLES = """\
examples:
  ctdeface doctor --spool /srv/ctdeface                       before the first start, and when something is odd
  ctdeface doctor --broker amqps://queue.example --json       the same for a program
"""

EXIT_PROBLEM = 78


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(namespace: argparse.Namespace) -> int:
    """Print what was found; 78 when there is a problem.

    Raises:
        ConfigurationError: the settings are not valid.
    """
    import json
    from dataclasses import asdict

    from rich.console import Console

    from ctdeface_shared.console import printable
    from ctdeface_shared.doctor.finding import Grade
    from ctdeface_shared.doctor.machine import diagnose_machine, diagnose_queue
    from ctdeface_shared.doctor.storage import diagnose_spool
    from ctdeface_shared.settings.service import find_service

    service = find_service(namespace.config, namespace.spool, namespace.broker)
    found = [*diagnose_spool(service), *diagnose_queue(service), *diagnose_machine(service)]
    problems = sum(one.grade is Grade.PROBLEM for one in found)
    console = Console(soft_wrap=True, markup=False, highlight=False)
    if namespace.json:
        console.print(
            json.dumps({"healthy": not problems, "findings": [asdict(one) for one in found]})
        )
    else:
        for one in found:
            console.print(printable(f"{one.grade:<8} {one.about:<8} {one.said}"))
    return EXIT_PROBLEM if problems else 0
