"""An evaluation as tables for a person (Markdown) and as a summary for a program."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean, median
from typing import Any

from ctdeface_worker.evaluation.inputs import SMALLEST_FACE_ML, Kind
from ctdeface_worker.evaluation.pictures import Faces
from ctdeface_worker.evaluation.render import VIEWS
from ctdeface_worker.evaluation.trial import Result, Row

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


def markdown(rows: Sequence[Row], faces: Faces | None = None) -> str:
    """Lay out everything: groups first, then agreement, face detector and every input."""
    parts = [
        by_kind(rows),
        _agreements(rows),
        detector_table(faces) if faces else "",
        _inputs(rows),
    ]
    return "# Evaluation\n\n" + "\n".join(part for part in parts if part)


def summary(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return the figures of every kind of input and segmenter; shares of 1, lengths in mm, None where nothing was measured."""
    every = sorted(rows, key=lambda row: row.name)
    groups: dict[tuple[str, str], list[tuple[Row, Result]]] = {}
    for row in every:
        for result in row.results:
            groups.setdefault((row.kind, result.segmenter), []).append((row, result))
    return [
        {"kind": kind, "segmenter": segmenter, **_figures(pairs)}
        for (kind, segmenter), pairs in sorted(groups.items())
    ]


def _figures(pairs: Sequence[tuple[Row, Result]]) -> dict[str, Any]:
    """Count releases among what has a face, as far as anybody knows, and describe what was released."""
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
    there = sorted(value for value in values if value is not None)
    if not there:
        return None
    return {
        "count": len(there),
        "mean": fmean(there),
        "median": median(there),
        "least": there[0],
        "most": there[-1],
    }


def by_kind(rows: Sequence[Row]) -> str:
    """Lay out the figures of every kind of input and segmenter."""
    head = (
        "kind",
        "segmenter",
        "released of those with a face",
        "released of those without",
        "refused",
    )
    more = (
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
    return _table("By kind", (*head, *more), lines)


def _agreements(rows: Sequence[Row]) -> str:
    pairs: dict[tuple[str, str, str], list[tuple[float, float | None]]] = {}
    for row in rows:
        for each in row.agreement:
            pairs.setdefault((row.kind, each.one, each.other), []).append(
                (each.dice, each.hausdorff95_mm)
            )
    lines = []
    for (kind, one, other), figures in sorted(pairs.items()):
        alike, apart = _spread(dice for dice, _ in figures), _spread(mm for _, mm in figures)
        lines.append(
            (
                kind,
                f"{one} and {other}",
                str(len(figures)),
                f"{alike['mean']:.3f} ({alike['least']:.3f})" if alike else "",
                f"{apart['mean']:.1f} mm ({apart['most']:.1f} mm)" if apart else "",
            )
        )
    return _table(
        "Agreement in tissue",
        ("kind", "segmenters", "inputs", "Dice, mean (least)", "border 95 %, mean (most)"),
        lines,
    )


def detector_table(faces: Faces) -> str:
    """Lay out what the detector sees of every input, before and after."""
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


def _inputs(rows: Sequence[Row]) -> str:
    lines = [
        line for row in sorted(rows, key=lambda row: (row.kind, row.name)) for line in _lines(row)
    ]
    return _table("Every input", CASES, lines)


def _lines(row: Row) -> Iterator[tuple[str, ...]]:
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


def line(row: Row) -> str:
    """One input for a person who waits."""
    said = []
    for result in row.results:
        skin = "" if result.skin_removed is None else f", skin removed {result.skin_removed:.2%}"
        alike = "" if result.tissue_dice is None else f", tissue Dice {result.tissue_dice:.3f}"
        said.append(
            f"{result.segmenter}: {result.code or 'released'}{skin}{alike}, {result.segment_seconds:.1f} s"
        )
    return f"{row.name}  {'; '.join(said)}"


def _table(title: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    if not lines:
        return ""
    rows = [head, ["---"] * len(head), *lines]
    return f"## {title}\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in rows) + "\n"
