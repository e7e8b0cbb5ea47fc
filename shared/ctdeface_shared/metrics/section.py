"""The table `[metrics]` of the settings file."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from ctdeface_shared.section import Section

OFF = 0
"""A port of this number means that nothing is served."""


class MetricsSection(Section):
    """Where watcher and worker tell how they are: /metrics, /healthz and /readyz."""

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen at; 0.0.0.0 is every one, for scrapes from elsewhere.")
    watch_port: int = Field(9464, ge=OFF, le=65535, description="Port of the watcher; 0 turns it off.")
    work_port: int = Field(9465, ge=OFF, le=65535, description="Port of the worker; 0 turns it off.")
    cert_file: Path | None = Field(None, description="Our certificate, with those that vouch for it: serves https; none serves http.")
    key_file: Path | None = Field(None, description="Key of that certificate, where it is not in the same file.")
    client_ca_file: Path | None = Field(None, description="Lets in only who shows a certificate of these authorities.")

    @model_validator(mode="after")
    def _certificate_first(self) -> Self:
        if self.cert_file is None and (self.key_file or self.client_ca_file):
            message = "key_file and client_ca_file mean nothing without cert_file: nothing would be encrypted"
            raise ValueError(message)
        return self
