"""The page about metrics names each, and their names follow the conventions of Prometheus."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_shared.metrics.dependencies import Dependencies, new_registry
from ctdeface_shared.settings.service import ServiceConfig, find_service
from ctdeface_watcher.metrics import WatcherMetrics
from ctdeface_worker.imaging.domain import Fate
from ctdeface_worker.pipeline.result import CaseResult, SeriesResult
from ctdeface_worker.report.model import describe
from ctdeface_worker.segmentation.choice import segmenter_named
from ctdeface_worker.service.events import JobEvent, Outcome, Progress
from ctdeface_worker.service.metrics import WorkerMetrics
from ctdeface_worker.verification.check import Check
from tests.support.required import program

OWN = ("ctdeface_watcher_", "ctdeface_worker_")
PAGE = (Path(__file__).parents[2] / "docs/reference/metrics.md").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Child:
    """A child as a slot has one."""

    restarts: int = 0
    peak_bytes: int = 1000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> ServiceConfig:
    """A service with its folders and an embedded queue."""
    made = find_service(None, tmp_path_factory.mktemp("spool"))
    made.prepare()
    return made


@pytest.fixture(scope="module")
def watcher(service: ServiceConfig) -> CollectorRegistry:
    """What a watcher shows."""
    registry = new_registry()
    WatcherMetrics(registry)
    look_at(Dependencies(service, registry, counts_messages=True))
    return registry


@pytest.fixture(scope="module")
def worker(service: ServiceConfig) -> CollectorRegistry:
    """What a worker shows that has seen a case."""
    registry = new_registry()
    metrics = WorkerMetrics(registry)
    metrics.show_model(segmenter_named("geometric"))
    metrics.children.of_slot["slot-0"] = Child()
    checks = (Check(name="facial_skin_removed", passed=True, figure=0.99, bound=0.985),)
    series = SeriesResult(series="1.2.3", fate=Fate.RELEASED, slices=2, checks=checks)
    result = CaseResult(released=True, series=(series,), seconds={"read": 1.0})
    manifest = Manifest(files=1, bytes=1, digest="d" * 64)
    report = describe("job", "case", manifest, DefaceOptions(), result)
    metrics(JobEvent(kind=Progress.SETTLED, outcome=Outcome.RELEASED, report=report, seconds=1.0))
    look_at(Dependencies(service, registry, counts_messages=False))
    return registry


def look_at(dependencies: Dependencies) -> None:
    """Make every check once."""
    for check in dependencies.checks().values():
        check()
    dependencies.close()


def rows(watcher: CollectorRegistry, worker: CollectorRegistry) -> Iterator[str]:
    """Yield the row of each of our metrics as the page has it."""
    shown_by = {
        who: {family.name: family for family in registry.collect()}
        for who, registry in (("watcher", watcher), ("worker", worker))
    }
    for name in dict.fromkeys((*shown_by["watcher"], *shown_by["worker"])):
        if name.startswith("ctdeface_"):
            family = next(found[name] for found in shown_by.values() if name in found)
            labels = sorted(
                {label for sample in family.samples for label in sample.labels} - {"le"}
            )
            shown = name + {"counter": "_total", "info": "_info"}.get(family.type, "")
            yield f"| `{shown}` | {', '.join(labels) or '–'} | {family.documentation} |"


def test_the_page_explains_every_metric_and_no_other(
    watcher: CollectorRegistry, worker: CollectorRegistry
) -> None:
    """The table is what the registries say: name, labels, meaning."""
    assert re.findall(r"^\| `ctdeface_.*$", PAGE, re.MULTILINE) == sorted(rows(watcher, worker))


def test_the_page_names_the_histograms_and_what_both_processes_show(
    watcher: CollectorRegistry, worker: CollectorRegistry
) -> None:
    """The rule above the table holds for every metric."""
    families = {
        who: {each.name: each for each in registry.collect() if each.name.startswith("ctdeface_")}
        for who, registry in (("watcher", watcher), ("worker", worker))
    }
    histograms = {
        name.removeprefix(f"ctdeface_{who}_")
        for who, found in families.items()
        for name, each in found.items()
        if each.type == "histogram"
    }
    sentence = PAGE.partition("always 1; ")[2].partition(" are histograms")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == histograms
    common = {name for found in families.values() for name in found if not name.startswith(OWN)}
    both = set(families["watcher"]) & set(families["worker"])
    assert common - both == {"ctdeface_queue_messages"}


@pytest.mark.parametrize("who", ["watcher", "worker"])
def test_names_are_in_snake_case_with_base_units(who: str, request: pytest.FixtureRequest) -> None:
    """Counters end in `_total`, times in seconds, sizes in bytes, shares in ratios."""
    families = list(
        text_string_to_metric_families(generate_latest(request.getfixturevalue(who)).decode())
    )
    ours = [family for family in families if family.name.startswith("ctdeface_")]
    assert len(ours) > 10
    for family in ours:
        assert re.fullmatch(r"ctdeface(_[a-z]+)+", family.name)
        assert not re.search(
            r"_(ms|milliseconds|minutes|hours|kb|mb|gb|percent|timer)(_|$)", family.name
        )
        assert family.type != "unknown"
        if family.type == "histogram":
            assert family.name.endswith(("_seconds", "_ratio"))


@pytest.mark.parametrize("who", ["watcher", "worker"])
def test_promtool_has_nothing_to_say(who: str, request: pytest.FixtureRequest) -> None:
    """`promtool check metrics`."""
    promtool = program("promtool")
    page = generate_latest(request.getfixturevalue(who))
    done = subprocess.run(
        [promtool, "check", "metrics"], input=page, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_the_scrape_example_names_the_default_ports() -> None:
    """Watcher 9464 and workers from 9465 on."""
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert set(re.findall(r":(94\d\d)", example)) == {"9464", "9465", "9466"}
