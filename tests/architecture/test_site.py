"""The site builds strictly, needs no network, and its page of commands is complete."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ctdeface_shared.commands.main import COMMANDS
from deploy.site import pictures
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
        for name in (
            "start/first-case",
            "run/service",
            "trust/data-steward",
            "develop/architecture",
            "reference/settings",
        )
        if f'href="{name}.html"' not in first
    ]


def test_the_reference_names_every_command(service: Path) -> None:
    """The page made from the parsers has each command."""
    commands = _page(service, "reference/commands.html")
    assert not [
        name
        for name in COMMANDS
        if f'id="{name}"' not in commands or f"usage: ctdeface {name}" not in commands
    ]


def test_the_site_has_reports_of_the_synthetic_head(service: Path) -> None:
    """The build makes a report of a release and one of a refusal."""
    assert "MissingSlices" in _page(service, "pictures/refused.html")
    assert "synthetic-head-1" in _page(service, "pictures/released.html")


def test_the_committed_pictures_are_what_the_program_draws(service: Path) -> None:
    """They show the synthetic head before and after, and differ from a new drawing by little."""
    for name in pictures.PICTURES:
        committed = np.asarray(Image.open(pictures.COMMITTED / name).convert("L"), dtype=float)
        drawn = np.asarray(Image.open(pictures.BUILT / name).convert("L"), dtype=float)
        assert (service / "pictures" / name).is_file()
        assert committed.shape == drawn.shape
        assert np.abs(committed - drawn).mean() < 2.0


def test_no_other_picture_is_in_the_repository() -> None:
    """Pictures of patients never enter it."""
    listed = subprocess.run(
        ["git", "ls-files", "*.png", "*.jpg", "*.html"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert listed.split() == ["docs/pictures/after.png", "docs/pictures/before.png"]
