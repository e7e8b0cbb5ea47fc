"""Pictures and reports for the site, all of the synthetic head: made once per checkout, never committed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

PLACE = Path(__file__).resolve().parents[2] / "build/pictures"
NAMES = ("before.png", "after.png", "released.html", "refused.html")
_REFUSED_CASE = "slices-are-missing"


def made() -> Mapping[str, Path]:
    """Return the pictures by their place in the site; make them where there are none."""
    if not all((PLACE / name).is_file() for name in NAMES):
        _make()
    return {f"pictures/{name}": PLACE / name for name in NAMES}


def _make() -> None:
    """Run the demo, then the same head with slices taken out of its middle, and keep what a person would look at."""
    from ctdeface_worker.phantom.head import make_head
    from ctdeface_worker.pipeline.preview import write_preview

    PLACE.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        root = Path(folder)
        write_preview(
            make_head(1).volume, PLACE / NAMES[0], title="The synthetic head before: it is nobody"
        )
        _run("demo", "--folder", root)
        reports = root / "defaced.ctdeface/reports"
        _keep(reports, "*/*/preview/*.png", NAMES[1])
        _keep(reports, "*/*/report.html", NAMES[2])
        scans = (root / "scans/synthetic-head-1").rename(root / _REFUSED_CASE)
        for file in sorted(scans.glob("IM*.dcm"))[60:63]:
            file.unlink()
        scans.rename(root / "scans" / _REFUSED_CASE)
        _run("deface", "-i", root / "scans", "-o", root / "defaced", code=1)
        _keep(reports, f"{_REFUSED_CASE}/*/report.html", NAMES[3])


def _run(*words: str | Path, code: int = 0) -> None:
    command = [sys.executable, "-m", "ctdeface_shared", *map(str, words)]
    settings = {
        name: value for name, value in os.environ.items() if not name.startswith("CTDEFACE_")
    }
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    if done.returncode != code:
        raise RuntimeError(
            f"ctdeface {words[0]} ended with {done.returncode} instead of {code}: {done.stderr.strip()[-300:]}"
        )


def _keep(reports: Path, pattern: str, name: str) -> None:
    (found,) = reports.glob(pattern)
    shutil.copyfile(found, PLACE / name)
