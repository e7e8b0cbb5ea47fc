"""The `ctdeface` command: finds its sub-commands by name and loads only the one that is asked for.

A sub-command is a module with `add_arguments(parser)` and `run(namespace) -> int`; its docstring is
the help text, and an `EXAMPLES` string, where it has one, stands below the options.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from ctdeface_shared.errors import ConfigurationError, CtDefaceError
from ctdeface_shared.exit_codes import EXIT_CONFIGURATION, EXIT_INTERRUPTED, EXIT_OK, EXIT_REFUSED

EXIT_CODES = """\
exit codes:
  0    everything asked for was done; every case is released
  1    at least one case was refused (its report says why), or something failed
  2    the command line was not understood
  78   a setting, a folder or the installation must be put right first
  130  stopped by Ctrl-C
"""

EXAMPLES = """\
examples:
  ctdeface demo                          try it on a synthetic head made on the spot
  ctdeface deface -i scans -o defaced    deface every case (first-level folder) below scans
  ctdeface up --spool spool              watch spool/inbox and deface whatever is dropped there
  ctdeface deface --help                 all options of one command
  ctdeface config                        the settings in effect and where each came from

ctdeface does not anonymize headers: never send its output to an archive that holds the originals.
"""


@dataclass(frozen=True, slots=True)
class Command:
    """Where a sub-command lives and which extra it needs."""

    summary: str
    module: str
    extra: str | None = None


COMMANDS: Mapping[str, Command] = {
    "deface": Command(
        "remove the faces from a folder of cases", "ctdeface_worker.commands.deface", "worker"
    ),
    "demo": Command(
        "make a synthetic head CT case and deface it", "ctdeface_worker.commands.demo", "worker"
    ),
    "train": Command(
        "train the network that finds faces", "ctdeface_worker.commands.train", "worker"
    ),
    "model": Command(
        "list, install and check the networks that find faces",
        "ctdeface_worker.commands.model",
        "worker",
    ),
    "evaluate": Command(
        "measure what segmenters make of heads, real and synthetic",
        "ctdeface_worker.commands.evaluate",
        "worker",
    ),
    "broker": Command("prepare or inspect the queue", "ctdeface_shared.commands.broker", "watcher"),
    "up": Command(
        "run watcher and workers on this machine", "ctdeface_shared.commands.up", "watcher,worker"
    ),
    "watch": Command(
        "see new cases in the inbox and queue them", "ctdeface_watcher.commands.watch", "watcher"
    ),
    "work": Command(
        "take jobs from the queue and deface their cases", "ctdeface_worker.commands.work", "worker"
    ),
    "status": Command(
        "show where the cases are, what is refused and why", "ctdeface_shared.commands.status"
    ),
    "replay": Command(
        "do refused, released or lost cases again, with other options",
        "ctdeface_shared.commands.replay",
    ),
    "audit": Command(
        "check that reports and released cases are what was entered when they ended",
        "ctdeface_shared.commands.audit",
        "audit",
    ),
    "doctor": Command(
        "check folders, queue, clock, disk and installation", "ctdeface_shared.commands.doctor"
    ),
    "config": Command(
        "show the settings in effect and where each came from", "ctdeface_shared.commands.config"
    ),
}


class CommandModule(Protocol):
    """What the module of a sub-command offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options of the command."""

    def run(self, namespace: argparse.Namespace) -> int:
        """Do the work and return the exit code."""


class ShowVersion(argparse.Action):
    """Look the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print name and version and exit."""
        from importlib import metadata

        parser.exit(EXIT_OK, f"ctdeface {metadata.version('ctdeface')}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `ctdeface` and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] not in COMMANDS:
        overview().parse_args(given or ["--help"])
    name, command = given[0], COMMANDS[given[0]]
    try:
        module = cast("CommandModule", import_module(command.module))
        return module.run(parser_of(name, module).parse_args(given[1:]))
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith("ctdeface"):
            raise
        return complain(
            f"{name} needs {error.name}, which is not installed: pip install {wanted(command)}",
            EXIT_CONFIGURATION,
        )
    except ConfigurationError as error:
        return complain(str(error), EXIT_CONFIGURATION)
    except CtDefaceError as error:
        return complain(str(error), EXIT_REFUSED)
    except PermissionError as error:
        return complain(
            f"{error.filename or name}: this user may not do that; run it as the user of the service",
            EXIT_CONFIGURATION,
        )
    except KeyboardInterrupt:
        return complain("stopped", EXIT_INTERRUPTED)


def overview() -> argparse.ArgumentParser:
    """Build the parser that knows the commands by name only, for help, version and typing errors."""
    parser = argparse.ArgumentParser(
        prog="ctdeface",
        description="Removes faces from head CT scans and gives back DICOM that is otherwise the same.",
        epilog=f"{EXAMPLES}\n{EXIT_CODES}",
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
        epilog=f"{examples}\n{EXIT_CODES}".lstrip(),
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


def wanted(command: Command) -> str:
    """What to give to `pip install` for a command."""
    return f"'ctdeface[{command.extra}]'" if command.extra else "ctdeface"


def complain(message: str, code: int) -> int:
    """Tell a person in one line on standard error what is wrong, and return the exit code."""
    print(f"ctdeface: {message}", file=sys.stderr)
    return code
