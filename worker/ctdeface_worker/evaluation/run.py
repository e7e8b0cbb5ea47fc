"""Evaluation of many inputs, in parallel processes if wanted.

Each result is stored immediately, so that a later run resumes after a stop.
"""

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
from ctdeface_worker.evaluation.results import (
    Agreement,
    InputResult,
    Measure,
    SegmenterResult,
    evaluate_input,
)
from ctdeface_worker.segmentation.base import Segmenter
from ctdeface_worker.segmentation.choice import segmenter_named

RESULTS = "results.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """Options of an evaluation.

    Attributes:
        segmenters: names as in the settings.
        store: folder of installed networks, None for the user's.
        jobs: number of processes, each with one input at a time.
        measure: further figures, or None.
    """

    segmenters: Sequence[str]
    store: Path | None = None
    jobs: int = 1
    measure: Measure | None = None


def run(inputs: Sequence[Input], options: EvaluationOptions, out: Path) -> Iterator[InputResult]:
    """Yield the results of every input, known ones first.

    New results are stored before they are yielded. Results are known if an earlier run stored them
    in the same folder for the same content, code, segmenters and name of the measure.
    """
    made_by = _made_by(options)
    contents = {each.name: content_digest(each) for each in inputs}
    known = {row.name: row for row in _kept(out / RESULTS, made_by, contents)}
    yield from (known[each.name] for each in inputs if each.name in known)
    fresh = [each for each in inputs if each.name not in known]
    with (out / RESULTS).open("a", encoding="utf-8") as stream:
        for row in _rows(fresh, options):
            line = {"row": asdict(row), "made_by": made_by, "content": contents[row.name]}
            stream.write(json.dumps(line) + "\n")
            stream.flush()
            yield row


@cache
def code_digest() -> str:
    """Return the SHA-256 of the source at first call."""
    package = Path(ctdeface_worker.__file__).parent
    sources = (source.read_bytes() for source in sorted(package.rglob("*.py")))
    return hashlib.sha256(b"".join(sources)).hexdigest()


def _made_by(options: EvaluationOptions) -> dict[str, Any]:
    """Return what the figures depend on besides the input."""
    measure = (
        f"{options.measure.__module__}.{options.measure.__qualname__}" if options.measure else ""
    )
    return {
        "code": code_digest(),
        "measure": measure,
        "digests": {name: _segmenter(name, options.store).digest for name in options.segmenters},
    }


def _rows(inputs: Sequence[Input], options: EvaluationOptions) -> Iterator[InputResult]:
    work = partial(
        _row, segmenters=tuple(options.segmenters), store=options.store, measure=options.measure
    )
    if options.jobs == 1:
        yield from map(work, inputs)
        return
    limit_threads(1)  # more threads per process would only wait for each other
    with ProcessPoolExecutor(options.jobs, initializer=_ignore_interrupts) as pool:
        try:
            futures = [pool.submit(work, each) for each in inputs]
            yield from (future.result() for future in as_completed(futures))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _row(
    wanted: Input, *, segmenters: tuple[str, ...], store: Path | None, measure: Measure | None
) -> InputResult:
    return evaluate_input(wanted, [_segmenter(name, store) for name in segmenters], measure)


@cache
def _segmenter(name: str, store: Path | None) -> Segmenter:
    """Return a segmenter; each process loads a network once."""
    return segmenter_named(name, store)


def _ignore_interrupts() -> None:
    """Ignore Ctrl-C; the parent stops its children."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _kept(
    file: Path, made_by: Mapping[str, Any], contents: Mapping[str, str]
) -> Iterator[InputResult]:
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            content = json.loads(line)
        except ValueError:  # a truncated last line
            continue
        name = content["row"]["name"]
        is_current = content.get("made_by") == made_by and name in contents
        if is_current and content.get("content") == contents[name]:
            yield parse_result(content["row"])


def parse_result(content: dict[str, Any]) -> InputResult:
    """Parse the stored results of one input."""
    results = [SegmenterResult(**each) for each in content["results"]]
    agreement = [Agreement(**each) for each in content["agreement"]]
    return InputResult(
        **{
            **content,
            "results": results,
            "agreement": agreement,
            "spacing_mm": tuple(content["spacing_mm"]),
        }
    )
