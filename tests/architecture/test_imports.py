"""Who may import whom, and where foreign libraries come in."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.sources import PACKAGES, ROOT, foreign_imports, modules

DOORS = {
    "SimpleITK": (
        "ctdeface_worker.imaging.canonical",
        "ctdeface_worker.imaging.nifti",
        "ctdeface_worker.segmentation",
    ),
    "pydicom": (
        "ctdeface_worker.dicom",
        "ctdeface_worker.verification.instances",
        "ctdeface_worker.phantom",
        "ctdeface_watcher.inbox.identity",
    ),
    "torch": ("ctdeface_worker.segmentation.nnunet", "ctdeface_worker.training"),
    "nnunetv2": ("ctdeface_worker.segmentation.nnunet", "ctdeface_worker.training"),
    "safetensors": ("ctdeface_worker.segmentation.nnunet",),
    "gdown": ("ctdeface_worker.segmentation.models.download",),
    "PIL": ("ctdeface_worker.pipeline.preview",),
    "jinja2": ("ctdeface_worker.report",),
    "gdcm": ("ctdeface_worker.dicom",),
    "pika": ("ctdeface_shared.broker.rabbitmq",),
    "cryptography": ("ctdeface_shared.audit.keys",),
    "prometheus_client": (
        "ctdeface_shared.metrics",
        "ctdeface_watcher.metrics",
        "ctdeface_worker.service.metrics",
    ),
    "watchdog": ("ctdeface_watcher.inbox.events",),
    "pydantic_settings": ("ctdeface_shared.settings.loading",),
    "opentelemetry": ("ctdeface_shared.tracing.export",),
    "structlog": ("ctdeface_shared.logs",),
    "multiprocessing": ("ctdeface_worker.case.child_process",),
}
"""Foreign library -> modules, with all below them, that may import it.

A new door needs a decision record.
"""

ALLOWED_IN_BASE = {"pydantic", "pydantic_settings", "structlog", "rich"}


def test_the_import_contracts_are_kept() -> None:
    """The import contracts in pyproject.toml hold."""
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("library", DOORS)
def test_a_foreign_library_enters_through_its_doors_only(library: str) -> None:
    """No other module imports the library, not even inside a function."""
    importers = [name for name, file in modules().items() if library in foreign_imports(file)]
    strangers = [
        name
        for name in importers
        if not any(name == door or name.startswith(f"{door}.") for door in DOORS[library])
    ]
    assert not strangers


@pytest.mark.parametrize("package", ["ctdeface_shared", "ctdeface_watcher"])
def test_the_base_install_needs_its_declared_libraries_only(package: str) -> None:
    """Shared and watcher import only the libraries of their own extras."""
    used = set().union(*(foreign_imports(file) for file in PACKAGES[package].rglob("*.py")))
    assert used <= ALLOWED_IN_BASE | set(sys.stdlib_module_names) | {
        "cryptography",
        "opentelemetry",
        "pika",
        "prometheus_client",
        "pydicom",
        "watchdog",
    }


def test_the_measure_of_the_tests_shares_nothing_with_what_it_measures() -> None:
    """The measure of removed skin imports neither segmenters nor gate."""
    sources = list((ROOT / "tests/support/measure").glob("*.py"))
    assert len(sources) >= 5
    strangers = (
        "ctdeface_worker.segmentation",
        "ctdeface_worker.verification",
        "tests.support.volume_results",
    )
    assert not [
        file.name
        for file in sources
        if any(name in file.read_text(encoding="utf-8") for name in strangers)
    ]
