"""The command starts fast and loads only what it needs."""

import json
import os
import subprocess
import sys
import tomllib
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

import pytest

from ctdeface_shared.commands.main import (
    COMMANDS,
    ENTRY_POINTS,
    command_module,
    exit_code_help,
)
from ctdeface_shared.exit_codes import EXIT_INTERRUPTED
from tests.architecture.sources import ROOT

CTDEFACE = Path(sys.executable).with_name("ctdeface")
HEAVY = {
    "numpy",
    "scipy",
    "torch",
    "nnunetv2",
    "pydicom",
    "SimpleITK",
    "PIL",
    "matplotlib",
    "jinja2",
    "pika",
    "watchdog",
    "pydantic",
    "rich",
}
LONGEST_SECONDS = 0.3
RUNS = 5


def _loaded_by(*arguments: str) -> set[str]:
    script = (
        "import json, sys\n"
        "from ctdeface_shared.commands.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], []], ids=["help", "version", "nothing"]
)
def test_help_loads_no_heavy_library(arguments: list[str]) -> None:
    """Help and version come from the standard library alone."""
    assert not _loaded_by(*arguments) & HEAVY


def test_help_comes_in_less_than_a_third_of_a_second() -> None:
    """The fastest of five runs counts only processor time of this program."""
    assert min(_seconds_of_help() for _ in range(RUNS)) < LONGEST_SECONDS


def _seconds_of_help() -> float:
    begun = monotonic()
    process = subprocess.Popen([CTDEFACE, "--help"], stdout=subprocess.DEVNULL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and its figures still there
    seconds = monotonic() - begun
    figures = Path(f"/proc/{process.pid}/schedstat")
    waited_for_processor = (
        int(figures.read_text(encoding="ascii").split()[1]) / 1e9 if figures.exists() else 0.0
    )
    assert process.wait() == 0
    return seconds - waited_for_processor


@pytest.mark.parametrize("name", COMMANDS)
def test_every_listed_command_exists_and_explains_itself(name: str) -> None:
    """Each command of the list has a module and a help text with its own exit codes."""
    (entry,) = metadata.entry_points(group=ENTRY_POINTS, name=name)
    assert find_spec(entry.module)
    done = subprocess.run([CTDEFACE, name, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert exit_code_help(entry.load().EXIT_CODES) in done.stdout


def test_the_listed_commands_are_those_that_the_project_declares() -> None:
    """A command has an entry point in pyproject.toml and a summary in the overview."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(project["entry-points"][ENTRY_POINTS]) == set(COMMANDS)


def test_services_do_not_claim_the_exit_code_of_an_interruption() -> None:
    """Ctrl-C ends a service as wanted, with 0; a batch that it breaks off ends with 130."""
    codes = {name: set(command_module(name).EXIT_CODES) for name in COMMANDS}
    assert [name for name, known in codes.items() if EXIT_INTERRUPTED not in known] == [
        "up",
        "watch",
        "work",
    ]


@pytest.mark.parametrize("name", ["deface", "demo"])
def test_help_of_a_command_loads_no_network_library(name: str) -> None:
    """The options of a command are shown without torch or nnU-Net."""
    assert not _loaded_by(name, "--help") & {"torch", "nnunetv2"}
