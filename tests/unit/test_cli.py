"""Exit codes and messages of the command line."""

import argparse
from collections.abc import Callable
from types import ModuleType
from typing import cast

import pytest

from ctdeface_shared.commands import main
from ctdeface_shared.commands.main import CommandModule
from ctdeface_shared.errors import ConfigurationError, StorageUnavailable

Trial = Callable[[argparse.Namespace], int]


def _loaded(run: Trial) -> Callable[[str], CommandModule]:
    """Make every command do what the test says."""
    module = ModuleType("ctdeface_trial")
    module.__dict__.update(
        EXIT_CODES={},
        add_arguments=lambda parser: parser.add_argument("--number", type=int, default=0),
        run=run,
    )
    return lambda _: cast("CommandModule", module)


def _raise(error: BaseException) -> int:
    raise error


def test_a_command_gets_its_options_and_its_exit_code_counts() -> None:
    """What the command returns is what the process returns."""
    load = _loaded(lambda namespace: int(namespace.number))
    assert main.main(["demo", "--number", "1"], load) == 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigurationError("the disk is read-only"), 78, "the disk is read-only"),
        (StorageUnavailable("the disk is full"), 1, "the disk is full"),
        (
            ModuleNotFoundError("No module named 'numpy'", name="numpy"),
            78,
            "numpy, which is not installed: pip install 'ctdeface[worker]'",
        ),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_errors_become_one_line_and_an_exit_code(
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    said: str,
) -> None:
    """A person reads one line on standard error; a script reads the code."""
    assert main.main(["demo"], _loaded(lambda _: _raise(error))) == code
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert said in shown


def test_a_bug_is_not_mistaken_for_a_missing_extra() -> None:
    """A module of our own that is missing shows its traceback."""
    bug = ModuleNotFoundError("No module named 'ctdeface_worker.x'", name="ctdeface_worker.x")
    with pytest.raises(ModuleNotFoundError):
        main.main(["demo"], _loaded(lambda _: _raise(bug)))


@pytest.mark.parametrize("arguments", [["bogus"], ["--bogus"], ["config", "--bogus"]])
def test_what_is_not_understood_exits_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Usage errors have their own exit code and show the usage."""
    with pytest.raises(SystemExit) as caught:
        main.main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err
