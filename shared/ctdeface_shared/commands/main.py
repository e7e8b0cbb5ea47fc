"""The `ctdeface` command: find a sub-command by name and load only that one.

A sub-command is an entry point of the group `ctdeface.commands` in pyproject.toml. It names a
module with `add_arguments(parser)`, `run(namespace) -> int` and `EXIT_CODES`. The docstring of the
module is its help text; an `EXAMPLES` string is shown below the options.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from ctdeface_shared.errors import ConfigurationError, CtDefaceError
from ctdeface_shared.exit_codes import (
    COMMON_EXIT_CODES,
    EXIT_CONFIGURATION,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_REFUSED,
)

ENTRY_POINTS = "ctdeface.commands"
EXIT_CODES = {
    EXIT_OK: "everything asked for was done",
    EXIT_REFUSED: "at least one case was refused (its report says why), or something failed",
    **COMMON_EXIT_CODES,
}

EXAMPLES = """\
examples:
  ctdeface demo                          try it on a synthetic head made on the spot
  ctdeface deface -i scans -o defaced    deface every case (first-level folder) below scans
  ctdeface up --spool spool              watch spool/inbox and deface what is dropped there
  ctdeface deface --help                 all options and exit codes of one command
  ctdeface config                        the settings in effect and where each came from

ctdeface does not anonymize headers: never send its output to an archive that holds the originals.
"""


@dataclass(frozen=True, slots=True)
class Command:
    """One line of `ctdeface --help`, and the extra that the command needs."""

    summary: str
    extra: str | None = None


COMMANDS: Mapping[str, Command] = {
    "deface": Command("remove the faces from a folder of cases", "worker"),
    "demo": Command("make a synthetic head CT case and deface it", "worker"),
    "train": Command("train the network that finds faces", "worker"),
    "model": Command("list, install and check the networks that find faces", "worker"),
    "evaluate": Command("measure segmenters on real and synthetic heads", "worker"),
    "broker": Command("prepare or inspect the queue", "watcher"),
    "up": Command("run watcher and workers on this machine", "watcher,worker"),
    "watch": Command("see new cases in the inbox and queue them", "watcher"),
    "work": Command("take jobs from the queue and deface their cases", "worker"),
    "status": Command("show where the cases are, which were refused and why"),
    "replay": Command("repeat refused, released or lost cases, with other options"),
    "audit": Command("check reports and released cases against the signed audit log", "audit"),
    "doctor": Command("check folders, queue, clock, disk, ports and installation"),
    "config": Command("show the settings in effect and where each came from"),
}
"""Listed here so that `ctdeface --help` needs no look at what is installed."""


class CommandModule(Protocol):
    """The module of a sub-command."""

    EXIT_CODES: Mapping[int, str]

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options of the command."""

    def run(self, namespace: argparse.Namespace) -> int:
        """Do the work and return the exit code."""


class ShowVersion(argparse.Action):
    """Look up and print the version."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print name and version and exit."""
        from importlib import metadata

        parser.exit(EXIT_OK, f"ctdeface {metadata.version('ctdeface')}\n")


def command_module(name: str) -> CommandModule:
    """Load the module of a sub-command through its entry point.

    Raises:
        ConfigurationError: the installation is older than the sources, or there is none.
        ModuleNotFoundError: a library that the command needs is not installed.
    """
    from importlib import metadata

    for entry in metadata.entry_points(group=ENTRY_POINTS, name=name):
        return cast("CommandModule", entry.load())
    raise ConfigurationError(
        f"the command {name} is not registered in this environment: install ctdeface with pip"
    )


def main(
    arguments: Sequence[str] | None = None,
    load: Callable[[str], CommandModule] = command_module,
) -> int:
    """Run `ctdeface` and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] not in COMMANDS:
        overview().parse_args(given or ["--help"])
    name = given[0]
    try:
        module = load(name)
        return module.run(parser_of(name, module).parse_args(given[1:]))
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith("ctdeface"):
            raise
        return complain(
            f"{name} needs {error.name}, which is not installed: pip install {package_of(name)}",
            EXIT_CONFIGURATION,
        )
    except ConfigurationError as error:
        return complain(str(error), EXIT_CONFIGURATION)
    except CtDefaceError as error:
        return complain(str(error), EXIT_REFUSED)
    except PermissionError as error:
        return complain(
            f"{error.filename or name}: permission denied; run this as the user of the service",
            EXIT_CONFIGURATION,
        )
    except KeyboardInterrupt:
        return complain("stopped", EXIT_INTERRUPTED)


def overview() -> argparse.ArgumentParser:
    """Build the parser that knows only the names of the commands."""
    parser = argparse.ArgumentParser(
        prog="ctdeface",
        description="Remove faces from head CT scans and keep everything else of the DICOM files.",
        epilog=f"{EXAMPLES}\n{exit_code_help(EXIT_CODES)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.summary)
    return parser


def parser_of(name: str, module: CommandModule) -> argparse.ArgumentParser:
    """Build the parser of one command from its module."""
    examples = getattr(module, "EXAMPLES", "")
    parser = argparse.ArgumentParser(
        prog=f"ctdeface {name}",
        description=module.__doc__,
        epilog=f"{examples}\n{exit_code_help(module.EXIT_CODES)}".lstrip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="settings file (default: CTDEFACE_CONFIG, else ./ctdeface.toml)",
    )
    module.add_arguments(parser)
    return parser


def exit_code_help(codes: Mapping[int, str]) -> str:
    """Return the block of a help text that explains exit codes."""
    return "exit codes:\n" + "".join(
        f"  {code:<4} {meaning}\n" for code, meaning in sorted(codes.items())
    )


def package_of(name: str) -> str:
    """Return the argument of `pip install` that brings what a command needs."""
    extra = COMMANDS[name].extra
    return f"'ctdeface[{extra}]'" if extra else "ctdeface"


def complain(message: str, code: int) -> int:
    """Print one line on standard error and return the exit code."""
    print(f"ctdeface: {message}", file=sys.stderr)
    return code
