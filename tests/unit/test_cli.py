"""Exit codes and messages of the command line."""

import argparse
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from ctdeface_shared.commands import main
from ctdeface_shared.errors import ConfigurationError, StorageUnavailable


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Callable[[argparse.Namespace], int]], None]:
    """Register a command `try` that does what the test says."""

    def register(run: Callable[[argparse.Namespace], int]) -> None:
        module = ModuleType("ctdeface_trial")
        module.__dict__.update(
            add_arguments=lambda parser: parser.add_argument("--number", type=int, default=0),
            run=run,
        )
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(
            main, "COMMANDS", {"try": main.Command("try it", module.__name__, "worker")}
        )

    return register


def _raise(error: BaseException) -> int:
    raise error


def test_a_command_gets_its_options_and_its_exit_code_counts(
    command: Callable[[Callable[[argparse.Namespace], int]], None],
) -> None:
    """What the command returns is what the process returns."""
    command(lambda namespace: int(namespace.number))
    assert main.main(["try", "--number", "1"]) == 1


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
    command: Callable[[Callable[[argparse.Namespace], int]], None],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    said: str,
) -> None:
    """A person reads one line on standard error; a script reads the code."""
    command(lambda _: _raise(error))
    assert main.main(["try"]) == code
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert said in shown


def test_a_bug_is_not_mistaken_for_a_missing_extra(
    command: Callable[[Callable[[argparse.Namespace], int]], None],
) -> None:
    """A module of our own that is missing shows its traceback."""
    command(
        lambda _: _raise(
            ModuleNotFoundError("No module named 'ctdeface_worker.x'", name="ctdeface_worker.x")
        )
    )
    with pytest.raises(ModuleNotFoundError):
        main.main(["try"])


@pytest.mark.parametrize("arguments", [["bogus"], ["--bogus"], ["config", "--bogus"]])
def test_what_is_not_understood_exits_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Usage errors have their own exit code and show the usage."""
    with pytest.raises(SystemExit) as caught:
        main.main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err
