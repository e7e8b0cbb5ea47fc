"""Measure seconds per stage and peak memory of each real case.

Run by `make bench`. The command line is measured from outside, as a user runs it; the stages are
those of its reports.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from rich.console import Console
from rich.table import Table

CTDEFACE = Path(sys.executable).with_name("ctdeface")
NOT_DICOM = "openkbp"
KILOBYTES_PER_UNIT = 1 / 1024 if sys.platform == "darwin" else 1
"""The operating systems do not agree on the unit of ru_maxrss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of the command over one case.

    Attributes:
        seconds: from start to end of the command.
        peak_mb: largest resident memory of any of its processes.
        outcome: the exit code and, for a refused case, its code.
        stages: seconds per stage from the report of the last case.
    """

    seconds: float
    peak_mb: float
    outcome: str
    stages: dict[str, float]


def main() -> int:
    """Measure every case and print one row for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="runs per case; medians are shown (default: 3)"
    )
    parser.add_argument(
        "cases",
        nargs="*",
        type=Path,
        help="case folders (default: the DICOM cases of CTDEFACE_REAL_DATA)",
    )
    namespace = parser.parse_args()
    cases = namespace.cases or real_cases()
    if not cases:
        parser.error("name case folders, or set CTDEFACE_REAL_DATA to the folder with real CT")
    console = Console(width=None if sys.stdout.isatty() else 200)
    for case in cases:
        console.print(
            table_of(case, [measure(case) for _ in range(namespace.repeats)], namespace.repeats)
        )
    return 0


def real_cases() -> list[Path]:
    """The DICOM cases of the real data, none where there is no real data."""
    named = os.environ.get("CTDEFACE_REAL_DATA")
    return (
        sorted(
            folder
            for folder in Path(named).iterdir()
            if folder.is_dir() and folder.name != NOT_DICOM
        )
        if named
        else []
    )


def measure(case: Path) -> Run:
    """Deface a case, or the cases of a folder, into a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder, "state")
        command: list[str | Path] = [
            CTDEFACE,
            "deface",
            "-i",
            case,
            "-o",
            Path(folder, "out"),
            "--state-root",
            state,
        ]
        start = perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        reports = [
            json.loads(file.read_text(encoding="utf-8"))
            for file in sorted(state.rglob("report.json"))
        ]
    return Run(
        seconds=seconds,
        peak_mb=usage.ru_maxrss * KILOBYTES_PER_UNIT / 1024,
        outcome=", ".join(
            [
                f"exit {process.returncode}",
                *(f"{report['state']} {report['result']['code']}".strip() for report in reports),
            ]
        ),
        stages=reports[-1]["result"]["seconds"] if reports else {},
    )


def copy_seconds(case: Path) -> float:
    """Read, hash and copy every file of a case: the least that any tool has to do."""
    with tempfile.TemporaryDirectory() as folder:
        start = perf_counter()
        for number, file in enumerate(file for file in sorted(case.rglob("*")) if file.is_file()):
            hashlib.sha256(file.read_bytes()).hexdigest()
            shutil.copyfile(file, Path(folder, str(number)))
        return perf_counter() - start


def table_of(case: Path, runs: list[Run], repeats: int) -> Table:
    """Lay out the medians of one case."""
    files = [file for file in case.rglob("*") if file.is_file()]
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    title = f"{case.name}: {len(files)} files, {megabytes:.1f} MB, {runs[0].outcome}"
    table = Table("what", "median seconds", title=title, title_justify="left")
    table.add_row("read + hash + copy", f"{median(copy_seconds(case) for _ in range(repeats)):.2f}")
    for stage in runs[0].stages:
        table.add_row(f"stage {stage}", f"{median(run.stages.get(stage, 0.0) for run in runs):.2f}")
    table.add_row("the whole command", f"{median(run.seconds for run in runs):.2f}")
    table.add_row("peak memory", f"{max(run.peak_mb for run in runs):.0f} MB")
    return table


if __name__ == "__main__":
    sys.exit(main())
