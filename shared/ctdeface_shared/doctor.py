"""Check whether a service can work here: folders, file systems, queue, clock, disk space, installation, cores.

Nothing is changed. Each line says ok, warning or problem, and what to do.
"""

import argparse

from ctdeface_shared.place import add_place

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
    import json  # noqa: PLC0415  `ctdeface doctor --help` needs none of this
    from dataclasses import asdict  # noqa: PLC0415  as above

    from rich.console import Console  # noqa: PLC0415  as above

    from ctdeface_shared.diagnosis import Grade  # noqa: PLC0415  as above
    from ctdeface_shared.machine_diagnosis import diagnose_machine, diagnose_queue  # noqa: PLC0415  as above
    from ctdeface_shared.site import find_site  # noqa: PLC0415  as above
    from ctdeface_shared.spool_diagnosis import diagnose_spool  # noqa: PLC0415  as above
    from ctdeface_shared.terminal import spelled  # noqa: PLC0415  as above

    site = find_site(namespace.config, namespace.spool, namespace.broker)
    found = [*diagnose_spool(site), *diagnose_queue(site), *diagnose_machine(site)]
    problems = sum(one.grade is Grade.PROBLEM for one in found)
    console = Console(soft_wrap=True, markup=False, highlight=False)
    if namespace.json:
        console.print(json.dumps({"healthy": not problems, "findings": [asdict(one) for one in found]}))
    else:
        for one in found:
            console.print(spelled(f"{one.grade:<8} {one.about:<8} {one.said}"))
    return EXIT_PROBLEM if problems else 0
