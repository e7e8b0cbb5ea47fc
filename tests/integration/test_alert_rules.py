"""Alert and recording rules are valid, tested, and name an action."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.required import program

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
METRICS = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
RUNBOOK = (ROOT / "docs/run/monitoring.md").read_text(encoding="utf-8")
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
OF_EVERY_PROCESS = {"process_start_time_seconds", "up"}


def content(file: str | Path) -> Any:
    """Read a file of Prometheus."""
    return yaml.safe_load((PROMETHEUS / file).read_text(encoding="utf-8"))


def rules(file: str) -> Sequence[dict[str, Any]]:
    """Return the rules of a file."""
    return [rule for group in content(f"rules/{file}.yml")["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules("alerts")}
RECORDED = {rule["record"] for rule in rules("recording")}


def promtool(*arguments: str | Path) -> str:
    """Run promtool, which must be content, and return what it says."""
    done = subprocess.run(
        [program("promtool"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["prometheus", "compose", "kubernetes"])
def test_the_configuration_is_valid(name: str) -> None:
    """`promtool check config`, rules and lists of targets included."""
    assert "2 rule files found" in promtool("check", "config", PROMETHEUS / f"{name}.yml")


@pytest.mark.parametrize("name", ["alerts", "recording"])
def test_the_rules_are_valid(name: str) -> None:
    """`promtool check rules`, whose advice counts as well."""
    assert f"{len(rules(name))} rules found" in promtool(
        "check", "rules", "--lint=all", "--lint-fatal", PROMETHEUS / f"rules/{name}.yml"
    )


def test_every_alert_fires_when_it_should_and_not_otherwise() -> None:
    """`promtool test rules`: over hours that take no time."""
    assert promtool("test", "rules", *TESTS).count("SUCCESS") == len(TESTS) == 2


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_tests_in_which_it_fires_and_clears(alert: str) -> None:
    """Looked at before, during and after."""
    tests = [
        test
        for file in TESTS
        for test in content(file.relative_to(PROMETHEUS))["tests"]
        if test["name"] == alert
    ]
    looks = [look for test in tests for look in test["alert_rule_test"]]
    assert {look["alertname"] for look in looks} == {alert}
    assert [bool(look["exp_alerts"]) for look in looks][:3] == [False, True, False]


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_an_entry_in_the_runbook(alert: str) -> None:
    """A heading with its name, to which the alert leads, and something to do below it."""
    rule = ALERTS[alert]
    (entry,) = re.findall(
        rf"^### {alert}\n\n(.*?)(?=\n\n###|\Z)", RUNBOOK, re.MULTILINE | re.DOTALL
    )
    assert entry.strip()
    assert rule["annotations"]["runbook"] == f"docs/run/monitoring.md#{alert.lower()}"
    assert rule["labels"]["severity"] in {"critical", "warning"}


def test_the_runbook_knows_no_other_alert() -> None:
    """No entry is left of an alert that is gone, and none is mentioned."""
    assert set(re.findall(r"\bCtdeface[A-Z]\w+", RUNBOOK)) == set(ALERTS)


@pytest.mark.parametrize(
    "rule",
    [*rules("alerts"), *rules("recording")],
    ids=lambda rule: str(rule.get("alert") or rule.get("record")),
)
def test_every_rule_asks_for_metrics_that_exist(rule: dict[str, Any]) -> None:
    """Each name is on the page about metrics or recorded."""
    names = set(re.findall(r"\b(?:ctdeface|process|up)[a-z0-9_:]*(?=[\s{\[)]|$)", rule["expr"]))
    assert names
    shown = set(re.findall(r"^\| `(ctdeface_\w+)`", METRICS, re.MULTILINE))
    assert names <= shown | RECORDED | OF_EVERY_PROCESS


def test_no_alert_shows_a_case() -> None:
    """Alerts leave the service, so they contain labels of metrics only, never a case."""
    shown = {
        name
        for rule in ALERTS.values()
        for text in rule["annotations"].values()
        for name in re.findall(r"\$labels\.(\w+)", text)
    }
    assert shown == {"instance", "job", "code", "place", "result"}
