"""Runs that several end-to-end tests look at."""

import pytest

from ctdeface_shared.jobs.options import DefaceOptions, HeaderPolicy
from tests.support.cases import add_icon, add_overlay, middle_slice, write_small_case
from tests.support.runs import Run, run_case


@pytest.fixture(scope="session")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A case with an icon and an overlay in its middle slice, defaced with `headers: annotate`."""
    folder = tmp_path_factory.mktemp("annotated")
    write_small_case(folder / "case")
    add_icon(middle_slice(folder / "case"))
    add_overlay(middle_slice(folder / "case"))
    return run_case(folder / "case", folder, DefaceOptions(headers=HeaderPolicy.ANNOTATE))
