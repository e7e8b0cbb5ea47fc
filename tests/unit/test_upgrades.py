"""Reports of neighboring versions are read, and the example for contributors runs."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctdeface_shared.jobs.manifest import Manifest
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_worker.pipeline.result import CaseResult
from ctdeface_worker.report.model import CaseReport, describe
from ctdeface_worker.segmentation.base import Segmenter
from tests.support.cases import small_head

DOCS = Path(__file__).parents[2] / "docs"
REPORT = describe(
    "job",
    "case",
    Manifest(files=1, bytes=1, digest="d" * 64),
    DefaceOptions(),
    CaseResult(released=True),
)


def test_a_report_of_a_newer_program_is_read_without_its_new_fields() -> None:
    """Unknown fields are ignored, so an old worker goes on with what a new one began."""
    content = json.loads(REPORT.to_json()) | {"moon": "full"}
    content["result"]["moon"] = "full"
    assert CaseReport.from_plain(content) == REPORT


def test_a_report_of_an_older_program_is_read_with_defaults_for_what_it_lacks() -> None:
    """Fields that came later have defaults."""
    content = json.loads(REPORT.to_json())
    for name in ("inputs_digest", "outputs_digest", "versions", "staged"):
        del content[name]
    read = CaseReport.from_plain(content)
    assert (read.job_id, read.state, read.inputs_digest, read.outputs_digest) == (
        REPORT.job_id,
        REPORT.state,
        "",
        "",
    )


def test_a_report_of_another_form_proves_nothing() -> None:
    """It is refused as a whole, so its job is done again."""
    with pytest.raises(ValueError, match="schema version 2"):
        CaseReport.from_plain(json.loads(REPORT.to_json()) | {"schema_version": 2})


def test_the_example_of_a_segmenter_is_one() -> None:
    """The code of the page runs, and keeps the protocol."""
    text = (DOCS / "develop/extending.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    page: dict[str, Any] = {"__name__": "extending"}
    exec(compile(code, "extending.md", "exec"), page)  # noqa: S102  the page's own example
    segmenter: Segmenter = page["FrontHalf"]()
    volume = small_head().volume
    face = segmenter.segment(volume).face
    assert face.shape == volume.hu.shape
    assert np.array_equal(face.any(axis=(0, 2)), np.arange(face.shape[1]) < face.shape[1] // 2)
