"""The options by which every command of the service says which service is meant; light, because `--help` loads it."""

import argparse
from pathlib import Path


def add_place(parser: argparse.ArgumentParser) -> None:
    """Declare `--spool` and `--broker`."""
    parser.add_argument(
        "--spool",
        type=Path,
        metavar="DIR",
        help="folder of inbox, outbox and the rest (default: spool.root)",
    )
    parser.add_argument(
        "--broker", metavar="URL", help="amqp://, amqps:// or sqlite:///path (default: broker.url)"
    )


def add_lifetime(parser: argparse.ArgumentParser) -> None:
    """Declare `--with-parent`."""
    parser.add_argument(
        "--with-parent",
        action="store_true",
        help="stop when standard input ends, as it does when whoever started this ends",
    )


def add_metrics_port(parser: argparse.ArgumentParser, key: str) -> None:
    """Declare `--metrics-port`, whose default is a setting."""
    text = f"serve /metrics, /healthz and /readyz here; 0 not at all (default: {key})"
    parser.add_argument("--metrics-port", type=_port, metavar="PORT", help=text)


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port: 0 to 65535")
    return number


def positive(text: str) -> int:
    """Read a whole number from 1 up.

    Raises:
        argparse.ArgumentTypeError: it is less.
    """
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number
