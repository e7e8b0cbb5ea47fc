"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.required import missing

settings.register_profile("ctdeface", deadline=None, derandomize="CI" in os.environ)
settings.load_profile(
    "ctdeface"
)  # no deadline: a busy machine is no error; the same examples every time in CI
for port in (
    "WATCH_PORT",
    "WORK_PORT",
):  # services that tests start serve no metrics, else they would meet at one port
    os.environ.setdefault(f"CTDEFACE_METRICS__{port}", "0")
os.environ.setdefault(
    "CTDEFACE_DEFACE__SEGMENTER", "geometric"
)  # few tests are about the network, and each of its children loads torch
for threads in (
    "OMP_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
):  # tests run side by side: more would wait for each other
    os.environ.setdefault(threads, "1")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of CTDEFACE_REAL_DATA; skip without it, or fail in CI."""
    named = os.environ.get("CTDEFACE_REAL_DATA", "")
    folder = Path(named)
    if not named or not folder.is_dir():
        missing(f"CTDEFACE_REAL_DATA names no folder: {named!r}")
    return folder
