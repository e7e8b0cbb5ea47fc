"""Prepare or inspect the queue.

`init` creates what is missing. `check` only reports what is missing, different or cannot be seen.
"""

import argparse
from pathlib import Path

from ctdeface_shared.exit_codes import (
    COMMON_EXIT_CODES,
    EXIT_CONFIGURATION,
    EXIT_OK,
    EXIT_REFUSED,
)

EXAMPLES = """\
examples:
  ctdeface broker init                  declare exchanges and queues, or create the embedded queue
  ctdeface broker check                 report what is missing or different, without a change
  ctdeface broker check --url amqps://queue.example.org/ct
"""
EXIT_CODES = {
    **COMMON_EXIT_CODES,
    EXIT_OK: "the queue is ready",
    EXIT_REFUSED: "the queue cannot be reached",
    EXIT_CONFIGURATION: "a part of the queue is missing or different, or a setting is not valid",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "action",
        choices=["init", "check"],
        help="init creates what is missing; check changes nothing",
    )
    parser.add_argument("--url", metavar="URL", help="the queue (default: broker.url)")
    parser.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="folder of the embedded queue (default: spool.state_dir)",
    )


def run(namespace: argparse.Namespace) -> int:
    """Print every finding on a line and return the exit code.

    Raises:
        ConfigurationError: settings, credentials or the queue's file cannot be used.
        BrokerUnavailable: the server cannot be reached.
    """
    from dataclasses import replace

    from ctdeface_shared.broker.target import masked, split
    from ctdeface_shared.console import print_line
    from ctdeface_shared.settings.loading import load

    settings = load(namespace.config).settings
    target = settings.broker.target(
        namespace.state_dir or settings.spool.state_dir or settings.spool.root / "state"
    )
    target = replace(target, url=namespace.url) if namespace.url else target
    if split(target.url).scheme == "sqlite":
        from ctdeface_shared.broker.sqlite import check
    else:
        from ctdeface_shared.broker.rabbitmq import check
    findings = check(target, create=namespace.action == "init")
    print_line(f"{findings.server} at {masked(target.url)}")
    for grade, lines in (
        ("ok", findings.present),
        ("wrong", findings.wrong),
        ("not seen", findings.not_seen),
    ):
        for line in lines:
            print_line(f"  {grade:<9} {line}", indent=12)
    return EXIT_CONFIGURATION if findings.wrong else EXIT_OK
