"""Text that commands print for a person or a program."""

import json
import shutil
import sys
import textwrap
from typing import Any


def printable(text: str) -> str:
    """Escape control characters and undecodable bytes for a terminal."""
    escaped = text.encode("utf-8", "backslashreplace").decode()
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in escaped
    )


def print_line(text: str, indent: int = 0) -> None:
    """Print one line; a terminal gets it wrapped between words.

    Args:
        text: the line; names in it are made printable.
        indent: columns by which continuation lines are indented on a terminal.
    """
    line = printable(text)
    if sys.stdout.isatty():
        line = wrapped(line, indent, shutil.get_terminal_size().columns)
    sys.stdout.write(f"{line}\n")


def wrapped(line: str, indent: int, columns: int) -> str:
    """Wrap a line between words; a word that is too long stays whole."""
    return textwrap.fill(
        line,
        columns,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def print_json(content: Any) -> None:
    """Print one JSON document on one line."""
    sys.stdout.write(f"{json.dumps(content)}\n")
