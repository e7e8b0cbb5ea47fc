"""Runs an evaluation: one input after the other or several at once, kept as they come, so that a second run goes on after a stop."""

import hashlib
import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import ctdeface_worker
from ctdeface_shared.lifecycle import limit_threads
from ctdeface_worker.evaluation.inputs import Input, content_digest
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

    A row is known when an earlier run into the same folder made it of the same content, by the same
    worker's code and the same segmenters, with a measure of the same name.
    """
    made_by = _made_by(plan)
    contents = {each.name: content_digest(each) for each in inputs}
    known = {row.name: row for row in _kept(out / RESULTS, made_by, contents)}
    yield from (known[each.name] for each in inputs if each.name in known)
    fresh = [each for each in inputs if each.name not in known]
    with (out / RESULTS).open("a", encoding="utf-8") as stream:
        for row in _rows(fresh, plan):
            stream.write(
                json.dumps({"row": asdict(row), "made_by": made_by, "content": contents[row.name]})
                + "\n"
            )
            stream.flush()
            yield row


@cache
def code_digest() -> str:
    """SHA-256 over the source of the worker as it was when first asked for: rules, gate, renders and phantoms."""
    package = Path(ctdeface_worker.__file__).parent
    return hashlib.sha256(
        b"".join(source.read_bytes() for source in sorted(package.rglob("*.py")))
    ).hexdigest()


def _made_by(plan: Plan) -> dict[str, Any]:
    """Say what figures depend on besides the input."""
    measure = f"{plan.measure.__module__}.{plan.measure.__qualname__}" if plan.measure else ""
    return {
        "code": code_digest(),
        "measure": measure,
        "digests": {name: _segmenter(name, plan.store).digest for name in plan.segmenters},
    }


def _rows(inputs: Sequence[Input], plan: Plan) -> Iterator[Row]:
    work = partial(_row, segmenters=tuple(plan.segmenters), store=plan.store, measure=plan.measure)
    if plan.jobs == 1:
        yield from map(work, inputs)
        return
    limit_threads(1)  # more threads per process would only wait for each other
    with ProcessPoolExecutor(plan.jobs, initializer=_ignore_interrupts) as pool:
        try:
            yield from (
                done.result() for done in as_completed([pool.submit(work, each) for each in inputs])
            )
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _row(
    wanted: Input, *, segmenters: tuple[str, ...], store: Path | None, measure: Measure | None
) -> Row:
    return try_input(wanted, [_segmenter(name, store) for name in segmenters], measure)


@cache
def _segmenter(name: str, store: Path | None) -> Segmenter:
    """Each process loads a network once."""
    return segmenter_named(name, store)


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to the parent, which ends its children in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _kept(file: Path, made_by: Mapping[str, Any], contents: Mapping[str, str]) -> Iterator[Row]:
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            content = json.loads(line)
        except ValueError:  # the line that a stop cut off
            continue
        name = content["row"]["name"]
        if (
            content.get("made_by") == made_by
            and name in contents
            and content.get("content") == contents[name]
        ):
            yield row_of(content["row"])


def row_of(content: dict[str, Any]) -> Row:
    """Read a row as it was written."""
    results, agreement = (
        [Result(**each) for each in content["results"]],
        [Agreement(**each) for each in content["agreement"]],
    )
    return Row(
        **{
            **content,
            "results": results,
            "agreement": agreement,
            "spacing_mm": tuple(content["spacing_mm"]),
        }
    )
