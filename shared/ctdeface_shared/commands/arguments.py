"""Options that several commands share."""

import argparse
from pathlib import Path


def add_place(parser: argparse.ArgumentParser) -> None:
    """Declare `--spool` and `--broker`."""
    parser.add_argument(
        "--spool",
        type=Path,
        metavar="DIR",
        help="folder that holds inbox, outbox and the others (default: spool.root)",
    )
    parser.add_argument(
        "--broker", metavar="URL", help="amqp://, amqps:// or sqlite:///path (default: broker.url)"
    )


def add_lifetime(parser: argparse.ArgumentParser) -> None:
    """Declare `--with-parent`."""
    parser.add_argument(
        "--with-parent",
        action="store_true",
        help="stop when standard input closes, as it does when the parent process ends",
    )


def add_metrics_port(parser: argparse.ArgumentParser, key: str) -> None:
    """Declare `--metrics-port`.

    Args:
        parser: the command's parser.
        key: setting that holds the default.
    """
    text = f"port for /metrics, /healthz and /readyz; 0 turns them off (default: {key})"
    parser.add_argument("--metrics-port", type=_port, metavar="PORT", help=text)


def positive(text: str) -> int:
    """Parse a whole number from 1 up.

    Raises:
        argparse.ArgumentTypeError: the number is less than 1.
    """
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is too small: at least 1 is required")
    return number


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port: give a number from 0 to 65535")
    return number
