"""The site builds strictly without a network, with a reference made from the program."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ctdeface_shared.commands.main import COMMANDS
from ctdeface_shared.errors import CtDefaceError, PermanentError, TransientError
from ctdeface_shared.settings.loading import keys
from tests.architecture.sources import ROOT

LOADED = re.compile(
    r"<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)"
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with warnings as errors by a process whose every proxy leads nowhere."""
    folder = tmp_path_factory.mktemp("site")
    nowhere = {
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "NO_MKDOCS_2_WARNING": "1",
    }
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--quiet",
        "--strict",
        "--site-dir",
        str(folder),
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | nowhere, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def _page(service: Path, name: str) -> str:
    return (service / name).read_text(encoding="utf-8")


def test_the_site_loads_nothing_from_elsewhere(service: Path) -> None:
    """No script, style, font, picture or frame of any page comes from another host."""
    assert not {
        found
        for page in service.rglob("*.html")
        for found in LOADED.findall(_page(service, str(page)))
    }
    imported = re.compile(r"(?:@import|url\()\s*[\"']?(?:https?:)?//")
    assert not [
        style
        for style in service.rglob("*.css")
        if imported.search(style.read_text(encoding="utf-8"))
    ]


def test_every_page_of_the_documents_is_in_the_site_and_every_reader_finds_a_way_in(
    service: Path,
) -> None:
    """Each Markdown file becomes a page, and the first page leads to the four readers' own."""
    wanted = {
        file.relative_to(ROOT / "docs").with_suffix(".html")
        for file in (ROOT / "docs").rglob("*.md")
    }
    assert not [page for page in wanted if not (service / page).is_file()]
    first = _page(service, "index.html")
    assert not [
        name
        for name in ("first-case", "service", "data-steward", "architecture")
        if f'href="{name}.html"' not in first
    ]


def test_the_reference_names_every_command_setting_metric_and_error(service: Path) -> None:
    """What is made from the code holds all of it."""
    commands, settings, errors = (
        _page(service, f"reference/{name}.html") for name in ("commands", "settings", "errors")
    )
    assert not [
        name
        for name in COMMANDS
        if f'id="{name}"' not in commands or f"usage: ctdeface {name}" not in commands
    ]
    assert not [key for key in keys() if f"<code>{key}</code>" not in settings]
    known = {each.code for kind in (PermanentError, TransientError) for each in _below(kind)}
    assert {"MissingSlices", "WorkerCrashed"} <= set(re.findall(r"<code>(\w+)</code>", errors))
    assert not [code for code in known if f"<code>{code}</code>" not in errors]
    written = set(
        re.findall(
            r"^\| `(ctdeface_\w+)`",
            (ROOT / "docs/metrics.md").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    )
    assert (
        set(re.findall(r"<code>(ctdeface_\w+)</code>", _page(service, "reference/metrics.html")))
        == written
    )


def _below(kind: type[CtDefaceError]) -> set[type[CtDefaceError]]:
    """Every class of the program below one; tests may have made others."""
    found = {each for each in kind.__subclasses__() if each.__module__.startswith("ctdeface_")}
    return found.union(*(_below(each) for each in found))


def test_the_pictures_are_of_the_synthetic_head_and_not_in_the_repository(service: Path) -> None:
    """They are made at the build: before, after, and the two reports."""
    for name in ("before.png", "after.png"):
        assert (service / "pictures" / name).read_bytes().startswith(b"\x89PNG")
    assert "MissingSlices" in _page(service, "pictures/refused.html")
    assert "synthetic-head-1" in _page(service, "pictures/released.html")
    listed = subprocess.run(
        ["git", "ls-files", "*.png", "*.jpg", "*.html"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert not listed
