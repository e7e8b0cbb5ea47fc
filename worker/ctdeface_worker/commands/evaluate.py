"""Measure what segmenters make of heads: released or refused, skin removed, brain touched, masks against truth and each other, seconds.

DATA holds DICOM cases (first-level folders) and NIfTI volumes in HU; of a case the longest series
counts. Phantoms with a known face, and scans without any, are made on the spot. Everything happens
in memory: no defaced file is written. OUT gets results.jsonl (a row per input as soon as it is
done; the same command goes on after a stop), table.md and summary.json.

With --renders or --detector-python, OUT/renders holds pictures of the DICOM cases before and after:
treat that folder as patients' data. The detector's probabilities are figures to report, not a
threshold: it takes bare skulls and flat cuts for faces as well.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.exit_codes import COMMON_EXIT_CODES, EXIT_OK, EXIT_REFUSED

if TYPE_CHECKING:
    from ctdeface_worker.evaluation.inputs import Input
    from ctdeface_worker.evaluation.trial import Measure

EXAMPLES = """\
examples:
  ctdeface evaluate --out figures --phantoms 20 --no-face 10         synthetic heads alone
  ctdeface evaluate ct --out figures --segmenter geometric --segmenter network
  ctdeface evaluate ct --out figures --phantoms 300 --unseen --no-face 60 --held-out --jobs 2
  ctdeface evaluate ct --out figures --detector-python .mtcnn/bin/python    docs/trust/evaluation.md says how to make that environment
"""
EXIT_CODES = {
    **COMMON_EXIT_CODES,
    EXIT_OK: "everything is measured, and nothing wrong was released",
    EXIT_REFUSED: "a scan without a face was released, or a released mask contains brain",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is measured, with what, and where it goes."""
    parser.add_argument(
        "data",
        type=Path,
        nargs="?",
        metavar="DATA",
        help="folder of DICOM cases and NIfTI volumes (default: none)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="where results go; a stopped run goes on there",
    )
    parser.add_argument(
        "--segmenter",
        action="append",
        metavar="NAME",
        help="what finds the face; may be repeated (default: geometric, and network if it is there)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help="of DATA only the cases and volumes of these names",
    )
    parser.add_argument(
        "--held-out",
        action="store_true",
        help="of DATA only NIfTI volumes that no training of ours reads, and all cases",
    )
    parser.add_argument(
        "--phantoms",
        type=int,
        default=0,
        metavar="N",
        help="synthetic heads with a known face (default: 0)",
    )
    parser.add_argument(
        "--unseen", action="store_true", help="phantoms such as training never sees"
    )
    parser.add_argument(
        "--no-face",
        type=int,
        default=0,
        metavar="N",
        help="synthetic scans without a face (default: 0)",
    )
    parser.add_argument(
        "--renders",
        action="store_true",
        help="draw DICOM cases and a synthetic head before and after, from five sides",
    )
    parser.add_argument(
        "--detector-python",
        type=Path,
        metavar="PATH",
        help="draw, and let a face detector in this environment look",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="inputs worked on at the same time (default: 1)",
    )


def run(namespace: argparse.Namespace) -> int:
    """Measure and write the tables."""
    return evaluate(namespace, None)


def evaluate(namespace: argparse.Namespace, measure: "Measure | None") -> int:
    """Measure, with further figures if given, and return 1 when something was released that has no face, or with brain in the mask."""
    from ctdeface_shared.settings.loading import load
    from ctdeface_worker.evaluation import pictures, table
    from ctdeface_worker.evaluation.inputs import Kind, synthetic
    from ctdeface_worker.evaluation.run import Plan
    from ctdeface_worker.evaluation.run import run as rows_of
    from ctdeface_worker.segmentation.choice import segmenter_named

    if namespace.detector_python and not namespace.detector_python.is_file():
        raise ConfigurationError(
            f"there is no Python at {namespace.detector_python}; docs/trust/evaluation.md says how to make the detector's environment"
        )
    console = Console(highlight=False, soft_wrap=True)
    store = load(namespace.config).settings.models.place
    names, inputs = namespace.segmenter or _usual(), _inputs(namespace)
    namespace.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for row in rows_of(
        inputs,
        Plan(segmenters=names, store=store, jobs=max(namespace.jobs, 1), measure=measure),
        namespace.out,
    ):
        rows.append(row)
        console.print(f"{len(rows):4d}/{len(inputs)}  {table.line(row)}", markup=False)
    faces = None
    if namespace.renders or namespace.detector_python:
        shown = [*(each for each in inputs if each.kind == Kind.CASE), synthetic()]
        segmenters = [segmenter_named(each, store) for each in names]
        for name in pictures.draw(shown, segmenters, namespace.out):
            console.print(f"drawn: {name}", markup=False)
        if namespace.detector_python:
            faces = pictures.detect(namespace.detector_python, shown, segmenters, namespace.out)
    figures = table.summary(rows)
    (namespace.out / "summary.json").write_text(
        json.dumps({"groups": figures, "faces": faces}, indent=1), encoding="utf-8"
    )
    (namespace.out / "table.md").write_text(table.markdown(rows, faces), encoding="utf-8")
    console.print(
        table.by_kind(rows) + (table.detector_table(faces) if faces else ""), markup=False
    )
    console.print(f"every input: {namespace.out / 'table.md'}", markup=False)
    wrong = any(group["released_without_face"] or group["overlap_voxels"] for group in figures)
    return EXIT_REFUSED if wrong else EXIT_OK


def _inputs(namespace: argparse.Namespace) -> "Sequence[Input]":
    from ctdeface_worker.evaluation import inputs
    from ctdeface_worker.training.held_out import is_held_out

    if namespace.data is not None and not namespace.data.is_dir():
        raise ConfigurationError(f"there is no folder at {namespace.data}")
    given = list(inputs.found(namespace.data)) if namespace.data else []
    if namespace.held_out:
        given = [
            each
            for each in given
            if each.path is None
            or each.kind != inputs.Kind.VOLUME
            or is_held_out(inputs.stem(each.path))
        ]
    if unknown := sorted({*(namespace.only or ())} - {each.name for each in given}):
        raise ConfigurationError(
            f"{', '.join(unknown)}: there is no such input in {namespace.data or 'DATA, which is missing'}"
        )
    if namespace.only:
        given = [each for each in given if each.name in namespace.only]
    made = [
        *inputs.phantoms(namespace.phantoms, unseen=namespace.unseen),
        *inputs.without_faces(namespace.no_face),
    ]
    if not (given or made or namespace.renders or namespace.detector_python):
        raise ConfigurationError(
            "there is nothing to measure: name a folder of DICOM cases or NIfTI volumes, --phantoms or --no-face"
        )
    return [*given, *made]


def _usual() -> list[str]:

    from ctdeface_worker.segmentation.models import store as models

    return ["geometric"] if models.shipped() is None else ["geometric", "network"]
