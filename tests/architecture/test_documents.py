"""What README and docs promise is there and runs."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from ctdeface_shared.broker.settlement import (
    Quarantine,
    Reject,
    Retry,
    RetryRule,
    decide,
)
from ctdeface_shared.errors import CtDefaceError, PermanentError, TransientError
from ctdeface_shared.jobs.remedies import REMEDIES
from ctdeface_shared.settings.loading import Settings, keys, load, variable_of
from deploy.site import pictures
from tests.architecture.sources import PACKAGES, ROOT, modules

README = (ROOT / "README.md").read_text(encoding="utf-8")
SETTINGS = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
REFUSALS = (ROOT / "docs/reference/refusals.md").read_text(encoding="utf-8")
GENERAL = {"InvalidSeries"}
"""Base classes that are never raised themselves."""
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
DECISIONS = sorted((ROOT / "docs/decisions").glob("*.md"))
ARCHITECTURE = (ROOT / "docs/develop/architecture.md").read_text(encoding="utf-8")
MET = (
    "ctdeface_watcher.",
    *(
        f"ctdeface_worker.{name}."
        for name in ("service", "batch", "case", "publishing", "pipeline")
    ),
)
"""Packages whose modules a case meets on its way."""
HEADINGS = ["Question", "Options", "Decision", "Consequences", "Checked by"]


def _environment(**more: str) -> dict[str, str]:
    """Return the environment without settings or make flags, with .venv first on PATH."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CTDEFACE_", "MAKE", "MFLAGS"))
    }
    return {
        **clean,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **more,
    }


def _make_lines() -> list[str]:
    return re.findall(
        r"^    (make .*)$",
        "\n".join(file.read_text(encoding="utf-8") for file in DOCUMENTS),
        re.MULTILINE,
    )


def test_the_readme_says_first_what_is_not_done() -> None:
    """The first two sentences say that headers stay and where output must never go."""
    first, second = README.split("\n\n")[1].split(".\n")[:2]
    assert "does **not** anonymize headers" in first
    assert "**never** be sent to an archive that holds the originals" in second


