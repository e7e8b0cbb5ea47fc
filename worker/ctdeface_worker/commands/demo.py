"""Make a synthetic head CT case and deface it.

It shows what ctdeface does without any data of your own.
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.exit_codes import (
    COMMON_EXIT_CODES,
    EXIT_OK,
    EXIT_PARTIAL,
    EXIT_REFUSED,
)
from ctdeface_worker.commands import deface

EXAMPLES = """\
examples:
  ctdeface demo                     writes scans, defaced and defaced.ctdeface (report) in ./demo
  ctdeface demo --folder /tmp/try   the same elsewhere
  ctdeface demo --drop spool/inbox  only drop the synthetic case into the inbox of `ctdeface up`
  ctdeface demo --profile bulky     options of `ctdeface deface` for the output work here as well
"""
EXIT_CODES = {
    **COMMON_EXIT_CODES,
    EXIT_OK: "the synthetic case is made, and released unless it was only dropped",
    EXIT_REFUSED: "the case was refused (its report says why)",
    EXIT_PARTIAL: "the case is released only in part",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the demo."""
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("demo"),
        help="where to put everything (default: ./demo)",
    )
    parser.add_argument(
        "--drop",
        type=Path,
        metavar="INBOX",
        help="drop the case into the inbox of a service, and do nothing else",
    )
    parser.add_argument("--seed", type=int, default=1, help="which synthetic head (default: 1)")
    deface.add_choices(parser)


def run(namespace: argparse.Namespace) -> int:
    """Write the synthetic case unless it exists, and deface it."""
    scans = namespace.drop or namespace.folder / "scans"
    case = scans / f"synthetic-head-{namespace.seed}"
    try:
        _write(case, namespace.seed)
    except OSError as error:
        raise ConfigurationError(
            f"the synthetic case cannot be written to {scans}: {error.strerror}"
        ) from error
    if namespace.drop:
        sys.stdout.write(f"{case} is dropped\n")
        return EXIT_OK
    return deface.deface_folder(namespace, scans, namespace.folder / "defaced")


def _write(case: Path, seed: int) -> None:
    """Write the case so that it appears atomically, unless it exists."""
    from ctdeface_worker.phantom import dicom, head

    if case.exists():
        return
    case.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=case.parent, prefix=".") as aside:
        dicom.write_case(head.make_head(seed), Path(aside) / case.name)
        (Path(aside) / case.name).rename(case)
