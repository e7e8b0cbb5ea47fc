"""What the files under deploy/ say, and what of it must exist."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml

from ctdeface_shared.commands.main import COMMANDS
from ctdeface_shared.settings.loading import keys, load, variable_of
from ctdeface_shared.settings.sections import MetricsSection
from tests.architecture.sources import ROOT

DEPLOY = ROOT / "deploy"
Document: TypeAlias = Mapping[str, Any]
VARIABLES = {variable_of(key) for key in keys()}
WATCH_PORT, WORK_PORT = MetricsSection().watch_port, MetricsSection().work_port
IMAGE = re.compile(r"(?:[a-z0-9-]+/)?[a-z0-9-]+:[a-z]*[0-9][A-Za-z0-9.-]*(?:@sha256:[0-9a-f]{64})?")
"""A public name without the host of a registry, with a version and perhaps a digest."""


def documents(file: Path) -> Sequence[Document]:
    """Read every document of a YAML file."""
    return [
        document for document in yaml.safe_load_all(file.read_text(encoding="utf-8")) if document
    ]


def accepted(variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """See that settings from the environment exist and have values that are allowed.

    Raises:
        ConfigurationError: one does not exist, or its value is not allowed.
    """
    for name in [name for name in os.environ if name.startswith("CTDEFACE_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value))
    used = {name for name in load().origins.values() if name.startswith("CTDEFACE_")}
    assert used == set(variables) & VARIABLES == set(variables) - {"CTDEFACE_CONFIG"}


def refuse_unknown_command(words: Sequence[str]) -> None:
    """Check that `ctdeface` has this sub-command and its options that begin with a dash."""
    import subprocess
    import sys

    assert words[0] in COMMANDS
    page = [str(Path(sys.executable).with_name("ctdeface")), words[0], "--help"]
    told = subprocess.run(page, capture_output=True, text=True, check=True).stdout
    assert not [
        word
        for word in words[1:]
        if word.startswith("-") and not re.search(rf"{re.escape(word)}\b", told)
    ]


def stages(dockerfile: Path) -> Mapping[str, str]:
    """Return the instructions of each stage of a Dockerfile, by its name."""
    text = re.sub(r"\\\n\s*", "", dockerfile.read_text(encoding="utf-8"))
    parts = re.split(r"^FROM (\S+) AS (\S+)$", text, flags=re.MULTILINE)
    return {
        name: f"FROM {base}\n{body}"
        for base, name, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    }


def lineage(name: str, of: Mapping[str, str]) -> Iterator[str]:
    """Yield the instructions of a stage and of those that it begins from, nearest first."""
    while name in of:
        yield of[name]
        name = of[name].partition("\n")[0].removeprefix("FROM ")
