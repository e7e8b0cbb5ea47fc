"""Prepares or inspects the queue: declares what is missing, and says what is wrong and what it could not see."""

import argparse
from pathlib import Path

from ctdeface_shared.exit_codes import COMMON_EXIT_CODES, EXIT_CONFIGURATION, EXIT_OK, EXIT_REFUSED

EXAMPLES = """\
examples:
  ctdeface broker init                  declare exchanges and queues, or create the embedded queue
  ctdeface broker check                 say what is missing or different; nothing is changed
  ctdeface broker check --url amqps://queue.example.org/ct
"""
EXIT_CODES = {
    **COMMON_EXIT_CODES,
    EXIT_OK: "the queue is ready",
    EXIT_REFUSED: "the queue cannot be reached",
    EXIT_CONFIGURATION: "something of the queue is missing or different, or a setting is not valid",
}

EXIT_WRONG = 78


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "action", choices=["init", "check"], help="init declares what is missing; check only looks"
    )
    parser.add_argument(
        "--url", metavar="URL", help="the queue (default: broker.url of the settings)"
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="where the embedded queue lies (default: from the settings)",
    )


def run(namespace: argparse.Namespace) -> int:
    """Print what was found, one line each; 78 when something is wrong.

    Raises:
        ConfigurationError: settings, credentials or the queue's file cannot be used.
        BrokerUnavailable: the server cannot be reached.
    """
    from dataclasses import replace

    from rich.console import Console

    from ctdeface_shared.broker.target import masked, split
    from ctdeface_shared.settings.loading import load

    settings = load(namespace.config).settings
    target = settings.broker.target(
        namespace.state_dir or settings.spool.state_dir or settings.spool.root / "state"
    )
    target = replace(target, url=namespace.url) if namespace.url else target
    embedded = split(target.url).scheme == "sqlite"
    if embedded:
        from ctdeface_shared.broker.sqlite import check
    else:
        from ctdeface_shared.broker.rabbitmq import check
    findings = check(target, create=namespace.action == "init")
    console = Console(soft_wrap=True, markup=False, highlight=False)
    console.print(f"{findings.server} at {masked(target.url)}")
    for mark, lines in (
        ("ok       ", findings.present),
        ("wrong    ", findings.wrong),
        ("not seen ", findings.not_seen),
    ):
        for line in lines:
            console.print(f"  {mark} {line}")
    return EXIT_WRONG if findings.wrong else 0
