"""The table `[traces]` of the settings file."""

from pydantic import Field

from ctdeface_shared.section import Section


class TracesSection(Section):
    """Where traces of cases are sent."""

    endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^\s/?#@]+/[^\s?#]*$",
        description="OTLP/HTTP address such as http://localhost:4318/v1/traces; none sends nothing.",
    )
