"""The page of commands, made from their parsers."""

import argparse
from collections.abc import Iterator, Mapping
from typing import cast

from ctdeface_shared.commands.main import COMMANDS, command_module, overview, parser_of


def pages() -> Mapping[str, str]:
    """Every generated page by its place in the site."""
    return {"reference/commands.md": commands()}


def commands() -> str:
    """Every command with what its `--help` shows."""
    parts = [
        "# Commands",
        "Made from the parsers of the program.",
        _block(overview().format_help()),
    ]
    for name, command in COMMANDS.items():
        parser = parser_of(name, command_module(name))
        parts += [f"## {name}", f"{command.summary.capitalize()}.", _block(parser.format_help())]
        for below, inner in _subparsers(parser):
            parts += [f"### {name} {below}", _block(inner.format_help())]
    return "\n\n".join(parts) + "\n"


def _subparsers(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:  # noqa: SLF001  argparse has no public list
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001  nor a public class
            yield from cast("Mapping[str, argparse.ArgumentParser]", action.choices).items()


def _block(text: str) -> str:
    return f"```text\n{text.strip()}\n```"
