"""Results of an evaluation as tables and as JSON."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean, median
from typing import Any

from ctdeface_worker.evaluation.inputs import SMALLEST_FACE_ML, Kind
from ctdeface_worker.evaluation.pictures import Faces
from ctdeface_worker.evaluation.render import VIEWS
from ctdeface_worker.evaluation.results import InputResult, SegmenterResult

CASES = (
    "input",
    "segmenter",
    "outcome",
    "skin removed",
    "overlap",
    "ml",
    "Dice",
    "tissue Dice",
    "border 95 %",
    "s segment",
    "s whole",
)


def markdown(rows: Sequence[InputResult], faces: Faces | None = None) -> str:
    """Return the report: groups, agreement, face detector, every input."""
    parts = [
        by_kind(rows),
        _agreements(rows),
        detector_table(faces) if faces else "",
        _inputs(rows),
    ]
    return "# Evaluation\n\n" + "\n".join(part for part in parts if part)


def summary(rows: Iterable[InputResult]) -> list[dict[str, Any]]:
    """Return the figures per kind of input and segmenter.

    Shares are between 0 and 1, lengths in mm; None if nothing was measured.
    """
    every = sorted(rows, key=lambda row: row.name)
    groups: dict[tuple[str, str], list[tuple[InputResult, SegmenterResult]]] = {}
    for row in every:
        for result in row.results:
            groups.setdefault((row.kind, result.segmenter), []).append((row, result))
    return [
        {"kind": kind, "segmenter": segmenter, **_figures(pairs)}
        for (kind, segmenter), pairs in sorted(groups.items())
    ]


def _figures(pairs: Sequence[tuple[InputResult, SegmenterResult]]) -> dict[str, Any]:
    """Return counts of releases and spreads of figures."""
    with_face = [
        result
        for row, result in pairs
        if row.kind != Kind.NO_FACE and (row.face_ml is None or row.face_ml >= SMALLEST_FACE_ML)
    ]
    without = [result for row, result in pairs if row.kind == Kind.NO_FACE or row.face_ml == 0]
    results = [result for _, result in pairs]
    released = [result for result in results if result.released]
    measured = sorted({name for result in released for name in result.measured})
    return {
        "inputs": len(pairs),
        "with_face": len(with_face),
        "released_with_face": sum(result.released for result in with_face),
        "without_face": len(without),
        "released_without_face": sum(result.released for result in without),
        "refused": dict(Counter(result.code for result in results if not result.released)),
        "skin_removed": _spread(result.skin_removed for result in released),
        **{name: _spread(result.measured.get(name) for result in released) for name in measured},
        **{
            f"{name}_by_truth": _spread(
                row.truth_measured.get(name) for row, result in pairs if result.released
            )
            for name in measured
        },
        "overlap_voxels": sum(result.overlap_voxels for result in released),
        "dice": _spread(result.dice for result in with_face),
        "tissue_dice": _spread(result.tissue_dice for result in with_face),
        "face_kept": _spread(result.face_kept for result in released),
        "truth95_mm": _spread(result.truth95_mm for result in with_face),
        "mask_ml": _spread(result.mask_ml for result in released),
        "segment_seconds": _spread(result.segment_seconds for result in results),
        "whole_seconds": _spread(result.whole_seconds for result in released),
    }


def _spread(values: Iterable[float | None]) -> dict[str, float] | None:
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    return {
        "count": len(known),
        "mean": fmean(known),
        "median": median(known),
        "least": known[0],
        "most": known[-1],
    }


def by_kind(rows: Sequence[InputResult]) -> str:
    """Return the table of kinds of inputs and segmenters."""
    head = (
        "kind",
        "segmenter",
        "released of those with a face",
        "released of those without",
        "refused",
    )
    columns = (
        "skin removed, median (least)",
        "overlap",
        "Dice",
        "tissue Dice",
        "border 95 %",
        "s segment",
    )
    lines = []
    for group in summary(rows):
        refused = ", ".join(f"{count} {code}" for code, count in sorted(group["refused"].items()))
        skin = group["skin_removed"]
        lines.append(
            (
                group["kind"],
                group["segmenter"],
                f"{group['released_with_face']} / {group['with_face']}",
                f"{group['released_without_face']} / {group['without_face']}",
                refused or "none",
                f"{skin['median']:.2%} ({skin['least']:.2%})" if skin else "",
                str(group["overlap_voxels"]),
                *(
                    f"{group[name]['mean']:.3f}" if group[name] else ""
                    for name in ("dice", "tissue_dice")
                ),
                f"{group['truth95_mm']['mean']:.1f} mm" if group["truth95_mm"] else "",
                f"{group['segment_seconds']['median']:.1f}",
            )
        )
    return _table("By kind", (*head, *columns), lines)


def _agreements(rows: Sequence[InputResult]) -> str:
    pairs: dict[tuple[str, str, str], list[tuple[float, float | None]]] = {}
    for row in rows:
        for each in row.agreement:
            pairs.setdefault((row.kind, each.one, each.other), []).append(
                (each.dice, each.hausdorff95_mm)
            )
    lines = []
    for (kind, one, other), figures in sorted(pairs.items()):
        similarity, distance = (
            _spread(dice for dice, _ in figures),
            _spread(mm for _, mm in figures),
        )
        lines.append(
            (
                kind,
                f"{one} and {other}",
                str(len(figures)),
                f"{similarity['mean']:.3f} ({similarity['least']:.3f})" if similarity else "",
                f"{distance['mean']:.1f} mm ({distance['most']:.1f} mm)" if distance else "",
            )
        )
    return _table(
        "Agreement in tissue",
        ("kind", "segmenters", "inputs", "Dice, mean (least)", "border 95 %, mean (most)"),
        lines,
    )


def detector_table(faces: Faces) -> str:
    """Return the table of the face detector's probabilities."""
    lines = [
        (
            name,
            kind,
            *(f"{views[view]:.2f}" if view in views else "" for view in VIEWS),
            f"{fmean(views.values()):.2f}",
        )
        for name, kinds in sorted(faces.items())
        for kind, views in sorted(kinds.items(), key=lambda item: (item[0] != "before", item[0]))
    ]
    return _table(
        "Probability of a face, by a detector made for photographs",
        ("input", "what", *VIEWS, "mean"),
        lines,
    )


