"""Pictures and reports of the synthetic head for the pages.

The two pictures are committed, so that pages show them without a build. The two reports are made
once per checkout. `python -m deploy.site.pictures` draws the committed pictures again.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "build/pictures"
COMMITTED = ROOT / "docs/pictures"
PICTURES = ("before.png", "after.png")
REPORTS = ("released.html", "refused.html")
COLORS = 96
"""Enough gray levels for a shaded surface; the files stay below 150 kB."""
_REFUSED_CASE = "slices-are-missing"


def reports() -> Mapping[str, Path]:
    """Return the reports by their place in the site; make them if they are missing."""
    make()
    return {f"pictures/{name}": BUILT / name for name in REPORTS}


def make() -> None:
    """Deface the synthetic head, once whole and once with slices missing, and keep the results."""
    if all((BUILT / name).is_file() for name in (*PICTURES, *REPORTS)):
        return
    from ctdeface_worker.phantom.head import make_head
    from ctdeface_worker.pipeline.preview import write_preview

    before, after = PICTURES
    released, refused = REPORTS
    BUILT.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        root = Path(folder)
        write_preview(make_head(1).volume, BUILT / before, title="The synthetic head before")
        _run("demo", "--folder", root)
        found = root / "defaced.ctdeface/reports"
        _keep(found, "*/*/preview/*.png", after)
        _keep(found, "*/*/report.html", released)
        scans = (root / "scans/synthetic-head-1").rename(root / _REFUSED_CASE)
        for file in sorted(scans.glob("IM*.dcm"))[60:63]:
            file.unlink()
        scans.rename(root / "scans" / _REFUSED_CASE)
        _run("deface", "-i", root / "scans", "-o", root / "defaced", code=1)
        _keep(found, f"{_REFUSED_CASE}/*/report.html", refused)


def _run(*words: str | Path, code: int = 0) -> None:
    command = [sys.executable, "-m", "ctdeface_shared", *map(str, words)]
    settings = {
        name: value for name, value in os.environ.items() if not name.startswith("CTDEFACE_")
    }
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    if done.returncode != code:
        raise RuntimeError(
            f"ctdeface {words[0]} ended with {done.returncode} instead of {code}:"
            f" {done.stderr.strip()[-300:]}"
        )


def _keep(reports: Path, pattern: str, name: str) -> None:
    (found,) = reports.glob(pattern)
    shutil.copyfile(found, BUILT / name)


def _shrink(picture: Path, smaller: Path) -> None:
    """Write a picture with few colors: a page loads it in half the time."""
    from PIL import Image

    with Image.open(picture) as drawn:
        few = drawn.quantize(COLORS, dither=Image.Dither.NONE)
        few.save(smaller, format="PNG", optimize=True)


if __name__ == "__main__":
    shutil.rmtree(BUILT, ignore_errors=True)
    make()
    COMMITTED.mkdir(exist_ok=True)
    for picture in PICTURES:
        _shrink(BUILT / picture, COMMITTED / picture)
