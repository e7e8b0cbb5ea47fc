"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real CT that CTDEFACE_REAL_DATA names; without it the test is skipped, in CI it fails."""
    named = os.environ.get("CTDEFACE_REAL_DATA", "")
    folder = Path(named)
    if named and folder.is_dir():
        return folder
    reason = f"CTDEFACE_REAL_DATA names no folder: {named!r}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
