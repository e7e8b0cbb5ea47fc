"""Remove the faces from a folder of head CT cases.

The same DICOM, defaced, is written to another folder. Each first-level folder of IN is a case;
DICOM directly in IN makes IN one case. IN is never changed. OUT holds released cases only, each
complete from the moment it is visible; reports are in OUT.ctdeface. A second run skips cases that
are released already; with other options it replaces their output and keeps the earlier one in
OUT.ctdeface/archive.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ctdeface_shared.exit_codes import (
    COMMON_EXIT_CODES,
    EXIT_OK,
    EXIT_PARTIAL,
    EXIT_REFUSED,
)

if TYPE_CHECKING:
    from ctdeface_shared.settings.loading import Settings

EXAMPLES = """\
examples:
  ctdeface deface -i scans -o defaced
  ctdeface deface -i scans -o defaced --nifti-root-out nifti --jobs 2
  ctdeface deface -i archive -o defaced --case-depth 2 --profile bulky
"""
EXIT_CODES = {
    **COMMON_EXIT_CODES,
    EXIT_OK: "every case is released",
    EXIT_REFUSED: "at least one case was refused (its report says why), or storage failed",
    EXIT_PARTIAL: "every case is released, but at least one only in part",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options; their defaults come from the settings."""
    parser.add_argument(
        "-i",
        "--in",
        "--dicom-root-in",
        dest="root_in",
        type=Path,
        required=True,
        metavar="IN",
        help="folder of cases",
    )
    parser.add_argument(
        "-o",
        "--out",
        "--dicom-root-out",
        dest="root_out",
        type=Path,
        required=True,
        metavar="OUT",
        help="folder for released cases",
    )
    parser.add_argument(
        "--nifti-root-out",
        type=Path,
        metavar="DIR",
        help="also write <case>/<SeriesUID>_defaced.nii.gz of released cases here",
    )
    parser.add_argument(
        "-w",
        "--work-root",
        type=Path,
        metavar="DIR",
        help="folder for intermediates (default: in the state root)",
    )
    parser.add_argument(
        "--keep-work",
        action="store_true",
        help="keep intermediates in the work root, also the undefaced <SeriesUID>_0000.nii.gz",
    )
    parser.add_argument(
        "--state-root",
        type=Path,
        metavar="DIR",
        help="folder for reports, staging and work (default: OUT.ctdeface)",
    )
    parser.add_argument(
        "--case-depth",
        type=_positive,
        default=1,
        metavar="N",
        help="cases are the folders N levels below IN (default: 1)",
    )
    parser.add_argument(
        "--jobs",
        type=_positive,
        metavar="N",
        help="number of cases at the same time, each in its own process",
    )
    parser.add_argument(
        "--redo", action="store_true", help="repeat cases that are already released"
    )
    add_choices(parser)


def add_choices(parser: argparse.ArgumentParser) -> None:
    """Add the options that change the output."""
    parser.add_argument(
        "--profile",
        choices=("soft-tissue", "bulky"),
        help="soft-tissue (default), or bulky: orbits and facial bone too",
    )
    parser.add_argument("--ears", action="store_true", default=None, help="remove the ears as well")
    parser.add_argument(
        "--fill",
        metavar="HOW",
        help="air (default): the case's own; p10: as CTA-DEFACE does; or a whole number of HU",
    )
    parser.add_argument(
        "--headers",
        choices=("preserve", "annotate"),
        help="preserve (default) every header byte, or annotate as derived",
    )
    parser.add_argument(
        "--on-series-failure",
        choices=("quarantine", "withhold"),
        help="quarantine (default) the whole case, or withhold the series and release the rest",
    )


def run(namespace: argparse.Namespace) -> int:
    """Deface the folder that the options name."""
    return deface_folder(namespace, namespace.root_in, namespace.root_out)


def deface_folder(namespace: argparse.Namespace, root_in: Path, root_out: Path) -> int:
    """Deface every case of a folder and return the exit code.

    The options come from `deface` or from `demo`.
    """
    from ctdeface_shared.settings.loading import load
    from ctdeface_worker.batch.run import BatchPlan, run_batch

    chosen = {
        name: getattr(namespace, name)
        for name in ("profile", "ears", "fill", "headers", "on_series_failure")
    }
    settings: Settings = load(namespace.config).settings.with_choices(**chosen)
    plan = BatchPlan(
        root_in=root_in,
        root_out=root_out,
        state_root=getattr(namespace, "state_root", None)
        or root_out.with_name(f"{root_out.resolve().name}.ctdeface"),
        work_root=getattr(namespace, "work_root", None),
        nifti_root=getattr(namespace, "nifti_root_out", None),
        keep_work=getattr(namespace, "keep_work", False),
        case_depth=getattr(namespace, "case_depth", 1),
        jobs=getattr(namespace, "jobs", None) or settings.work.jobs,
        redo=getattr(namespace, "redo", False),
    )
    return run_batch(plan, settings)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number
