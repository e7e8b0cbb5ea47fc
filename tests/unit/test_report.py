"""The report: its JSON, its schema, and the page that a person reads."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ctdeface_shared.jobs.manifest import Manifest, job_id
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_worker.case.child_process import WorkerTimedOut
from ctdeface_worker.imaging.domain import DifferenceKind, ExpectedDifference, Fate
from ctdeface_worker.pipeline.result import CaseResult, FileResult, SeriesResult
from ctdeface_worker.report.html import file_groups, render
from ctdeface_worker.report.model import (
    SCHEMA_VERSION,
    CaseReport,
    State,
    describe,
    encoded_schema,
    failed,
    json_schema,
)
from ctdeface_worker.verification.check import Check

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "worker/ctdeface_worker/report/schemas/report.schema.json"
PAGE = (ROOT / "docs/reference/report.md").read_text(encoding="utf-8")
MANIFEST = Manifest(files=2, bytes=1_500_000, digest="d" * 64)


def complete() -> CaseReport:
    """Return a report that has something in every field."""
    difference = ExpectedDifference(
        path="(0088,0200)", kind=next(iter(DifferenceKind)), reason="icon zeroed"
    )
    files = (
        FileResult(
            file="1.dcm",
            size=7,
            sha256="a" * 64,
            fate=Fate.RELEASED,
            series="1.2",
            output_sha256="b" * 64,
            differences=(difference,),
            broken_signatures=("(FFFA,FFFA)[0]",),
        ),
        FileResult(
            file="scout.dcm",
            size=8,
            sha256="c" * 64,
            fate=Fate.WITHHELD,
            code="Localizer",
            reason="a scout <b>view</b>",
        ),
    )
    checks = (
        Check(
            name="facial_skin_removed",
            passed=True,
            figure=0.9991,
            bound=0.985,
            message="99.91% of the facial skin is gone",
        ),
    )
    series = SeriesResult(
        series="1.2",
        fate=Fate.RELEASED,
        slices=2,
        spacing_mm=(3.0, 1.0, 1.0),
        orientation="verified",
        mask_ml=412.0,
        tissue_ml=303.0,
        fill_hu=-1000.0,
        checks=checks,
    )
    result = CaseResult(
        released=True,
        series=(series,),
        files=files,
        seconds={"read": 0.25},
        segmenter="geometric",
        model_digest="e" * 64,
    )
    return replace(describe("job-1", "case", MANIFEST, DefaceOptions(), result), staged="f" * 16)


def refused() -> CaseReport:
    """Return the report of a case that was broken off."""
    return describe(
        "job-2",
        "case",
        MANIFEST,
        DefaceOptions(),
        failed(WorkerTimedOut("no result within the job timeout")),
    )


KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def is_of_type(value: object, kind: str) -> bool:
    """Return whether a value has a JSON type; true and false are not numbers."""
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, KINDS[kind])


def problems(
    value: object, schema: dict[str, Any], root: dict[str, Any], place: str = "$"
) -> Iterator[str]:
    """Validate a JSON value with the part of JSON Schema that the report uses.

    An unknown keyword is an error of this test.
    """
    known = {
        "$defs",
        "$ref",
        "$schema",
        "additionalProperties",
        "anyOf",
        "default",
        "description",
        "enum",
        "items",
        "maxItems",
        "minItems",
    }
    assert schema.keys() <= known | {"prefixItems", "properties", "required", "title", "type"}, (
        schema.keys()
    )
    if "$ref" in schema:
        yield from problems(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, place)
        return
    if "anyOf" in schema and all(
        list(problems(value, one, root, place)) for one in schema["anyOf"]
    ):
        yield f"{place}: none of the alternatives"
    if "type" in schema and not is_of_type(value, schema["type"]):
        yield f"{place}: {value!r} is not of the type {schema['type']}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{place}: {value!r} is not in {schema['enum']}"
    if isinstance(value, dict):
        yield from object_problems(value, schema, root, place)
    if isinstance(value, list):
        yield from array_problems(value, schema, root, place)


def object_problems(
    value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], place: str
) -> Iterator[str]:
    """Validate the members of an object."""
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{place}: {name} is missing"
    for name, one in value.items():
        inner = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
        if inner is None:
            yield f"{place}: {name} is unknown"
        else:
            yield from problems(one, inner, root, f"{place}.{name}")


def array_problems(
    value: list[Any], schema: dict[str, Any], root: dict[str, Any], place: str
) -> Iterator[str]:
    """Validate the number of items and each item."""
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        yield f"{place}: {len(value)} items"
    inners = schema.get("prefixItems") or [schema["items"]] * len(value)
    for number, (one, inner) in enumerate(zip(value, inners, strict=False)):
        yield from problems(one, inner, root, f"{place}[{number}]")


def test_the_committed_schema_is_the_code() -> None:
    """A change of the report shows in the schema that programs use."""
    assert COMMITTED.read_text(encoding="utf-8") == encoded_schema()


@pytest.mark.parametrize("report", [complete(), refused()])
def test_reports_are_valid_and_read_back(report: CaseReport) -> None:
    """What is written is what the schema says and what is read."""
    assert list(problems(json.loads(report.to_json()), json_schema(), json_schema())) == []
    assert CaseReport.from_json(report.to_json()) == report


def test_the_schema_notices_what_is_wrong() -> None:
    """A missing field, an unknown state and a wrong type are each found."""
    plain = json.loads(complete().to_json())
    del plain["job_id"]
    plain |= {"state": "lost", "generation": True}
    found = list(problems(plain, json_schema(), json_schema()))
    assert [problem.split(":")[0] for problem in found] == ["$", "$.generation", "$.state"]


def test_a_report_of_another_version_is_not_read() -> None:
    """Nothing is guessed from a report that means something else."""
    with pytest.raises(ValueError, match="schema version 2, expected 1"):
        CaseReport.from_plain(
            {**json.loads(complete().to_json()), "schema_version": SCHEMA_VERSION + 1}
        )


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"job_id": 1}', b"\xff"])
def test_what_is_no_report_is_a_value_error(content: bytes) -> None:
    """A report that was damaged counts as not there."""
    with pytest.raises(ValueError, match=r".*"):
        CaseReport.from_json(content)


def test_the_page_says_first_what_happened_and_why() -> None:
    """The outcome and its reason stand above everything else, for each state."""
    assert re.search(r"<b>Refused: WorkerTimedOut\.</b> No result within", render(refused(), {}))
    verdicts = {
        state: re.search(
            r'<div class="outcome.*?<b>(\w+)', render(complete().at(state), {}), re.DOTALL
        )
        for state in set(State) - {State.REFUSED}
    }
    assert {state: found[1] for state, found in verdicts.items() if found} == {
        State.PREPARED: "Prepared",
        State.PUBLISHED: "Released",
        State.DONE: "Released",
        State.SUPERSEDED: "Superseded",
    }


def test_the_page_of_a_refusal_says_what_to_do_next() -> None:
    """Per code, in the box of the verdict, before any table."""
    page = render(refused(), {})
    assert page.index("What to do next") < page.index("raise <code>work.job_timeout</code>")
    assert page.index("raise <code>work.job_timeout</code>") < page.index("<h2>")
    assert "What to do next" not in render(complete().at(State.DONE), {})


def test_pictures_stand_above_the_tables() -> None:
    """A person looks before reading."""
    page = render(complete().at(State.DONE), {"1.2": b"\x89PNG"})
    assert page.index("data:image/png") < page.index("<table>")


def partial() -> CaseReport:
    """Return the report of a case that was released without one of its series."""
    whole = complete()
    failed_series = SeriesResult(
        series="3.4",
        number=4,
        description="Brain Bone 5.0",
        kind="CT AXIAL",
        fate=Fate.FAILED,
        code="MissingSlices",
        reason="slices are missing",
        slices=20,
    )
    bad = [
        FileResult(
            file=f"4/{number}.dcm",
            size=9,
            sha256="d" * 64,
            fate=Fate.FAILED,
            code="MissingSlices",
            reason="slices are missing",
            series="3.4",
        )
        for number in range(20)
    ]
    result = replace(
        whole.result,
        series=(*whole.result.series, failed_series),
        files=(*whole.result.files, *bad),
    )
    return replace(whole, state=State.DONE, result=result)


def test_a_partial_release_does_not_look_whole() -> None:
    """Page and one-line summary give files out of files and the number of failed series."""
    report = partial()
    assert (report.outcome, report.parts) == (
        "released in part",
        "1 of 22 files; 1 series failed",
    )
    page = render(report, {})
    assert "<b>Released in part.</b>" in page
    assert "1 of 22 files are in the output" in page
    assert "--on-series-failure withhold" not in page  # it was given
    assert complete().at(State.DONE).outcome == "released"
    assert refused().outcome == "refused"


def test_the_page_names_series_as_workstations_do() -> None:
    """By number and description; the UID stands below."""
    page = render(partial(), {})
    assert re.search(r">4</td>\s*<td>Brain Bone 5\.0<.*?3\.4.*?>CT AXIAL<", page, re.DOTALL)


def test_a_refusal_for_several_reasons_lists_them() -> None:
    """One line per failed series, under a verdict of one sentence."""
    report = partial()
    second = replace(report.result.series[-1], series="5.6", description="", number=None)
    result = replace(
        report.result,
        released=False,
        code="MissingSlices",
        reason="two reasons",
        series=tuple(one.held_back("MissingSlices") for one in (*report.result.series, second)),
    )
    page = render(replace(report, state=State.REFUSED, result=result), {})
    assert "Nothing of this case is in the output, for 2 reasons:" in page
    assert page.count("slices are missing.</li>") == 2
    assert "repeat with <code>--on-series-failure withhold</code>" in page


def test_files_are_folded_into_groups_of_one_reason() -> None:
    """Twenty files that fail for one reason need one sentence, not twenty."""
    groups = file_groups(partial().result)
    assert [(len(group.files), group.fate) for group in groups] == [
        (1, Fate.RELEASED),
        (1, Fate.WITHHELD),
        (20, Fate.FAILED),
    ]
    page = render(partial(), {})
    assert page.count("slices are missing") == 2  # row of the series, title of the group
    assert "20 files failed, series 4 &#34;Brain Bone 5.0&#34; (3.4): slices are missing" in page


def test_tissue_is_counted_apart_from_air() -> None:
    """A mask reaches into the air in front of the face."""
    page = render(complete().at(State.DONE), {})
    assert "303 ml" in page
    assert "mask with air: 412 ml" in page


def test_the_page_says_that_removed_ears_are_not_verified() -> None:
    """The checks of the gate cover the face only."""
    words = "Ears: removed as asked, not verified by the gate."
    done = complete().at(State.DONE)
    assert words not in render(done, {})
    assert words in render(replace(done, options={**done.options, "ears": True}), {})


def test_the_page_holds_its_pictures_and_runs_nothing_of_the_case() -> None:
    """It can be sent as one file; what comes from the case is escaped."""
    page = render(complete().at(State.DONE), {"1.2": b"\x89PNG"})
    assert 'src="data:image/png;base64,iVBORw=="' in page
    assert "<b>view</b>" not in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)


def test_the_page_of_the_docs_explains_every_field() -> None:
    """Each name in the schema stands in docs/reference/report.md."""
    schemas = [json_schema(), *json_schema()["$defs"].values()]
    fields = {name for schema in schemas for name in schema.get("properties", {})}
    assert {name for name in fields if f"`{name}`" not in PAGE} == set()


def test_the_page_of_the_docs_explains_every_state() -> None:
    """Also those that a person sees only after a crash."""
    assert {state for state in State if f"`{state.value}`" not in PAGE} == set()


def test_names_that_are_no_utf_8_name_jobs_and_read_back() -> None:
    """The same bytes are the same job; the JSON is valid UTF-8 and has them as escapes."""
    name = "M\udcfcller"
    assert (
        job_id(name, MANIFEST, DefaceOptions())
        == job_id(name, MANIFEST, DefaceOptions())
        != job_id("Muller", MANIFEST, DefaceOptions())
    )
    report = replace(refused(), case=name)
    assert rb'"case": "M\udcfcller"' in report.to_json()
    assert CaseReport.from_json(report.to_json()).case == name
