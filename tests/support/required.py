"""Programs that tests need and pip does not bring: found, or the test is skipped; in continuous integration it fails instead."""

import os
import shutil
from typing import NoReturn

import pytest

INSTALLER = "sh deploy/install_servers.sh installs it on Debian and Ubuntu, as root"


def program(name: str) -> str:
    """Return the path of a program; without it skip the test, or fail it in continuous integration."""
    found = shutil.which(name)
    if found is None:
        missing(f"{name} is not installed: {INSTALLER}")
    return found


def missing(reason: str) -> NoReturn:
    """Skip the test, or fail it in continuous integration."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
