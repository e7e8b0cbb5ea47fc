"""Evaluate segmenters on heads.

The results are outcome, removed skin, brain in the mask, Dice and seconds.

DATA contains DICOM cases (first-level folders) and NIfTI volumes in HU; the longest series of a
case counts. Phantoms with a known face, and scans without a face, are generated. The evaluation
works in memory and writes no defaced file. OUT gets results.jsonl (one line per input as soon as
it is done; the same command resumes after a stop), table.md and summary.json.

With --renders or --detector-python, OUT/renders contains pictures of the DICOM cases before and
after: treat that folder as patient data. The probabilities of the detector are figures to report,
not a threshold: it also takes bare skulls and flat cuts for faces.
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
    from ctdeface_worker.evaluation.results import Measure

EXAMPLES = """\
examples:
  ctdeface evaluate --out figures --phantoms 20 --no-face 10
      synthetic heads only
  ctdeface evaluate ct --out figures --segmenter geometric --segmenter network
  ctdeface evaluate ct --out figures --phantoms 300 --unseen --no-face 60 --held-out --jobs 2
  ctdeface evaluate ct --out figures --detector-python .mtcnn/bin/python
      docs/trust/evaluation.md describes the detector's environment
"""
EXIT_CODES = {
    **COMMON_EXIT_CODES,
    EXIT_OK: "every input was evaluated, and nothing wrong was released",
    EXIT_REFUSED: "a scan without a face was released, or a released mask contains brain",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for inputs, segmenters and results."""
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
        help="folder for the results; a stopped evaluation resumes there",
    )
    parser.add_argument(
        "--segmenter",
        action="append",
        metavar="NAME",
        help="segmenter to evaluate; repeatable (default: geometric, and network if installed)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help="use only these cases and volumes of DATA",
    )
    parser.add_argument(
        "--held-out",
        action="store_true",
        help="use all cases of DATA, but only NIfTI volumes that training never reads",
    )
    parser.add_argument(
        "--phantoms",
        type=int,
        default=0,
        metavar="N",
        help="number of synthetic heads with a known face (default: 0)",
    )
    parser.add_argument(
        "--unseen", action="store_true", help="use phantoms of a kind that training never uses"
    )
    parser.add_argument(
        "--no-face",
        type=int,
        default=0,
        metavar="N",
        help="number of synthetic scans without a face (default: 0)",
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
        help="draw, and run the face detector of this Python environment on the pictures",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="number of inputs at the same time (default: 1)",
    )


def run(namespace: argparse.Namespace) -> int:
    """Evaluate and write the tables."""
    return evaluate(namespace, None)


def evaluate(namespace: argparse.Namespace, measure: "Measure | None") -> int:
    """Evaluate with optional further figures, and write the tables.

    Returns:
        1 if a scan without a face was released, or a mask contains brain; otherwise 0.
    """
    from ctdeface_shared.settings.loading import load
    from ctdeface_worker.evaluation import pictures, table
    from ctdeface_worker.evaluation.inputs import Kind, synthetic
    from ctdeface_worker.evaluation.run import EvaluationOptions
    from ctdeface_worker.evaluation.run import run as run_evaluation
    from ctdeface_worker.segmentation.choice import segmenter_named

    if namespace.detector_python and not namespace.detector_python.is_file():
        raise ConfigurationError(
            f"no Python was found at {namespace.detector_python}: {pictures.SETUP}"
        )
    console = Console(highlight=False, soft_wrap=True)
    store = load(namespace.config).settings.models.place
    names, inputs = namespace.segmenter or _default_segmenters(), _inputs(namespace)
    namespace.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for row in run_evaluation(
        inputs,
        EvaluationOptions(
            segmenters=names, store=store, jobs=max(namespace.jobs, 1), measure=measure
        ),
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
        raise ConfigurationError(f"{namespace.data} is not a folder: DATA must be one")
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
            f"{namespace.data or 'DATA, which is missing,'} has no input named"
            f" {', '.join(unknown)}: correct --only"
        )
    if namespace.only:
        given = [each for each in given if each.name in namespace.only]
    made = [
        *inputs.phantoms(namespace.phantoms, unseen=namespace.unseen),
        *inputs.without_faces(namespace.no_face),
    ]
    if not (given or made or namespace.renders or namespace.detector_python):
        raise ConfigurationError(
            "there is nothing to evaluate: name a folder of DICOM cases or NIfTI volumes, or set"
            " --phantoms or --no-face"
        )
    return [*given, *made]


def _default_segmenters() -> list[str]:

    from ctdeface_worker.segmentation.models import store as models

    return ["geometric"] if models.shipped() is None else ["geometric", "network"]
