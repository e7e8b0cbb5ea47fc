"""Programs that tests need: skip without them, or fail in CI."""

import os
import shutil
from typing import NoReturn

import pytest

INSTALLER = "sh deploy/install_servers.sh installs it on Debian and Ubuntu, as root"


def program(name: str) -> str:
    """Return the path of a program; skip without it, or fail in CI."""
    found = shutil.which(name)
    if found is None:
        missing(f"{name} is not installed: {INSTALLER}")
    return found


def missing(reason: str) -> NoReturn:
    """Skip the test, or fail it in continuous integration."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
