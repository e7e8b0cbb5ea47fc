"""Make a synthetic head CT case and deface it, to see what ctdeface does without any data of your own."""

import argparse
from pathlib import Path

from ctdeface_shared.errors import ConfigurationError
from ctdeface_worker import batch

EXAMPLES = """\
examples:
  ctdeface demo                     writes ./demo/scans, ./demo/defaced and the report in ./demo/defaced.ctdeface
  ctdeface demo --folder /tmp/try   the same elsewhere
  ctdeface demo --profile bulky     any option of `ctdeface deface` about the face mask works here as well
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where the demo goes, and the options of `deface` that change the result."""
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="where to put everything (default: ./demo)")
    parser.add_argument("--seed", type=int, default=1, help="which synthetic head (default: 1)")
    batch.add_choices(parser)


def run(namespace: argparse.Namespace) -> int:
    """Write the synthetic case unless it is there, and deface it like any other folder."""
    from ctdeface_worker.phantom import dicom, head  # noqa: PLC0415  `ctdeface demo --help` needs no imaging library

    scans = namespace.folder / "scans"
    case = scans / f"synthetic-head-{namespace.seed}"
    try:
        if not case.exists():
            case.mkdir(parents=True)
            dicom.write_case(head.make_head(namespace.seed), case)
    except OSError as error:
        message = f"the demo cannot be written to {namespace.folder}: {error.strerror}"
        raise ConfigurationError(message) from error
    return batch.deface_folder(namespace, scans, namespace.folder / "defaced")
