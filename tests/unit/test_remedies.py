"""Every code that a report can show comes with something to do."""

import inspect

import pytest

from ctdeface_shared import errors
from ctdeface_shared.errors import CtDefaceError
from ctdeface_shared.jobs.remedies import REMEDIES, remedy
from ctdeface_worker.case import child_process
from ctdeface_worker.dicom.eligibility import WithheldCode

BASES = {"CtDefaceError", "PermanentError", "TransientError", "InvalidSeries"}
RAISED = {
    value.code
    for module in (errors, child_process)
    for _, value in inspect.getmembers(module, inspect.isclass)
    if issubclass(value, CtDefaceError)
} - BASES


@pytest.mark.parametrize("code", sorted(RAISED | {code.value for code in WithheldCode}))
def test_every_code_has_a_remedy(code: str) -> None:
    """One or more whole sentences."""
    assert remedy(code).endswith((".", ")"))


def test_there_is_no_remedy_for_codes_that_do_not_exist() -> None:
    """A removed code leaves the table, too; `Superseded` is the state of a report."""
    assert REMEDIES.keys() - RAISED - {code.value for code in WithheldCode} == {"Superseded"}


def test_missing_slices_name_the_option_that_releases_the_rest() -> None:
    """A complete reformat with gaps gains nothing from being sent again."""
    assert "--on-series-failure withhold" in remedy("MissingSlices")
