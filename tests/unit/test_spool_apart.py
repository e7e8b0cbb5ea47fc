"""No folder of a service is inside another one."""

from dataclasses import replace
from pathlib import Path

import pytest

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.storage.spool import ServiceSpool


@pytest.fixture
def spool(tmp_path: Path) -> ServiceSpool:
    """Folders as they usually lie; none is made."""
    return ServiceSpool.under(tmp_path / "spool")


def test_folders_side_by_side_are_fine_wherever_the_inbox_is(
    spool: ServiceSpool, tmp_path: Path
) -> None:
    """The inbox may lie elsewhere, and the state folder beside or above the others."""
    for each in (spool, replace(spool, inbox=tmp_path / "share" / "drop")):
        for state_dir in (tmp_path / "spool" / "state", tmp_path / "spool", tmp_path / "elsewhere"):
            each.require_apart(state_dir)


@pytest.mark.parametrize(
    "part", ["outbox", "quarantine", "staging", "work", "reports", "archive", "locks", "audit"]
)
@pytest.mark.parametrize("below", ["", "deeper"])
def test_the_inbox_is_no_other_folder_and_lies_in_none(
    spool: ServiceSpool, part: str, below: str
) -> None:
    """Released cases would be taken for new ones, or dropped ones for released."""
    with pytest.raises(
        ConfigurationError,
        match=rf"inbox .* is inside the folder {part} |{part} .* is inside the folder inbox ",
    ):
        replace(spool, inbox=getattr(spool, part) / below).require_apart(
            spool.inbox.parent / "state"
        )


def test_no_folder_lies_in_the_inbox(spool: ServiceSpool) -> None:
    """Otherwise the outbox would be a case; the message names both folders and the remedy."""
    root = spool.inbox.parent
    with pytest.raises(
        ConfigurationError,
        match=r"the folder \w+ \(.*\) is inside the folder inbox \(.*\): give each a folder",
    ):
        replace(spool, inbox=root).require_apart(root.parent / "state")
    with pytest.raises(ConfigurationError, match=r"state_dir .* is inside the folder inbox"):
        spool.require_apart(spool.inbox / "state")


def test_a_link_to_another_folder_counts_as_that_folder(
    spool: ServiceSpool, tmp_path: Path
) -> None:
    """Its own name does not matter."""
    spool.outbox.mkdir(parents=True)
    (tmp_path / "drop").symlink_to(spool.outbox)
    with pytest.raises(ConfigurationError, match="is inside the folder"):
        replace(spool, inbox=tmp_path / "drop").require_apart(tmp_path / "state")
