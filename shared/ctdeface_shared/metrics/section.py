"""The table `[metrics]` of the settings file."""

from pydantic import Field

from ctdeface_shared.section import Section

OFF = 0
"""A port of this number means that nothing is served."""


class MetricsSection(Section):
    """Where watcher and worker tell how they are: /metrics, /healthz and /readyz."""

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen at; 0.0.0.0 is every one, for scrapes from elsewhere.")
    watch_port: int = Field(9464, ge=OFF, le=65535, description="Port of the watcher; 0 turns it off.")
    work_port: int = Field(9465, ge=OFF, le=65535, description="Port of the worker; 0 turns it off.")
