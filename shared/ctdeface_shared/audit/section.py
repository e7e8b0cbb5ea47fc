"""The table `[audit]` of the settings file."""

from pathlib import Path

from pydantic import Field

from ctdeface_shared.section import Section


class AuditSection(Section):
    """Who signs the entries about ended cases, and under which name."""

    key_file: Path | None = Field(None, description="Ed25519 private key (PEM) that signs entries; none leaves them unsigned.")
    public_key_file: Path | None = Field(None, description="Public keys (PEM, one or more) that signatures are checked against.")
    writer: str | None = Field(
        None, pattern="^[a-z0-9][a-z0-9-]{0,62}$", description="Begin of the names of this machine's chains; none is its host name."
    )
