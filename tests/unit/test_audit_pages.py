"""What the pages about audit log and threats promise is in the code and in the tests."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from ctdeface_shared.audit.entry import CaseEnd, Entry, Outcome

ROOT = Path(__file__).parents[2]
AUDIT = (ROOT / "docs/trust/audit.md").read_text(encoding="utf-8")
THREATS = (ROOT / "docs/trust/threat-model.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`([a-z0-9]+/test_[a-z_0-9]+\.py)`", THREATS)))
INSPECTING = "\n".join(
    (ROOT / f"shared/ctdeface_shared/audit/{name}.py").read_text(encoding="utf-8")
    for name in ("inspection", "cases")
)


def test_every_field_and_outcome_of_an_entry_is_explained() -> None:
    """The table has each of them and no other."""
    table = AUDIT[AUDIT.index("| field |") : AUDIT.index("Names of cases and files")]
    explained = set(
        re.findall(
            r"`([a-z_.]+)`", "".join(line.split("|")[1] for line in table.splitlines()[2:] if line)
        )
    )
    assert explained == ({field.name for field in fields(Entry)} - {"end", "version"}) | {
        f"end.{field.name}" for field in fields(CaseEnd)
    }
    assert all(f"`{outcome}`" in AUDIT for outcome in Outcome)


def test_every_sentence_that_the_page_explains_is_in_the_source() -> None:
    """Each quoted sentence is in the source of the check."""
    table = AUDIT[AUDIT.index("| it says |") : AUDIT.index("## Limits")]
    rows = [line.split("|") for line in table.splitlines()[2:] if line.startswith("|")]
    quoted = [text for row in rows for text in re.findall(r"`([^`]+)`", row[1])]
    assert len(quoted) >= 15
    source = re.sub(r"\{[^{}]+\}", "0", INSPECTING)  # values stand for figures and names
    assert not [text for text in quoted if not re.search(re.sub(r"[0-9]+|…", ".*", text), source)]


@pytest.mark.parametrize("name", NAMED)
def test_every_measure_has_a_test(name: str) -> None:
    """Each file that the threat model names is there and has tests."""
    assert "def test_" in (ROOT / "tests" / name).read_text(encoding="utf-8")


def test_every_threat_names_its_measure_and_its_test() -> None:
    """No row of the tables of threats leaves a cell empty."""
    rows = [row.split("|")[1:-1] for row in re.findall(r"^\| .*test_.*\|$", THREATS, re.MULTILINE)]
    assert len(rows) >= 30
    assert all(len(row) == 3 and all(cell.strip() for cell in row) for row in rows)
