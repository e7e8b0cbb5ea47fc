"""Settings mean the same wherever they come from."""

import os
import tempfile
from pathlib import Path
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from ctdeface_shared.jobs.options import HIGHEST_FILL_HU, HeaderPolicy, OnSeriesFailure, Profile
from ctdeface_shared.settings.loading import PREFIX, load, variable_of

DEFACE = st.fixed_dictionaries(
    {},
    optional={
        "profile": st.sampled_from(Profile),
        "ears": st.booleans(),
        "fill": st.sampled_from(["air", "p10"]) | st.integers(-2000, HIGHEST_FILL_HU).map(str),
        "headers": st.just(HeaderPolicy.PRESERVE),
        "on_series_failure": st.sampled_from(OnSeriesFailure),
    },
)


def _toml(table: dict[str, object]) -> str:
    lines = [
        f"{key} = {str(value).lower() if isinstance(value, bool) else repr(str(value))}"
        for key, value in table.items()
    ]
    return "\n".join(["[deface]", *lines])


@given(
    table=DEFACE, covered=st.sets(st.sampled_from(["profile", "ears", "fill", "on_series_failure"]))
)
def test_file_and_environment_say_the_same(table: dict[str, object], covered: set[str]) -> None:
    """Any mix of file and environment gives the options that one file with everything gives."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    moved = {variable_of(f"deface.{key}"): str(table[key]) for key in covered & set(table)}
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, environment, clear=True),
    ):
        whole, rest = Path(folder, "whole.toml"), Path(folder, "rest.toml")
        whole.write_text(_toml(table), encoding="utf-8")
        rest.write_text(
            _toml({key: value for key, value in table.items() if key not in covered}),
            encoding="utf-8",
        )
        expected = load(whole).settings
        with mock.patch.dict(os.environ, moved):
            assert load(rest).settings == expected
    assert expected.deface.options().digest
