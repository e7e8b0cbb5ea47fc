"""deploy/systemd and deploy/windows, for machines without containers; not started here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import tree_sitter_powershell
from tree_sitter import Language, Node, Parser

from ctdeface_shared.exit_codes import EXIT_CONFIGURATION
from ctdeface_shared.settings.loading import Settings
from tests.architecture.deployed import DEPLOY, WORK_PORT, accepted, refuse_unknown_command
from tests.architecture.sources import ROOT
from tests.support.required import program

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
SCRIPTS = sorted((DEPLOY / "windows").glob("*.ps1"))
INSTALLED = "/opt/ctdeface/bin/ctdeface"
CTDEFACE = Path(sys.executable).with_name("ctdeface")
MOST_EXPOSED = 2.0
"""Of 10, as `systemd-analyze security` counts."""


def assigned(unit: Path, key: str) -> list[str]:
    """Return the values of a key of a unit."""
    return re.findall(rf"^{key}=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_valid(unit: Path, tmp_path: Path) -> None:
    """`systemd-analyze verify` accepts it with the path of the installed program."""
    text = unit.read_text(encoding="utf-8")
    assert INSTALLED in text
    (tmp_path / unit.name).write_text(text.replace(INSTALLED, str(CTDEFACE)), encoding="utf-8")
    done = subprocess.run(
        [program("systemd-analyze"), "verify", tmp_path / unit.name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (
        done.returncode,
        [line for line in done.stderr.splitlines() if unit.stem.rstrip("@") in line],
    ) == (0, [])


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_shut_in(unit: Path) -> None:
    """`systemd-analyze security` rates it well; only spool and state are writable."""
    done = subprocess.run(
        [program("systemd-analyze"), "security", "--offline=yes", unit],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(re.findall(r"exposure level for \S+: ([0-9.]+)", done.stdout)[0]) <= MOST_EXPOSED
    assert (
        assigned(unit, "ProtectSystem"),
        assigned(unit, "ReadWritePaths"),
        assigned(unit, "User"),
    ) == (
        ["strict"],
        ["/srv/ctdeface"],
        ["ctdeface"],
    )


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_runs_a_command_and_settings_that_exist(
    unit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A configuration error stops the unit, and a stopping worker has time to finish."""
    (start,) = assigned(unit, "ExecStart")
    words = start.partition(f"{INSTALLED} ")[2].strip("'").split()
    refuse_unknown_command(words)
    variables = dict(line.split("=", 1) for line in assigned(unit, "Environment"))
    assert variables.pop("CTDEFACE_CONFIG") == "/etc/ctdeface/ctdeface.toml"
    accepted(variables, monkeypatch)
    assert str(EXIT_CONFIGURATION) in assigned(unit, "RestartPreventExitStatus")[0].split()
    if words[0] != "watch":
        assert float(assigned(unit, "TimeoutStopSec")[0]) > Settings().work.grace_period


def test_workers_of_one_machine_listen_at_ports_of_their_own() -> None:
    """Each instance has the next port, and the shell is replaced by the worker."""
    (start,) = assigned(DEPLOY / "systemd/ctdeface-work@.service", "ExecStart")
    shell = start.replace("%i", "2").replace("$$", "$").removeprefix("/bin/sh -c ").strip("'")
    asked = shell.replace("exec ", "echo ", 1)
    told = subprocess.run(
        ["/bin/sh", "-c", asked], capture_output=True, text=True, check=True
    ).stdout.split()
    assert told[-2:] == ["--metrics-port", str(WORK_PORT + 1)]
    assert shell.startswith("exec ")


def _mistakes(node: Node) -> list[tuple[int, str]]:
    own = [(node.start_point[0] + 1, node.type)] if node.is_error or node.is_missing else []
    return [*own, *(found for child in node.children for found in _mistakes(child))]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_for_windows_is_powershell(script: Path) -> None:
    """Its grammar finds no mistake; the same parser finds one that is put in."""
    parser = Parser(Language(tree_sitter_powershell.language()))
    content = script.read_bytes()
    assert not _mistakes(parser.parse(content).root_node)
    assert _mistakes(parser.parse(content.replace(b"param(", b"param(((", 1)).root_node)


def test_the_batch_script_passes_on_options_that_exist() -> None:
    """Each of `ctdeface deface`, from the three parameters that the users know, and two more."""
    text = (DEPLOY / "windows/run_ctdeface_batch.ps1").read_text(encoding="utf-8")
    assert re.findall(r"\[\w+(?:\[\])?\]\$(\w+)(?= =|,|\n)", text) == [
        "DicomRootIn", "DicomRootOut", "NiftiRootOut", "WorkRoot", "Jobs", "Options",
    ]  # fmt: skip
    options = re.findall(r'"(--[\w-]+)", \$|"(--[\w-]+)", "\$', text)
    refuse_unknown_command(["deface", *(one or other for one, other in options)])
    assert {one or other for one, other in options} >= {
        "--dicom-root-in",
        "--dicom-root-out",
        "--nifti-root-out",
    }


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_for_windows_names_files_that_exist(script: Path) -> None:
    """Scripts of this project, below the folder that it takes for the project's."""
    text = script.read_text(encoding="utf-8")
    named = {name.replace("\\", "/") for name in re.findall(r"deploy\\[\w\\]+\.(?:ps1|py)", text)}
    assert named
    assert all((ROOT / name).is_file() for name in named)
    assert "$Root = Split-Path -Parent (Split-Path -Parent $PSScriptRoot)" in text
