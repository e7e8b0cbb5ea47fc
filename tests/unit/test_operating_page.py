"""The commands on the page for operators are commands."""

import re
import shlex
from pathlib import Path

import pytest

from ctdeface_shared.commands.main import command_module, parser_of

PAGE = (Path(__file__).parents[2] / "docs/run/operating.md").read_text(encoding="utf-8")
LINES = re.findall(r"^    ctdeface (.*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("line", LINES)
def test_every_command_of_the_operators_page_is_understood(line: str) -> None:
    """Its options exist and take what is given."""
    name, *arguments = shlex.split(line)
    assert vars(parser_of(name, command_module(name)).parse_args(arguments))


def test_the_operators_page_shows_every_command_and_each_of_their_options() -> None:
    """Nothing that an operator can give is missing from it."""
    shown = {line.split()[0] for line in LINES}
    assert shown == {"status", "replay", "doctor"}
    for name in shown:
        parser = parser_of(name, command_module(name))
        options = {
            flag
            for flag in re.findall(r"--[a-z-]+", parser.format_usage())
            if flag not in {"--help", "--config"}
        }
        assert not [flag for flag in options if flag not in PAGE]
