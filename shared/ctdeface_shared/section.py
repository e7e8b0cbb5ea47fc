"""What all tables of the settings file have in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table of the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
