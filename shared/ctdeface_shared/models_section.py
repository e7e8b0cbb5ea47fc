"""The table `[models]` of the settings file."""

import os
from pathlib import Path

from pydantic import Field

from ctdeface_shared.section import Section


class ModelsSection(Section):
    """Networks that were installed besides the shipped one."""

    folder: Path | None = Field(None, description="Folder of installed networks; none is ctdeface/models among the user's data.")

    @property
    def place(self) -> Path:
        """The folder in effect."""
        return self.folder or _data_home() / "ctdeface" / "models"


def _data_home() -> Path:
    """Return the user's folder for data (XDG base directories)."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