@pytest.mark.parametrize("line", sorted(set(_make_lines())))
def test_every_make_command_in_the_documents_exists(line: str) -> None:
    """Make knows each target that a document names, with the variables it names."""
    done = subprocess.run(
        [*shlex.split(line), "--dry-run"],
        cwd=ROOT,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_make_help_lists_every_target() -> None:
    """The list that `make` shows has each target of the Makefile."""
    targets = set(
        re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    shown = subprocess.run(
        ["make", "help"], cwd=ROOT, env=_environment(), capture_output=True, text=True, check=True
    ).stdout
    assert set(re.findall(r"^  make ([a-z]+) ", shown, re.MULTILINE)) == targets


def test_make_deface_wants_both_folders() -> None:
    """IN without OUT is a usage error that says what to write."""
    recipe = ["make", "--silent", "--assume-old=setup", "deface", "IN=scans"]
    done = subprocess.run(
        recipe, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False
    )
    assert "make deface IN=scans OUT=defaced" in done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize("key", keys())
def test_every_setting_is_documented_with_its_default(key: str) -> None:
    """The table of settings has the key and the default in effect."""
    (row,) = re.findall(rf"^\| `{re.escape(key)}` \| (.*?) \|", SETTINGS, re.MULTILINE)
    value: object = Settings.model_construct()
    for name in key.split("."):
        value = getattr(value, name)
    assert row.strip("`") == str(value).replace("None", "none").replace("False", "false")


@pytest.mark.parametrize("key", keys())
def test_names_in_the_environment_follow_the_rule_of_the_page(key: str) -> None:
    """A name is the key in capitals with two underscores for the dot."""
    assert variable_of(key) == f"CTDEFACE_{key.upper().replace('.', '__')}"


def test_nothing_undocumented_is_in_the_table_of_settings() -> None:
    """The table has no key that does not exist."""
    assert set(re.findall(r"^\| `([a-z_.]+)` \|", SETTINGS, re.MULTILINE)) == set(keys())


def test_the_example_settings_file_is_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of the page loads as it is."""
    (block,) = re.findall(r"```toml\n(.*?)```", SETTINGS, re.DOTALL)
    file = tmp_path / "ctdeface.toml"
    file.write_text(block, encoding="utf-8")
    for key in keys():
        monkeypatch.delenv(variable_of(key), raising=False)
    assert str(file) in set(load(file).origins.values())
    assert tomllib.loads(block)


def _classes_below(kind: type[CtDefaceError]) -> set[type[CtDefaceError]]:
    """Every error of the program below one; tests may have made others."""
    found = {each for each in kind.__subclasses__() if each.__module__.startswith("ctdeface_")}
    return found.union(*(_classes_below(each) for each in found))


@pytest.mark.parametrize(
    ("heading", "settlement"),
    [("Refused", Quarantine), ("Retried first", Retry), ("Dead letters", Reject)],
)
def test_the_page_of_refusals_has_every_code_below_its_settlement(
    heading: str, settlement: type[object]
) -> None:
    """Each table holds the codes that are settled in its way, and only those."""
    import_module("ctdeface_worker.case.child_process")  # defines the errors of child processes
    codes = {
        each.code
        for kind in (PermanentError, TransientError)
        for each in _classes_below(kind)
        if isinstance(decide(each(), 1, RetryRule()), settlement)
    }
    section = REFUSALS.partition(f"### {heading}\n")[2].partition("\n#")[0]
    rows = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    named = {code for row in rows for code in re.findall(r"`(\w+)`", row)}
    assert named == codes - GENERAL


@pytest.mark.parametrize("code", sorted(REMEDIES))
def test_the_page_of_refusals_names_every_code_of_a_report(code: str) -> None:
    """A code that comes with a remedy in reports is on the page."""
    assert f"`{code}`" in REFUSALS


@pytest.mark.parametrize(
    "page", [page for page in DOCUMENTS if page.name != "refusals.md"], ids=lambda page: page.stem
)
def test_no_other_page_has_a_table_of_codes(page: Path) -> None:
    """Codes are explained once."""
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"^\| `(MissingSlices|VerificationFailed)`", text, re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_link_inside_the_project_leads_somewhere(document: Path) -> None:
    """Every relative link points to a file that exists."""
    links = set(re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8"))) - {
        f"../pictures/{name}" for name in pictures.REPORTS
    }
    assert not [link for link in links if not (document.parent / link).exists()]


def test_every_package_is_on_the_map() -> None:
    """The table of the architecture page names each package, and nothing else."""
    rows = re.findall(r"^\| (`[a-z_/`, ]+`) \|", ARCHITECTURE, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z_/]+/)`", row)}
    there = {
        f"{file.parent.name}/" for root in PACKAGES.values() for file in root.rglob("__init__.py")
    }
    held_by_another_row = {"rabbitmq/", "geometric/", "nnunet/", "models/", "instances/"}
    assert named == there - held_by_another_row
    assert not [name for name in held_by_another_row if f"`{name}`" not in ARCHITECTURE]


def test_every_module_of_the_services_is_on_the_map() -> None:
    """The walks name each module that a case meets, and none that does not exist."""
    section = ARCHITECTURE.partition("## The order in which")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z_.]+)`", section))
    known = {name.partition(".")[2] for name in modules()}
    assert not named - known
    met = {
        name.partition(".")[2]
        for name, file in modules().items()
        if name.startswith(MET) and file.name != "__init__.py"
    }
    assert not met - named


def test_decisions_are_numbered_without_gaps() -> None:
    """Record n has the number n."""
    assert [int(file.name[:4]) for file in DECISIONS] == list(range(1, len(DECISIONS) + 1))


@pytest.mark.parametrize("record", DECISIONS, ids=lambda file: str(file.name[:4]))
def test_every_decision_has_the_same_headings(record: Path) -> None:
    """A record states question, options, decision, consequences and how it is checked."""
    assert re.findall(r"^## (.*)$", record.read_text(encoding="utf-8"), re.MULTILINE) == HEADINGS


def test_continuous_integration_runs_the_command_of_the_readme() -> None:
    """`.ci/run` can be executed and calls what the README tells a user to call."""
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert "    make test\n" in README
    assert re.search(r"^exec make test\b", script.read_text(encoding="utf-8"), re.MULTILINE)
