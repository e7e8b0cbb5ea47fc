"""Runs an evaluation: one input after the other or several at once, kept as they come, so that a second run goes on after a stop."""

import json
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from ctdeface_worker.evaluation.inputs import Input
from ctdeface_worker.evaluation.trial import Agreement, Measure, Result, Row, try_input
from ctdeface_worker.segmentation.base import Segmenter
from ctdeface_worker.segmentation.choice import segmenter_named

RESULTS = "results.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run.

    Attributes:
        segmenters: names, as settings have them.
        jobs: inputs worked on at the same time, each in a process of its own.
        measure: further figures, or None.
        store: folder of installed networks, None for the user's.
    """

    segmenters: Sequence[str]
    store: Path | None = None
    jobs: int = 1
    measure: Measure | None = None


def run(inputs: Sequence[Input], plan: Plan, out: Path) -> Iterator[Row]:
    """Yield a row for every input, the known ones first; each new one is on the disk before it is yielded.

    A row is known when an earlier run into the same folder made it with the same segmenters (name and digest).
    """
    digests = {name: _segmenter(name, plan.store).digest for name in plan.segmenters}
    known = {row.name: row for row in _kept(out / RESULTS, digests)}
    yield from (known[each.name] for each in inputs if each.name in known)
    fresh = [each for each in inputs if each.name not in known]
    with (out / RESULTS).open("a", encoding="utf-8") as stream:
        for row in _rows(fresh, plan):
            stream.write(json.dumps({"row": asdict(row), "digests": digests}) + "\n")
            stream.flush()
            yield row


def _rows(inputs: Sequence[Input], plan: Plan) -> Iterator[Row]:
    work = partial(_row, segmenters=tuple(plan.segmenters), store=plan.store, measure=plan.measure)
    if plan.jobs == 1:
        yield from map(work, inputs)
        return
    for threads in ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):  # one per process, or they wait for each other
        os.environ.setdefault(threads, "1")
    with ProcessPoolExecutor(plan.jobs, initializer=_ignore_interrupts) as pool:
        try:
            yield from (done.result() for done in as_completed([pool.submit(work, each) for each in inputs]))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _row(wanted: Input, *, segmenters: tuple[str, ...], store: Path | None, measure: Measure | None) -> Row:
    return try_input(wanted, [_segmenter(name, store) for name in segmenters], measure)


@cache
def _segmenter(name: str, store: Path | None) -> Segmenter:
    """Each process loads a network once."""
    return segmenter_named(name, store)


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to the parent, which ends its children in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _kept(file: Path, digests: dict[str, str]) -> Iterator[Row]:
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            content = json.loads(line)
        except ValueError:  # the line that a stop cut off
            continue
        if content["digests"] == digests:
            yield row_of(content["row"])


def row_of(content: dict[str, Any]) -> Row:
    """Read a row as it was written."""
    results, agreement = [Result(**each) for each in content["results"]], [Agreement(**each) for each in content["agreement"]]
    return Row(**{**content, "results": results, "agreement": agreement, "spacing_mm": tuple(content["spacing_mm"])})
