"""The command starts fast and loads only what it needs."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import pytest

from ctdeface_shared.cli import COMMANDS

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


def _loaded_by(*arguments: str) -> set[str]:
    script = (
        "import json, sys\nfrom ctdeface_shared.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], []], ids=["help", "version", "nothing"])
def test_help_loads_no_heavy_library(arguments: list[str]) -> None:
    """Help and version come from the standard library alone."""
    assert not _loaded_by(*arguments) & HEAVY


def test_help_comes_in_less_than_a_third_of_a_second() -> None:
    """`ctdeface --help` needs less than 0.3 s of the processor; the clock on the wall would tell of other work on the machine as well."""
    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run([CTDEFACE, "--help"], capture_output=True, check=True)
    after = getrusage(RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < LONGEST_SECONDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_listed_command_exists_and_explains_itself(name: str) -> None:
    """Each command of the list has a module and a help text with the exit codes."""
    assert find_spec(COMMANDS[name].module)
    done = subprocess.run([CTDEFACE, name, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "exit codes:" in done.stdout


@pytest.mark.parametrize("name", ["deface", "demo"])
def test_help_of_a_command_loads_no_network_library(name: str) -> None:
    """The options of a command are shown without torch or nnU-Net."""
    assert not _loaded_by(name, "--help") & {"torch", "nnunetv2"}
