"""A batch with a signed chain, made once per module, and a copy of it for each test."""

import shutil
from pathlib import Path

import pytest

from ctdeface_shared.storage.spool import Spool
from tests.support.service.audited import alone, make_batch, spool_in


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run in an empty folder without settings, and do not wait for a service that there is not."""
    alone(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key pair, and a batch of three released cases, one released twice."""
    return make_batch(tmp_path_factory.mktemp("made"))


@pytest.fixture
def spool(made: Path, tmp_path: Path) -> Spool:
    """A copy of that, to be tampered with."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True, symlinks=True)
    return spool_in(tmp_path)
