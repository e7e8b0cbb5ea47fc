"""Input, output and state of a batch keep out of each other."""

from functools import partial
from pathlib import Path

import pytest

from ctdeface_shared.errors import ConfigurationError
from ctdeface_worker.batch.run import BatchPlan, check_roots, prepare_nifti_root


def plan(root: Path, **places: str | None) -> BatchPlan:
    """Return a plan with folders below a root, in good order unless told otherwise."""
    named = {
        "root_in": "in",
        "root_out": "out",
        "state_root": "state",
        "work_root": None,
        "nifti_root": None,
    } | places
    folders = {name: None if place is None else root / place for name, place in named.items()}
    plan = partial(BatchPlan, keep_work=False, case_depth=1, jobs=1, redo=False)
    return plan(**folders)  # type: ignore[arg-type]  # roots are never None


@pytest.mark.parametrize(
    "places",
    [
        {"root_out": "in"},
        {"root_out": "in/out"},
        {"root_in": "out/in"},
        {"state_root": "out"},
        {"state_root": "out/state"},
        {"root_out": "state/out"},
        {"work_root": "out/work"},
        {"nifti_root": "out"},
        {"nifti_root": "in/nifti"},
        {"root_in": "state/in"},
        {"root_in": "work/in", "work_root": "work"},
        {"root_out": "link/out"},
        {"state_root": "out/../in/deeper"},
    ],
)
def test_folders_that_overlap_are_refused(tmp_path: Path, places: dict[str, str]) -> None:
    """Also through links, and by longer ways."""
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in")
    with pytest.raises(ConfigurationError, match="overlap"):
        check_roots(plan(tmp_path, **places))


@pytest.mark.parametrize(
    "places",
    [
        {},
        {"state_root": "out.ctdeface"},
        {"work_root": "state/work", "nifti_root": "nifti"},
        {"root_out": "in2"},
    ],
)
def test_folders_beside_each_other_are_fine(tmp_path: Path, places: dict[str, str]) -> None:
    """A name that begins like another's is no problem."""
    check_roots(plan(tmp_path, **places))


def test_a_nifti_root_that_cannot_be_made_is_told_before_any_case_is_worked_on(
    tmp_path: Path,
) -> None:
    """A file is in the way; otherwise the folder is made with the output's mode."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be created"):
        prepare_nifti_root(tmp_path / "file" / "nifti", 0o750)
    prepare_nifti_root(tmp_path / "nifti", 0o750)
    assert (tmp_path / "nifti").stat().st_mode & 0o777 == 0o750