def _inputs(rows: Sequence[InputResult]) -> str:
    lines = [
        line for row in sorted(rows, key=lambda row: (row.kind, row.name)) for line in _lines(row)
    ]
    return _table("Every input", CASES, lines)


def _lines(row: InputResult) -> Iterator[tuple[str, ...]]:
    for result in row.results:
        yield (
            row.name,
            result.segmenter,
            result.code or "released",
            "" if result.skin_removed is None else f"{result.skin_removed:.2%}",
            str(result.overlap_voxels),
            *("" if value is None else f"{value:.0f}" for value in (result.mask_ml,)),
            *(
                "" if value is None else f"{value:.3f}"
                for value in (result.dice, result.tissue_dice)
            ),
            "" if result.truth95_mm is None else f"{result.truth95_mm:.1f}",
            f"{result.segment_seconds:.1f}",
            f"{result.whole_seconds:.1f}" if result.whole_seconds else "",
        )


def line(row: InputResult) -> str:
    """Return one input's results as a terminal line."""
    results = []
    for result in row.results:
        skin = "" if result.skin_removed is None else f", skin removed {result.skin_removed:.2%}"
        dice = "" if result.tissue_dice is None else f", tissue Dice {result.tissue_dice:.3f}"
        outcome = result.code or "released"
        results.append(f"{result.segmenter}: {outcome}{skin}{dice}, {result.segment_seconds:.1f} s")
    return f"{row.name}  {'; '.join(results)}"


def _table(title: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    if not lines:
        return ""
    rows = [head, ["---"] * len(head), *lines]
    return f"## {title}\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in rows) + "\n"
